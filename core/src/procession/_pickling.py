"""Pickles as messages: a body, and the large buffers that stay where they are.

A buffer (of a numpy array, say) of some size is not copied into the pickle: it is
written from the memory it lies in, and received into memory of its own (pickle
protocol 5). A short one is cheaper inside.
"""

from __future__ import annotations

try:
    from _pickle import PickleBuffer
    from _pickle import dumps as _dumps
    from _pickle import loads as _loads
except ImportError:  # an interpreter without the C accelerator
    from pickle import PickleBuffer
    from pickle import dumps as _dumps
    from pickle import loads as _loads

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from procession._channel import Buffer

PROTOCOL = 5
#: A buffer shorter than this is copied into the body: below it that is cheaper (measured).
SHORTEST_BUFFER = 64 << 10


class _Buffers(list[memoryview]):
    """Collects the buffers of one pickle; calling it decides about one buffer."""

    __slots__ = ()

    def __call__(self, buffer: PickleBuffer) -> bool:
        """Take *buffer*, or answer True to have it copied into the pickle."""
        view = buffer.raw()
        if len(view) < SHORTEST_BUFFER:
            return True
        self.append(view)
        return False


def dumps(obj: Any) -> tuple[bytes, list[memoryview]]:
    """Return the pickle of *obj* and its buffers, which are views of its own memory."""
    buffers = _Buffers()
    return _dumps(obj, PROTOCOL, buffer_callback=buffers), buffers


def loads(body: Buffer, buffers: Iterable[Buffer] = ()) -> Any:
    """Return the object; it is built on the memory of *buffers*, not on copies of it."""
    if buffers:
        return _loads(body, buffers=buffers)
    return _loads(body)


class _Joined:
    """Pickles as what `loads` makes of a body and its buffers."""

    __slots__ = ("_parts",)

    def __init__(self, body: Buffer, buffers: Sequence[Buffer]) -> None:
        # A bytearray each: the array built on it can be written to, as if it had been
        # received with its buffers.
        self._parts = bytes(body), [bytearray(buffer) for buffer in buffers]

    def __reduce__(self) -> tuple[Any, ...]:
        return loads, self._parts


def join(body: Buffer, buffers: Sequence[Buffer]) -> bytes:
    """Return one pickle of the same object, with its buffers inside.

    Nothing is unpickled for it: no code of the object runs, and its classes need not
    be importable here. Any unpickler can load it where procession is installed.
    """
    return _dumps(_Joined(body, buffers), PROTOCOL)
