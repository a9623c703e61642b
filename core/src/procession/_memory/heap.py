"""Small and large pieces of shared memory, for values and arrays.

*Blocks* are pieces of *arenas*. An arena is a `SharedMap`; a small block shares it with
others, a large one has it for itself. Which pieces are in use is known to one process
alone, the one that made the arena: nobody else allocates from it, so there is nothing
that a killed process could leave locked or half-changed.

**When memory is used again.** A block that no other process can have seen is free as soon
as nothing here refers to it, and its memory is cleared and given out again. A block that
was handed to another process (as an argument, in a message, by a fork) is never given out
again, since nobody could say when the other one has stopped looking: its memory goes with
its arena. An arena is let go of when no block of it is in use here, and the kernel frees it
when no other process has it either. What is wasted is therefore never more than the arenas
that have a block in use.

**Blocks may be freed at any moment**, by a garbage collection in the middle of an
allocation, say, or in a signal handler. So freeing never waits: it puts the block into a
list, and whoever has the lock works that list off. A block in a reference cycle is free only
when the collection is over, since other finalizers of the cycle may use it until then.
"""

from __future__ import annotations

import gc
import os
import sys
from _thread import RLock
from bisect import bisect_left, insort

from procession._ground.after_fork import in_forked_children
from procession._memory.shared_map import SharedMap

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

#: Blocks begin at multiples of it: enough for every type of C, and for SSE.
ALIGNMENT = 16
#: The size of the first arena; the next ones grow with what there is, up to the largest.
SMALLEST_ARENA = 64 << 10
LARGEST_ARENA = 16 << 20
#: From this size on, a block has an arena for itself, which goes when the block does.
LARGE_BLOCK = 128 << 10
_PAGE = 4096


