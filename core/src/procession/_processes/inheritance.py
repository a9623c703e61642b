"""What a parent sent for later: the choices and plugins its child may ask about.

Kept as plain data, because most children never ask; `procession._choosing.selection` looks here
when one does.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeAlias

    from procession._choosing.selector import Bequest

    #: A process's number and when it started, which no later process has in common.
    Identity: TypeAlias = "tuple[int, int]"

#: The selection and the known plugins of the parent, until the child takes them over by
#: asking; None then, and in a process of its own.
bequest: Bequest | None = None
#: The name of the process that this one is about to be.
process_name = "Process"
# The first of the processes that have started each other; None until somebody asks.
_root: Identity | None = None


def adopt(preparation: Mapping[str, Any]) -> None:
    """Keep what *preparation* says."""
    global bequest, process_name, _root
    bequest = preparation["bequest"]
    process_name = preparation["name"]
    _root = preparation["root"]


def family_root() -> Identity:
    """Return the first of the processes that have started each other, up to this one.

    A parent asks before it starts a child, so that a forked one inherits the answer.
    """
    global _root
    if _root is None:
        _root = identify(os.getpid()) or (os.getpid(), 0)
    return _root


def identify(pid: int) -> Identity | None:
    """Return the identity of the process with number *pid*; None if there is none.

    One that has ended is none: nothing is left of it that could use anything. Raises `OSError`
    when nothing can be found out.
    """
    from procession._ground.process_status import start_of_living

    start = start_of_living(pid)
    return (pid, start) if start else None
