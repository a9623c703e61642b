"""What a parent sent for later: the choices and plugins its child may ask about.

Kept as plain data, because most children never ask; `procession._selection` looks here
when one does.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from procession._selector import Bequest

#: The selection and the known plugins of the parent, until the child takes them over by
#: asking; None then, and in a process of its own.
bequest: Bequest | None = None
#: The name of the process that this one is about to be.
process_name = "Process"


def adopt(preparation: Mapping[str, Any]) -> None:
    """Keep what *preparation* says."""
    global bequest, process_name
    bequest = preparation["bequest"]
    process_name = preparation["name"]
