"""Which implementation of the primitives the locks made in this process get."""

from __future__ import annotations

import os

from procession._choosing import selection
from procession._choosing.registry import OURS

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Final

    from procession._contracts.primitives import Primitive

#: The environment variable that chooses. An empty one counts as not set.
VARIABLE: Final = "PROCESSION_PRIMITIVE"

#: The name of the implementation that core brings.
BUILT_IN: Final = "python"


def primitive_class() -> type[Primitive]:
    """Return the class of the primitives to be made now.

    What PROCESSION_PRIMITIVE names; else the first installed one that can be used here,
    ours before others; else core's own. Raises `UnknownPluginError` and its relatives when
    the variable names what cannot be used.
    """
    return choose()[0]


def choose() -> tuple[type[Primitive], str]:
    """Return the class of the primitives to be made now, and why it is that one."""
    registry = selection.registry()
    chosen = os.environ.get(VARIABLE)
    if chosen and chosen != BUILT_IN:
        return registry.load("primitive", chosen, source=VARIABLE), VARIABLE
    passed: list[str] = []
    if not chosen:
        installed = registry.names("primitive")
        for name in sorted(installed, key=lambda name: (name not in OURS["primitive"], name)):
            problem = registry.problem("primitive", name)
            if problem is None:
                return registry.load("primitive", name), "first available"
            passed.append(str(problem))
    from procession._locks.kernel_primitive import KernelPrimitive

    why = VARIABLE if chosen else "; ".join(passed) or "no other one is installed"
    return KernelPrimitive, why
