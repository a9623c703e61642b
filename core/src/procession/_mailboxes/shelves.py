"""Large messages that are looked at where they lie: memory of a mailbox that is lent.

Or of a connection, where another book is kept of what waits: see `_channels.loan_desk`.

A *shelf* is a piece of the mailbox's file that holds the buffers of one message. The producer
copies them in, or has filled them in place, and who gets the message with a *lease* builds the
object on that memory. When nobody looks at it any more, it is used for another message: memory
that was touched before costs a fraction of what new memory costs.

**Who has a shelf** is known to the kernel and to the mailbox's ledger, and to nobody else:

* A message that waits has its bit in `Ledger.shelved`, committed together with its token in the
  overflow log: so there are both or neither, whoever is killed.
* Who looks at the memory has a *hold*: a shared lock on the shelf, of an open file that is kept
  by nothing but a mapping of one page, and that page by what exports the memory. So the lock
  goes, without any code being run, with the last view of the memory; with the process, however
  it ends; and, where it was forked meanwhile, with the last of the processes that could look.

A getter has its hold before it commits that the message was taken. So at every instruction a
shelf has a message that waits, or somebody who looks, or is free; and what nobody has is free
without anybody's having to say so.

**Nobody waits for a lease to end.** A producer that finds no shelf puts the message elsewhere,
as if there were no leases.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys

from procession._mailboxes.mailbox_state import TABLE, TABLE_SIZE
from procession._mailboxes.sparse_file import copy as copy_in_pieces
from procession._mailboxes.sparse_file import give_back, read_all, write_all
from procession._mailboxes.spool import END
from procession._messages.blocks import blocks
from procession._messages.pickling import SHORTEST_BUFFER

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeAlias

    from procession._contracts.channel import Buffer, Message
    from procession._locks.holder import Holder

# Copies the second into the first, which are of one length.
Copy: TypeAlias = "Callable[[Buffer, Buffer], object]"

#: How many there are; as many as the ledger has bits for.
MOST = 64
#: Where the first one lies in the file, and how far apart they are. The file is sparse.
BASE = END
_APART = 1 << 34
#: The memory that all shelves of a mailbox keep together, in bytes: as a rule, and what can be
#: chosen. What is shorter than the least is copied anyway.
BUDGET, LEAST_BUDGET, MOST_BUDGET = 1 << 30, SHORTEST_BUFFER, _APART

# The table: for each shelf, how many bytes of memory it has, and who was the last to be lent it.
_WORDS = 16
_TABLE_BYTES = MOST * _WORDS * 8
assert _TABLE_BYTES <= TABLE_SIZE

# What says of a message where it lies: shelf, number of buffers, their lengths; then its body.
_HEAD = struct.Struct("=II")
#: A longer body is not worth a shelf: the object is not made of arrays alone.
LONGEST_BODY = 32 << 10
# Every buffer begins at a multiple of it, as the widest instructions want it.
_ALIGNMENT = 64

# A shelf has a multiple of this memory, or of a sixteenth of it: the power of two.
_SMALLEST_STEP = 12

# The locks of the shelves are those of these bytes of the file, and following ones. (The first
# ones are the mailbox's.)
_FIRST_LOCK = 1 << 10
# Linux's F_RDLCK, F_WRLCK and F_UNLCK.
_SHARED, _EXCLUSIVE, _FREE = 0, 1, 2
_RECORD = struct.Struct("hhqqi0q")


class AllLent(Exception):
    """Leases keep so much that there is no memory for a message that was *wanted* to have it.

    *holders* is who holds them, *size* how much they keep, *most* how much there may be, in bytes.
    """

    def __init__(self, holders: list[Holder], size: int, wanted: int, most: int) -> None:
        super().__init__(holders, size, wanted, most)
        self.holders = holders
        self.size = size
        self.wanted = wanted
        self.most = most


class Shelves:
    """The shelves of one mailbox, for one of its processes.

    Threads: any. Fork: the child goes on using it. The file's descriptor is borrowed.
    """

    __slots__ = ("_budget", "_copy", "_fd", "_maps", "_table")

    def __init__(self, fd: int, budget: memoryview, copy: Copy | None = None) -> None:
        """Use the file *fd*, which is borrowed.

        *budget* is the word, shared by all processes, that says how many bytes all shelves may
        keep together, 0 for the usual. *copy* copies what is mapped, where there is something
        better than `_mailboxes.sparse_file.copy`.
        """
        self._fd = fd
        self._budget = budget
        self._copy = copy or copy_in_pieces
        # Mapping a shelf costs more than copying it: that is done once in each process.
        self._maps: dict[int, mmap.mmap] = {}
        self._table: memoryview | None = None

    @property
    def budget(self) -> int:
        """The most memory that all shelves keep together, in bytes."""
        return min(self._budget[0] or BUDGET, MOST_BUDGET)

    # -- what those do that put, with the lock of the large messages' writers held

    def find(self, shelved: int, size: int) -> int | None:
        """Return a free shelf with memory for *size* bytes, or None if there is none.

        *shelved* are those whose messages wait. Raises `AllLent` if it is leases that keep the
        memory, and more of it than the messages that wait.
        """
        budget = self.budget
        if size > budget:
            return None
        used = self.find_used(shelved, size)
        if used is not None:
            return used
        rooms, idle = self._look_around(shelved)
        # Some more than is asked for: the next one may be a little longer.
        step = 1 << max(_SMALLEST_STEP, size.bit_length() - 4)
        size = min(-(-size // step) * step, budget)
        others = sum(rooms)
        for shelf in idle:
            if self._is_held(shelf):
                continue
            others -= rooms[shelf]
            if others + size <= budget:
                return shelf if self._make_room(shelf, size) else None
            self._empty(shelf, rooms[shelf])
        lent = [shelf for shelf in idle if rooms[shelf] and self._is_held(shelf)]
        kept = sum(rooms[shelf] for shelf in lent)
        if kept > sum(rooms) - sum(rooms[shelf] for shelf in idle):  # than what waits
            raise AllLent(list(self._holders(lent)), kept, size, budget)
        return None

    def find_used(self, shelved: int, size: int) -> int | None:
        """Return a free shelf that has memory for *size* bytes already, or None."""
        rooms, idle = self._look_around(shelved)
        for shelf in idle:
            if rooms[shelf] >= size and not self._is_held(shelf):
                return shelf
        return None

    def _look_around(self, shelved: int) -> tuple[list[int], list[int]]:
        """Return what memory each shelf has, and which have no message, with the least first."""
        words = self._words()
        rooms = [words[shelf * _WORDS] for shelf in range(MOST)]
        idle = [shelf for shelf in range(MOST) if not shelved >> shelf & 1]
        return rooms, sorted(idle, key=rooms.__getitem__)

    def _make_room(self, shelf: int, size: int) -> bool:
        """Reserve memory for a free shelf; return whether there is so much."""
        from procession._memory.shared_map import reserve

        try:
            reserve(self._fd, size, _place(shelf))
        except OSError:
            self._empty(shelf, size)
            return False
        self._words()[shelf * _WORDS] = size
        return True

    def _empty(self, shelf: int, size: int) -> None:
        """Give the memory of a free shelf back, which has *size* bytes at most."""
        self._words()[shelf * _WORDS] = 0
        self._maps.pop(shelf, None)
        give_back(self._fd, _place(shelf), _place(shelf) + size)

    def write(self, shelf: int, body: Buffer, buffers: Sequence[Buffer]) -> bytes:
        """Copy *buffers* to a free shelf and return the message's token."""
        lengths = [len(buffer) for buffer in buffers]
        view = self._mapped(shelf)
        for start, buffer in zip(_starts(lengths), buffers, strict=True):
            if view is None:
                write_all(self._fd, (buffer,), _place(shelf) + start)
            else:
                self._copy(view[start : start + len(buffer)], buffer)
        return token_of(shelf, body, lengths)

    def lend(self, shelf: int, size: int) -> memoryview:
        """Return the first *size* bytes of *shelf*, with a hold that lasts as long as any view.

        Raises `OSError` when descriptors or address space have run out.
        """
        try:
            import ctypes
        except ImportError as error:
            raise OSError("this interpreter has no ctypes") from error
        view = self._view(shelf)
        _check(size, view)
        # One type for all sizes, as to make one takes longer than all the rest.
        exporter: Any = (ctypes.c_char * len(view)).from_buffer(view)
        exporter.hold = self._hold(shelf)
        exporter.shelf = shelf
        self._note_holder(shelf)
        return memoryview(exporter).cast("B")[:size]

    # -- what those do that get, with the lock of the large messages' readers held

    def read(self, token: bytes, *, lease: bool) -> Message:
        """Return the message of *token*: its body, and its buffers where they lie or copied."""
        shelf, lengths, body = _parse(token)
        starts = list(_starts(lengths))
        end = starts[-1] + lengths[-1]
        if lease:
            try:
                lent = self.lend(shelf, end)
            except OSError:
                pass  # what a lease needs has run out: a copy does as well
            else:
                return body, [
                    lent[start : start + length]
                    for start, length in zip(starts, lengths, strict=True)
                ]
        view = self._mapped(shelf)
        if view is not None:
            _check(end, view)
        buffers = [blocks.take(length) for length in lengths]
        for start, buffer in zip(starts, buffers, strict=True):
            if view is None:
                read_all(self._fd, (buffer,), _place(shelf) + start)
            else:
                self._copy(buffer, view[start : start + len(buffer)])
        return body, buffers

    # -- holds

    def _hold(self, shelf: int) -> mmap.mmap:
        """Return what holds *shelf* as long as it exists."""
        if sys.platform != "linux":
            raise OSError("this platform has no locks of descriptors")
        import fcntl

        fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _record(_SHARED, shelf))
            return _map(fd, mmap.PAGESIZE)
        finally:
            os.close(fd)

    def _is_held(self, shelf: int) -> bool:
        if sys.platform != "linux":
            raise OSError("this platform has no locks of descriptors")
        import fcntl

        answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _record(_EXCLUSIVE, shelf))
        return bool(_RECORD.unpack(answer)[0] != _FREE)

    def _note_holder(self, shelf: int) -> None:
        """Note that it is this process that was lent *shelf*, for those who wonder."""
        from procession._locks.holder import write_record

        write_record(self._words(), shelf * _WORDS + 1)

    def _holders(self, shelves: list[int]) -> Iterator[Holder]:
        """Yield who was the last to be lent each of *shelves*, nobody twice."""
        from procession._locks.holder import RECORD_WORDS, Holder

        seen: set[tuple[int, int]] = set()
        for shelf in shelves:
            start = shelf * _WORDS + 1
            holder = Holder.from_record(self._words()[start : start + RECORD_WORDS])
            if holder.pid and (holder.pid, holder.start) not in seen:
                seen.add((holder.pid, holder.start))
                yield holder

    # -- the memory

    def _words(self) -> memoryview:
        table = self._table
        if table is None:
            pages = _map(self._fd, TABLE + TABLE_SIZE)
            table = memoryview(pages)[TABLE : TABLE + _TABLE_BYTES].cast("Q")
            self._table = table
        return table

    def _view(self, shelf: int) -> memoryview:
        """Return the memory of *shelf*, all that is reserved."""
        room = self._words()[shelf * _WORDS]
        if not 0 < room <= _APART:
            raise OSError(f"bad message: shelf {shelf} has {room} bytes")
        found = self._maps.get(shelf)
        if found is None or len(found) < room:
            found = self._maps[shelf] = _map(self._fd, room, _place(shelf))
        return memoryview(found)[:room]

    def _mapped(self, shelf: int) -> memoryview | None:
        """Return the same, or None if it cannot be mapped: no descriptor is left, say."""
        try:
            return self._view(shelf)
        except OSError as error:
            if error.errno is None:  # ours
                raise
            return None

    def close(self) -> None:
        """Let go of the mappings; those that somebody looks at go with the last view."""
        self._budget.release()
        self._maps = {}
        self._table = None


