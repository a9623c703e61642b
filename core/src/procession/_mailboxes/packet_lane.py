"""A lane on two descriptors that keep packets apart."""

from __future__ import annotations

import errno
import os
import sys

from procession._contracts.lane import Lane
from procession._mailboxes.packet_padding import MODULUS, PADDING, capacity, count, padding, strip

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from procession._ground.handoff import Handoff, Recipe, Takeover

_PLAIN, _OTHER = PADDING
_LAST = MODULUS - 1
_INTEGER = 4
_read = os.read
_write = os.write


class PacketLane(Lane):
    """A lane whose packets are counted by their lengths (`procession._mailboxes.packet_padding`).

    A transport's subclass says how long a padded packet may be, and makes the two
    descriptors: what is written to *writer* is read from *reader*. They must keep
    packets of up to `longest` bytes whole, never block, tell the sum of the lengths of
    all packets by FIONREAD, and hold fewer than `MODULUS` packets at a time.
    """

    __slots__ = ("_reader", "_writer")

    #: The longest padded packet, in bytes.
    longest = 4096
    limit = capacity(longest)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.limit = capacity(cls.longest)

    def __init__(self, reader: int, writer: int) -> None:
        """Take over both descriptors."""
        self._reader = reader
        self._writer = writer

    def send(self, packet: bytes, kind: int = 0, /) -> bool:
        """See `Lane.send`."""
        made = _OTHER if kind else _PLAIN
        length = len(packet)
        try:
            _write(self._writer, packet + (made[length & _LAST] or padding(length, kind)))
        except BlockingIOError:
            return False
        return True

    def receive(self) -> tuple[bytes, int] | None:
        """See `Lane.receive`."""
        padded = self.receive_padded()
        return None if padded is None else strip(padded)

    def receive_padded(self) -> bytes | None:
        """See `Lane.receive_padded`."""
        try:
            return _read(self._reader, self.longest)
        except BlockingIOError:
            return None

    def pending(self) -> int:
        """See `Lane.pending`."""
        if sys.platform == "win32":
            raise OSError("this platform has no FIONREAD")
        import fcntl
        import termios

        if self._reader < 0:
            raise OSError(errno.EBADF, "the lane was closed")
        total = fcntl.ioctl(self._reader, termios.FIONREAD, bytes(_INTEGER))
        return count(int.from_bytes(total, sys.byteorder))

    def fileno(self) -> int:
        """See `Lane.fileno`."""
        return self._reader

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        return handoff.give(self._reader), handoff.give(self._writer)

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        reader = takeover.take(recipe[0])
        try:
            return cls(reader, takeover.take(recipe[1]))
        except BaseException:
            os.close(reader)
            raise

    def close(self) -> None:
        """See `Lane.close`."""
        reader, writer = self._reader, self._writer
        self._reader = self._writer = -1
        if reader >= 0:
            os.close(reader)
            os.close(writer)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        self.close()
