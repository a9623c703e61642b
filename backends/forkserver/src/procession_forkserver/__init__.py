"""Start method for procession: a small clean server forks the children.

A child may import this package to attach what it was handed, so importing it costs nothing:
the class is loaded when it is first asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._start_method import ForkServer

__version__ = "0.1.0"

__all__ = ["ForkServer", "__version__"]


def __getattr__(name: str) -> object:
    if name == "ForkServer":
        from ._start_method import ForkServer

        return ForkServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