def _map(fd: int, size: int, offset: int = 0) -> mmap.mmap:
    if sys.version_info >= (3, 13) and sys.platform != "win32":
        # Without a second descriptor, which the mapping would keep for itself.
        return mmap.mmap(fd, size, offset=offset, trackfd=False)
    return mmap.mmap(fd, size, offset=offset)


def token_of(shelf: int, body: Buffer, lengths: Sequence[int]) -> bytes:
    """Return the token of a message with *body* whose buffers of these *lengths* lie in *shelf*."""
    head = _HEAD.pack(shelf, len(lengths)) + struct.pack(f"={len(lengths)}Q", *lengths)
    return head + bytes(body)


def shelf_of(token: bytes) -> int:
    """Return the number of the shelf that *token* names."""
    return _parse(token)[0]


def space_for(lengths: Sequence[int]) -> int:
    """Return how many bytes buffers of these *lengths* need."""
    return sum(-(-length // _ALIGNMENT) * _ALIGNMENT for length in lengths)


def _check(size: int, view: memoryview) -> None:
    if size > len(view):
        raise OSError("bad message: it is longer than the memory that it lies in")


def _parse(token: bytes) -> tuple[int, tuple[int, ...], bytes]:
    if len(token) < _HEAD.size:
        raise OSError(f"bad message: what says where it lies has {len(token)} bytes")
    shelf, count = _HEAD.unpack_from(token)
    if shelf >= MOST:
        raise OSError(f"bad message: there is no shelf {shelf}")
    end = _HEAD.size + count * 8
    if not count or end > len(token):
        raise OSError(f"bad message: it has no lengths of {count} buffers")
    return shelf, struct.unpack_from(f"={count}Q", token, _HEAD.size), token[end:]


def _starts(lengths: Sequence[int]) -> Iterator[int]:
    start = 0
    for length in lengths:
        yield start
        start += -(-length // _ALIGNMENT) * _ALIGNMENT


def _place(shelf: int) -> int:
    return BASE + shelf * _APART


def _record(kind: int, shelf: int) -> bytes:
    return _RECORD.pack(kind, os.SEEK_SET, _FIRST_LOCK + shelf, 1, 0)
