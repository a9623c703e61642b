"""Transport for procession: pipes and queues whose ends may live on different hosts.

A child may import this package to attach what it was handed, so importing it costs nothing:
the class is loaded when it is first asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._transport import Tcp

__version__ = "0.1.0"

__all__ = ["Tcp", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Tcp":
        from ._transport import Tcp

        return Tcp
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
