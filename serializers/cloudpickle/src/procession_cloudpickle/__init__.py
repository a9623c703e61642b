"""Serializer for procession: functions and classes travel with their code, by cloudpickle.

Importing this package costs nothing: the class is loaded when it is first asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._serializer import Cloudpickle

__version__ = "0.1.0"

__all__ = ["Cloudpickle", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Cloudpickle":
        from ._serializer import Cloudpickle

        return Cloudpickle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
