"""Transport for procession: messages travel through shared memory.

A child may import this package to attach what it was handed, so importing it costs nothing:
the class is loaded when it is first asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._transport import Ring

__version__ = "0.1.0"

__all__ = ["Ring", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Ring":
        from ._transport import Ring

        return Ring
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
