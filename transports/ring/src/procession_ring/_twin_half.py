"""One direction of a connection, as the pure-Python twin sees it: memory and positions."""

from __future__ import annotations

import os
import sys
from _thread import RLock

from ._layout import ALIGNMENT, BEGINNING, FOREIGN_LOCKS, HEADER_SIZE, OFFSETS, RECORD, STREAM_MAGIC

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable

    from procession.plugin import LockFile

_SIZE, _LOCK_SIZE, _FULL, TAIL, HEAD, WANTED = (
    OFFSETS[name] // 8 for name in ("size", "lock_size", "full", "tail", "head", "room_wanted")
)
ARMED, WATCHED, STOPPED, LEFT = (
    OFFSETS[name] // 4 for name in ("armed", "watched", "stopped", "left")
)
_ONE = (1).to_bytes(8, sys.byteorder)
MARK = RECORD.size
# As in `csrc`: what is copied at once.
PIECE = 64 << 10


class Half:
    """One direction, as an end uses it."""

    __slots__ = (
        "busy",
        "data",
        "full",
        "lock",
        "longs",
        "look",
        "mask",
        "offset",
        "other_side",
        "relying",
        "side",
        "since",
        "size",
        "streamed",
        "stuck",
        "words",
    )

    def __init__(self, memory: memoryview, offset: int, file: LockFile, side: int) -> None:
        """Use what begins at *offset*; *side* is 0 for its writer and 1 for its reader.

        Raises `OSError` if that is no ring, or not one of ours.
        """
        header = memory[offset : offset + HEADER_SIZE]
        magic, size = BEGINNING.unpack_from(header)
        fits = HEADER_SIZE <= size <= len(memory) - offset - HEADER_SIZE
        if magic != STREAM_MAGIC or size & (size - 1) or not fits:
            raise OSError("not the memory of a ring, or of another version of it")
        self.longs = header.cast("Q")
        self.words = header.cast("I")
        if self.longs[_LOCK_SIZE]:
            raise OSError(FOREIGN_LOCKS)
        # Those of the first ring in the memory, and of the second.
        first_lock = 2 if offset else 0
        self.side = file.lock(first_lock + side)
        self.other_side = file.lock(first_lock + 1 - side)
        # As it was when we last looked, and the most that it can become; whether there was no
        # memory for that.
        self.size = size
        self.mask = size - 1
        self.full = full = self.longs[_FULL]
        self.stuck = False
        # Whether a message that is longer than the ring was sent here.
        self.streamed = False
        if full & (full - 1) or not size <= full <= len(memory) - offset - HEADER_SIZE:
            raise OSError("not the memory of a ring, or of another version of it")
        #: Where the data begin in the memory.
        self.offset = offset + HEADER_SIZE
        self.data = memory[self.offset : self.offset + full]
        # Called once a second while somebody waits here, and since when he does, or when it
        # was last called; 0 at the beginning of a call.
        self.look: Callable[[], object] | None = None
        self.since = 0.0
        self.renew()

    def renew(self) -> None:
        """Start with a free lock: a forked child has nobody to release the old one."""
        self.lock = RLock()
        self.busy = False
        # Whether this thread, which has `lock`, has taken the side against other processes.
        self.relying = False

    def fence(self) -> None:
        """Have everything stored before this seen by others before anything is loaded."""
        with self.lock:
            pass

    def has_data(self) -> bool:
        """Return whether there is something to receive."""
        return self.longs[TAIL] != self.longs[HEAD]

    def renew_size(self) -> bool:
        """Look how large the ring is now; return False if it cannot be.

        It does not change as long as there is anything to read, nor without the writers' side.
        """
        size = self.longs[_SIZE]
        if size != self.size:
            if size < self.size or size > self.full or size & (size - 1):
                return False
            self.set_size(size)
        return True

    def shortest_part(self) -> int:
        """Return up to which length a message is there, and taken, whole or not at all."""
        quarter: int = self.size // 4
        return min(PIECE, quarter)

    def set_size(self, size: int) -> None:
        """Use so much of the memory."""
        self.size = size
        self.mask = size - 1

    def grow(self, fd: int) -> None:
        """Make the ring in the file *fd* as large as it can be; all that was sent was read.

        Without memory for that, it stays as it is.
        """
        if sys.platform in ("win32", "darwin"):
            raise OSError("this platform cannot reserve memory of a file")
        try:
            os.posix_fallocate(fd, self.offset + self.size, self.full - self.size)
        except OSError:
            self.stuck = True
            return
        self.set_size(self.full)
        self.longs[_SIZE] = self.full

    def copy_in(self, position: int, source: memoryview) -> None:
        """Copy *source* to *position*, around the end of the memory if need be."""
        start = position & self.mask
        first = min(len(source), self.size - start)
        self.data[start : start + first] = source[:first]
        if first < len(source):
            self.data[: len(source) - first] = source[first:]

    def copy_out(self, position: int, target: memoryview) -> None:
        """Fill *target* from *position* on."""
        start = position & self.mask
        first = min(len(target), self.size - start)
        target[:first] = self.data[start : start + first]
        if first < len(target):
            target[first:] = self.data[: len(target) - first]


def is_in_the_middle(position: int) -> bool:
    """Return whether a message goes on at *position*."""
    return position % ALIGNMENT != 0


def part_up_to(position: int) -> int:
    """Return what to commit when a message is done up to *position* and not at its end.

    It is never less than what was committed before.
    """
    return position if is_in_the_middle(position) else position - 1


def ring(bell: int) -> None:
    try:
        os.write(bell, _ONE)
    except BlockingIOError:
        pass  # it could not be louder


def silence(bell: int) -> None:
    try:
        os.read(bell, 8)
    except BlockingIOError:
        pass  # somebody else was faster
