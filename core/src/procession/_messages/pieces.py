"""Messages in pieces so small that a channel with any room at all takes one at once."""

from __future__ import annotations

from struct import Struct

from procession._messages.blocks import blocks
from procession._messages.pickling import join

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from procession._contracts.channel import Buffer

#: The longest piece: with what a channel adds to it, no more than a pipe takes in one go.
LONGEST = 4000

# The length of the whole message, and where in it the piece belongs.
_head = Struct("=QQ")
_ROOM = LONGEST - _head.size


def cut(body: Buffer, buffers: Sequence[Buffer]) -> Iterator[bytes]:
    """Yield the pieces of a message, at least one. Its buffers become part of the body."""
    if buffers:
        body = join(body, buffers)
    view = memoryview(body)
    length = len(view)
    for start in range(0, length or 1, _ROOM):
        yield b"".join((_head.pack(length, start), view[start : start + _ROOM]))


class Assembly:
    """Puts the pieces of one message together, in order."""

    __slots__ = ("_length", "_received", "_view")

    def __init__(self) -> None:
        self._view = memoryview(b"")
        self._received = 0
        self._length = -1

    def add(self, piece: Buffer) -> bool:
        """Add the next piece; return False, and do nothing, if it is not the next one."""
        view = memoryview(piece)
        length, start = _head.unpack_from(view)
        view = view[_head.size :]
        if start != self._received or (start and length != self._length):
            return False
        if len(view) == length:  # all of it
            self._view = view
        else:
            if not start:
                self._view = blocks.take(length)
            self._view[start : start + len(view)] = view
        self._length = length
        self._received = start + len(view)
        return True

    @property
    def begun(self) -> bool:
        """Whether any piece was added."""
        return self._length >= 0

    def body(self) -> memoryview | None:
        """Return the message, once all of it was added."""
        return self._view if self._received == self._length else None