class Block:
    """A piece of shared memory, all zero when it was made.

    The memory is this block's until the last reference to it is gone: whatever is built
    on `view` must hold the block. Pickling hands it to another process, as an argument on
    every start method or in a message on the same host; it is the same memory there.

    Threads: any. Fork: the child has it, too.
    """

    __slots__ = ("_record", "map", "size", "start")

    def __init__(self, map: SharedMap, start: int, size: int, record: _Record | None) -> None:
        self.map = map
        self.start = start
        self.size = size
        # None in every process but the one that made it.
        self._record = record

    def __del__(
        self,
        references: Callable[[object], int] = sys.getrefcount,
        is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        """Free the memory. Never waits and never fails."""
        record = self._record
        if record is None or is_finalizing():  # the modules that we need may be gone
            return
        if references(self) <= _LAST_REFERENCES:
            heap.free(record)
        else:
            heap.free_later(self)

    def view(self) -> memoryview:
        """Return the memory, writable. Hold the block as long as the view is used."""
        return memoryview(self.map.memory)[self.start : self.start + self.size]

    #: What the standard package calls it, when it builds an object of ours in a child of its own.
    create_memoryview = view

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process: the arena, which travels once a pickle, and the place."""
        if self._record is not None:
            self._record.shared = True
        return Block, (self.map, self.start, self.size, None)

    def __copy__(self) -> NoReturn:
        raise TypeError("shared memory has no copies; copy what is in it")

    def __deepcopy__(self, memo: object, /) -> NoReturn:
        self.__copy__()


class _Record:
    """What the heap knows about one block in use."""

    __slots__ = ("arena", "epoch", "shared", "start", "stop")

    def __init__(self, arena: _Arena, start: int, stop: int, epoch: int) -> None:
        self.arena = arena
        self.start = start
        self.stop = stop
        #: When it was made, counted in forks.
        self.epoch = epoch
        #: Whether it was handed to another process.
        self.shared = False


class _Arena:
    """An arena, seen by the process that made it."""

    __slots__ = ("ends", "map", "starts", "used")

    def __init__(self, size: int) -> None:
        self.map = SharedMap(size, "procession-arena")
        #: How many blocks of it are in use.
        self.used = 0
        #: The free pieces, by where they begin and by where they end.
        self.starts: dict[int, int] = {}
        self.ends: dict[int, int] = {}


class Heap:
    """The arenas of this process. Threads: any. Fork: the child starts with none."""

    def __init__(self) -> None:
        self._epoch = 0
        self._watches_forks = False
        self._forget()

    def _forget(self) -> None:
        # Re-entrant: an allocation may be interrupted by one in a signal handler or a
        # finalizer. `_busy` tells the inner one, which keeps away from the tables.
        self._lock = RLock()
        self._busy = False
        self._arenas: set[_Arena] = set()
        # The free pieces as (length, start, number of the arena, arena), shortest first.
        self._free: list[tuple[int, int, int, _Arena]] = []
        self._waiting: list[_Record] = []
        # Blocks that the garbage collector has finalized, but not yet thrown away.
        self._finalized: list[Block] = []

    def allocate(self, size: int) -> Block:
        """Return a block of *size* bytes, zero or more, all of them zero.

        Raises `procession.errors.ResourceError` (an `OSError`) when memory or descriptors
        have run out.
        """
        length = max(1, -(-size // ALIGNMENT)) * ALIGNMENT
        try:
            with self._lock:
                return self._allocate(size, length)
        finally:
            self._settle()

    def _allocate(self, size: int, length: int) -> Block:
        self._watch_forks()
        if self._busy or length >= LARGE_BLOCK:
            arena, start = self._new_arena(length), 0
        else:
            self._busy = True
            try:
                self._work_off()
                arena, start = self._place(length)
            finally:
                self._busy = False
        arena.used += 1
        return Block(arena.map, start, size, _Record(arena, start, start + length, self._epoch))

    def free(self, record: _Record) -> None:
        """Take back what a block had. Never waits, and may be called at any moment."""
        self._waiting.append(record)
        self._settle()

    def free_later(self, block: Block) -> None:
        """Free *block*, which the garbage collector has finalized, when it is really gone.

        It is part of a reference cycle, and finalizers of others in it may still write to
        the memory, or keep it for good.
        """
        if self._settle_after_collection not in gc.callbacks:
            gc.callbacks.append(self._settle_after_collection)
        self._finalized.append(block)

    def _settle_after_collection(self, phase: str, info: object) -> None:
        if phase == "stop" and self._finalized:
            finalized, self._finalized = self._finalized, []
            while finalized:
                block = finalized.pop()
                record = block._record
                if sys.getrefcount(block) > _OWN_REFERENCES:
                    self._finalized.append(block)  # somebody has it still, or again
                elif record is not None:
                    block._record = None
                    self.free(record)

    @property
    def blocks(self) -> int:
        """How many blocks of this process are in use."""
        self._settle()
        return sum(arena.used for arena in list(self._arenas))

    @property
    def arenas(self) -> int:
        """How many arenas this process has made and not given back."""
        self._settle()
        return len(self._arenas)

    @property
    def reserved(self) -> int:
        """How many bytes these arenas have."""
        return sum(arena.map.size for arena in list(self._arenas))

    def _settle(self) -> None:
        """Work off the waiting list, unless somebody does, who will see what is in it."""
        while self._waiting and not self._busy and self._lock.acquire(False):
            # It cannot be missed: whoever has the lock looks again after releasing it.
            try:
                if self._busy:  # it is this thread's own, below us
                    return
                self._busy = True
                try:
                    self._work_off()
                finally:
                    self._busy = False
            finally:
                self._lock.release()

    def _work_off(self) -> None:
        while self._waiting:
            record = self._waiting.pop()
            arena = record.arena
            if arena not in self._arenas:
                continue  # the parent's, inherited by a fork
            arena.used -= 1
            if not arena.used:
                self._drop(arena)
            elif record.epoch == self._epoch and not record.shared:
                start, stop = record.start, record.stop
                arena.map.memory[start:stop] = bytes(stop - start)
                self._put(arena, start, stop)

    def _place(self, length: int) -> tuple[_Arena, int]:
        """Take *length* bytes out of the shortest free piece that has them."""
        index = bisect_left(self._free, (length,))
        if index == len(self._free):
            size = min(max(self.reserved, SMALLEST_ARENA), LARGEST_ARENA)
            arena = self._new_arena(size)
            start, stop = 0, size
        else:
            # Out of the list first: who is interrupted here loses memory until the arena
            # goes, but does not give it out twice.
            _, start, _, arena = self._free.pop(index)
            stop = arena.starts.pop(start)
            del arena.ends[stop]
        if start + length < stop:
            self._put(arena, start + length, stop)
        return arena, start

    def _put(self, arena: _Arena, start: int, stop: int) -> None:
        """Make a free piece, joined with the free pieces beside it."""
        if stop in arena.starts:
            stop = self._take(arena, stop)[1]
        if start in arena.ends:
            start = self._take(arena, arena.ends[start])[0]
        arena.starts[start] = stop
        arena.ends[stop] = start
        insort(self._free, (stop - start, start, id(arena), arena))

    def _take(self, arena: _Arena, start: int) -> tuple[int, int]:
        """Remove the free piece that begins at *start* and return its bounds."""
        stop = arena.starts.pop(start)
        del arena.ends[stop]
        index = bisect_left(self._free, (stop - start, start, id(arena)))
        del self._free[index]
        return start, stop

    def _new_arena(self, size: int) -> _Arena:
        arena = _Arena(-(-size // _PAGE) * _PAGE)
        self._arenas.add(arena)
        return arena

    def _drop(self, arena: _Arena) -> None:
        for start in list(arena.starts):
            self._take(arena, start)
        self._arenas.discard(arena)

    def _watch_forks(self) -> None:
        if not self._watches_forks:
            self._watches_forks = True
            if sys.platform != "win32":
                os.register_at_fork(before=self._count_fork)
            in_forked_children(self._forget)

    def _count_fork(self) -> None:
        # Every block that there is now may be looked at by the child.
        self._epoch += 1


class _Probe:
    """Counts the references that a finalizer sees to the last object of its kind."""

    __slots__ = ()

    def __del__(self, references: Callable[[object], int] = sys.getrefcount) -> None:
        _counts.append(references(self))


def _count_own_references() -> int:
    """Count the references to a block that `_settle_after_collection` has to one, by trying."""
    blocks = [object()]
    block = blocks.pop()
    return sys.getrefcount(block)


_counts: list[int] = []
_Probe()
_LAST_REFERENCES = _counts.pop()
_OWN_REFERENCES = _count_own_references()

#: The one of this process.
heap = Heap()
