"""How objects are pickled for another process that the pickle module does not know how to.

Sockets, which travel as descriptors; and, where the standard package is loaded, what was
registered with its `ForkingPickler`: PyTorch registers there how a tensor is shared instead of
copied, the standard package itself how its connections travel.
"""

from __future__ import annotations

import copyreg
import sys
from io import BytesIO

from procession._ground import standard as _standard
from procession._ground.passed_descriptor import PassedDescriptor

try:
    from _pickle import Pickler
except ImportError:  # an interpreter without the C accelerator
    from pickle import Pickler

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    from procession._ground.encoder import Encoder

    Reducer: TypeAlias = "Callable[[Any], Any]"


def reducers() -> dict[type, Reducer]:
    """Return the reducers that there are now, by exact type."""
    found = {kind: _checked(reducer) for kind, reducer in list(_standard.reducers().items())}
    sockets = sys.modules.get("socket")
    if sockets is not None:
        found[sockets.socket] = _reduce_socket
    return found


def encode(
    obj: Any,
    protocol: int,
    *,
    buffer_callback: Callable[[Any], Any],
    encoder: Encoder | None = None,
) -> bytes:
    """Return the pickle of *obj*, as ``pickle.dumps`` does or, if there is one, *encoder*."""
    base = Pickler if encoder is None else encoder.serializer.pickler()
    file = BytesIO()
    pickler(base)(file, protocol, buffer_callback=buffer_callback).dump(obj)
    return file.getvalue()


class _Table(dict[type, "Reducer"]):
    """Looks up the reducer of a type, each time: others may be registered at any time."""

    def __init__(self, otherwise: Mapping[type, Reducer]) -> None:
        super().__init__()
        self._otherwise = otherwise

    def __missing__(self, kind: type) -> Reducer:
        return find(kind, self._otherwise)


def find(kind: type, otherwise: Mapping[type, Reducer]) -> Reducer:
    """Return the reducer of exactly *kind* there is now, or of *otherwise*; `KeyError`."""
    if kind.__module__ == "socket" and kind is sys.modules["socket"].socket:
        return _reduce_socket
    reducer = _standard.reducers().get(kind)
    return otherwise[kind] if reducer is None else _checked(reducer)


_picklers: dict[type[Pickler], type[Pickler]] = {}


def pickler(base: type[Pickler]) -> type[Pickler]:
    """Return a pickler like *base* that looks here first."""
    found = _picklers.get(base)
    if found is None:
        theirs: Any = getattr(base, "dispatch_table", None)  # a descriptor, if it has none
        table = _Table(theirs if hasattr(theirs, "__getitem__") else copyreg.dispatch_table)
        found = _picklers.setdefault(base, type("Pickler", (base,), {"dispatch_table": table}))
    return found


def _checked(reducer: Reducer) -> Reducer:
    # The standard package has one for all its ctypes, which are of the same classes as ours.
    home = getattr(reducer, "__module__", None)  # a method of a built-in type has none
    return _reduce_ctype if home == "multiprocessing.sharedctypes" else reducer


def _reduce_ctype(obj: Any) -> Any:
    ours = sys.modules.get("procession.sharedctypes")
    if ours is not None and ours.is_shared(obj):
        return ours.reduce(obj)
    return _standard.reducers()[type(obj)](obj)


def _reduce_socket(end: socket.socket) -> Any:
    return _rebuild_socket, (PassedDescriptor(end.fileno()), end.family, end.type, end.proto)


def _rebuild_socket(
    descriptor: PassedDescriptor, family: int, kind: int, protocol: int
) -> socket.socket:
    import socket

    return socket.socket(family, kind, protocol, descriptor.detach())
