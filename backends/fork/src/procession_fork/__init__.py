"""Start method for procession: the child is a copy of the running parent.

A child may import this package to attach what it was handed, so importing it costs nothing:
the class is loaded when it is first asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._start_method import Fork

__version__ = "0.1.0"

__all__ = ["Fork", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Fork":
        from ._start_method import Fork

        return Fork
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
