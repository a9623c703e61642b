"""Which of the two implementations this process uses: the compiled one or its twin."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable

    from procession.plugin import Buffer

#: The environment variable that forces one of them.
VARIABLE = "PROCESSION_RING_IMPLEMENTATION"
NATIVE, PYTHON = "native", "python"


#: Processors that keep stores in order, on which the twin relies.
ORDERLY = ("x86_64", "i386", "i486", "i586", "i686")


def obstacle() -> str | None:
    """Return why neither can be used here, as a noun phrase, or None."""
    try:
        chosen = implementation()
    except ValueError as error:
        return f"an implementation to use ({error})"
    except ImportError as error:
        return f"the compiled extension, which {VARIABLE} demands ({error})"
    if sys.platform == "win32":
        return "Linux"
    if chosen == PYTHON and os.uname().machine not in ORDERLY:
        return "the compiled extension, as this processor does not keep stores in order"
    return None


def copier() -> Callable[[Buffer, Buffer], object] | None:
    """Return what copies better than Python can, if it is compiled."""
    if implementation() != NATIVE:
        return None
    from ._native import copy

    return copy


def implementation() -> str:
    """Return ``"native"`` or ``"python"``: what is forced, or else native if it is there.

    Raises `ValueError` for another name in the variable, and `ImportError` if the compiled
    one is forced and is not there.
    """
    forced = os.environ.get(VARIABLE) or None
    if forced not in (None, NATIVE, PYTHON):
        raise ValueError(f"{VARIABLE} is {forced!r}; it can be {NATIVE!r} or {PYTHON!r}")
    if forced == PYTHON:
        return PYTHON
    try:
        from . import _native  # noqa: F401
    except ImportError:
        if forced == NATIVE:
            raise
        return PYTHON
    return NATIVE
