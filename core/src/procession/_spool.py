"""Large messages, each in memory of its own until somebody takes it."""

from __future__ import annotations

import struct

from procession._blocks import blocks
from procession._sparse_file import give_back, page_end, read_all, write_all

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence

    from procession._channel import Buffer, Message
    from procession._mailbox_state import Ledger


# Behind the end of any file.
_END = 1 << 62


class Spool:
    """Regions of a file, one for each large message, first in, first out.

    Like `OverflowLog` it is stateless and works on a `Ledger` that the caller commits.
    A message is written above the last committed one, in time that may be long, while
    its writer holds the lock of the spool's writers; the commit that adds its *token* to
    the overflow log also makes the region part of the spool. A writer killed before
    leaves nothing but bytes that the next one overwrites. In the same way one reader at
    a time copies the first message out, and the commit that removes its token frees the
    region; a reader killed before leaves the message to the next.
    """

    __slots__ = ("_fd", "base")

    def __init__(self, fd: int, base: int) -> None:
        """Use the file from offset *base* on; *fd* is borrowed."""
        self._fd = fd
        self.base = base

    def write(self, ledger: Ledger, body: Buffer, buffers: Sequence[Buffer]) -> bytes:
        """Write a message above the last one and return its token; commits nothing.

        The writers' lock is held. Raises `OSError` when memory has run out.
        """
        start = ledger.spool_tail
        pieces = (body, *buffers)
        sizes = [len(piece) for piece in pieces]
        try:
            write_all(self._fd, pieces, start)
        except OSError:
            # What was written of it is in nobody's way, but memory is short.
            give_back(self._fd, start, page_end(start + sum(sizes)))
            raise
        return struct.pack(f"={len(sizes) + 1}Q", start, *sizes)

    def add(self, ledger: Ledger, token: bytes) -> None:
        """Make the message of *token* part of the spool."""
        start, *sizes = _unpack(token)
        ledger.spool_tail = page_end(start + sum(sizes))

    def read(self, token: bytes) -> Message:
        """Return a copy of the message of *token*. The readers' lock is held."""
        start, *sizes = _unpack(token)
        pieces = [blocks.take(size) for size in sizes]
        read_all(self._fd, pieces, start)
        return pieces[0], pieces[1:]

    def remove(self, ledger: Ledger, token: bytes) -> None:
        """Remove the message of *token*, the first one."""
        start, *sizes = _unpack(token)
        ledger.spool_head = page_end(start + sum(sizes))

    def clear(self, ledger: Ledger) -> None:
        """Remove every message."""
        ledger.spool_head = ledger.spool_tail

    def reclaim(self, ledger: Ledger) -> None:
        """Give back the memory of removed messages; commit the removal before this."""
        give_back(self._fd, ledger.spool_freed, ledger.spool_head)
        ledger.spool_freed = ledger.spool_head

    def rewind(self, ledger: Ledger) -> None:
        """Start again at the beginning if nothing is left, to keep offsets small.

        The writers' lock is held, so nobody is writing: what lies in the file now was
        written by somebody who was killed, and is given back.
        """
        if ledger.spool_freed == ledger.spool_tail:
            give_back(self._fd, self.base, _END)
            ledger.spool_head = ledger.spool_tail = ledger.spool_freed = self.base


def _unpack(token: bytes) -> tuple[int, ...]:
    return struct.unpack(f"={len(token) // 8}Q", token)
