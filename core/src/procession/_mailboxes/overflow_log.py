"""Messages that found no room in the lane, in the order in which they were put."""

from __future__ import annotations

import mmap
import os
import struct
import sys

from procession._mailboxes.sparse_file import give_back, write_all

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession._mailboxes.mailbox_state import Ledger

_HEADER = struct.Struct("=II")
# What is read at once, in the hope that it is a whole record.
_GUESS = 1024
#: Memory is given back in chunks of this size; an empty log keeps one.
CHUNK = 64 * mmap.PAGESIZE


class OverflowLog:
    """Records of any length one after the other in a part of a file.

    Stateless: where the records begin and end stands in the `Ledger`, and the methods
    change the ledger they are given. The caller holds the mailbox's lock and commits
    the ledger; until then nothing has happened, whatever was written to the file, so
    that a process killed in between leaves the log as it was.
    """

    __slots__ = ("_base", "_fd")

    def __init__(self, fd: int, base: int) -> None:
        """Use the file from offset *base* on; *fd* is borrowed."""
        self._fd = fd
        self._base = base

    def append(self, ledger: Ledger, packet: bytes, kind: int) -> None:
        """Add a record. Raises `OSError` when memory has run out; *ledger* is then as before."""
        if sys.platform == "win32":
            raise OSError("this platform cannot write at an offset")
        if not ledger.logged:
            self._rewind(ledger)
        record = _HEADER.pack(len(packet), kind) + packet
        written = os.pwrite(self._fd, record, ledger.tail)
        if written < len(record):  # memory is short: the rest raises, or is written, too
            write_all(self._fd, (memoryview(record)[written:],), ledger.tail + written)
        ledger.tail += len(record)
        ledger.logged += 1

    def first(self, ledger: Ledger) -> tuple[bytes, int]:
        """Return the first record; there is one."""
        if sys.platform == "win32":
            raise OSError("this platform cannot read at an offset")
        data = os.pread(self._fd, _GUESS, ledger.head)
        length, kind = _HEADER.unpack_from(data)
        end = _HEADER.size + length
        while len(data) < end:
            data += os.pread(self._fd, end - len(data), ledger.head + len(data))
        return data[_HEADER.size : end], kind

    def drop(self, ledger: Ledger, packet: bytes) -> None:
        """Remove the first record, *packet*."""
        ledger.head += _HEADER.size + len(packet)
        ledger.logged -= 1

    def clear(self, ledger: Ledger) -> None:
        """Remove all records."""
        ledger.head = ledger.tail
        ledger.logged = 0

    def has_garbage(self, ledger: Ledger) -> bool:
        """Return whether `reclaim` would give memory back."""
        return ledger.head - ledger.freed >= CHUNK

    def reclaim(self, ledger: Ledger) -> None:
        """Give back the memory of removed records; commit the removal before this."""
        end = self._base + (ledger.head - self._base) // CHUNK * CHUNK
        give_back(self._fd, ledger.freed, end)
        ledger.freed = end

    def _rewind(self, ledger: Ledger) -> None:
        """Start again at the beginning of the file, as the log is empty.

        Keeps offsets small and the first chunk in use. Every page above it that was
        ever written lies between `freed` and `tail`, but for what a killed process wrote
        and did not commit, which the next record overwrites.
        """
        if ledger.tail == self._base:
            return
        first = max(self._base + CHUNK, ledger.freed)
        last = -(-ledger.tail // mmap.PAGESIZE) * mmap.PAGESIZE
        if first < last:
            give_back(self._fd, first, last)
        ledger.head = ledger.tail = ledger.freed = self._base
