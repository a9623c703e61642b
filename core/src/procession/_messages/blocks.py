"""Memory that large buffers are received into.

Never-touched memory is the most expensive part of receiving an array: the kernel has to
find and to clear every page of it. So a large buffer is received into a block, an
anonymous mapping in huge pages where the kernel has them, and when nobody looks at the
block any more (the array in it is gone), the next buffer is received into it.

A block has one buffer, so that an array which is kept keeps nothing but itself; small
buffers are ordinary bytearrays. Huge pages are asked for the part of a block that fills
them, so that a block costs no more memory than what is in it.

Long blocks are kept as well, but the system is told that it may have their memory back as soon
as nobody looks at them: it takes it when memory is short, and else they are used again.
"""

from __future__ import annotations

import mmap
import sys
from _thread import RLock
from _weakref import ref

from procession._contracts.channel import partial
from procession._ground.after_fork import in_forked_children
from procession._ground.deque import deque

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Below this, a bytearray is as quick as a block and costs no mapping (measured).
SMALLEST_BLOCK = 256 << 10
#: The most memory kept for the next messages, whether it is looked at or not.
MOST_KEPT = 128 << 20
#: The most blocks kept.
MOST_BLOCKS = 32
#: So many blocks are kept that are longer than that, up to this length.
MOST_LONG, LONGEST_KEPT = 2, 512 << 20

_HUGE_PAGE = 2 << 20


class Blocks:
    """The blocks of this process.

    Threads: any. Fork: the child starts with none; what it inherits in arrays is its
    own copy, like all other memory.
    """

    def __init__(self, most_kept: int = MOST_KEPT) -> None:
        self._most_kept = most_kept
        self._watches_forks = False
        self._forget()

    def _forget(self) -> None:
        self._lock = RLock()  # re-entrant: a signal handler may receive, too
        # The oldest first. Blocks in use are here too: that is how we see them come back.
        self._blocks: list[mmap.mmap] = []
        self._kept = 0
        # The long ones that are idle, without the lock: they come back in the middle of anything.
        # And what tells that one in use does, by its number, as it has no hash.
        self._long: deque[mmap.mmap] = deque(maxlen=MOST_LONG)
        self._watches: dict[int, ref[Any]] = {}

    def take(self, length: int) -> memoryview:
        """Return *length* bytes of writable memory of any content.

        They are the caller's and of everybody it hands views of them to, until the
        last such view is gone. Raises `MemoryError` or `OSError` when there is none.
        """
        if length < SMALLEST_BLOCK:
            return memoryview(bytearray(length))
        if length > self._most_kept:
            return self._take_long(length)
        with self._lock:
            for index, block in enumerate(self._blocks):
                # A block of up to twice the length will do: what it has too much was
                # touched by an earlier, longer message or was never there.
                if length <= len(block) <= 2 * length + _HUGE_PAGE and _is_idle(block):
                    self._blocks.append(self._blocks.pop(index))
                    return memoryview(block)[:length]
            self._make_room(length)
        block = _new_block(length)
        view = memoryview(block)[:length]
        if len(block) <= self._most_kept:
            with self._lock:
                self._watch_forks()
                self._blocks.append(block)
                self._kept += len(block)
        return view

    def _watch_forks(self) -> None:
        if not self._watches_forks:
            in_forked_children(self.forget)
            self._watches_forks = True

    def _take_long(self, length: int) -> memoryview:
        """Do the same for a length of which too few could be kept if their memory stayed ours."""
        block = self._idle_long(length) or _new_block(length)
        if len(block) > LONGEST_KEPT:
            return memoryview(block)[:length]
        try:
            import ctypes
        except ImportError:
            return memoryview(block)[:length]
        # All views of the block, and arrays on it, keep this alive, whatever they are made of.
        exporter: Any = (ctypes.c_char * len(block)).from_buffer(block)
        with self._lock:
            self._watch_forks()
        watch = ref(exporter, partial(self._come_back, block))
        self._watches[id(watch)] = watch
        return memoryview(exporter).cast("B")[:length]

    def _idle_long(self, length: int) -> mmap.mmap | None:
        """Take out a long block that will do for *length*, if there is one."""
        others = []
        try:
            while True:
                block = self._long.pop()
                if length <= len(block) <= 2 * length:
                    return block
                others.append(block)
        except IndexError:
            return None
        finally:
            self._long.extendleft(others)

    def _come_back(
        self,
        block: mmap.mmap,
        watch: ref[Any],
        is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        """Keep a long block that nobody looks at any more, but let the system have its memory.

        Called in any thread, at any time.
        """
        if is_finalizing():
            return  # everything goes
        self._watches.pop(id(watch), None)
        if _may_be_taken(block):
            self._long.append(block)

    def _make_room(self, length: int) -> None:
        """Let go of old blocks until one of *length* may be kept; the lock is held."""
        while self._blocks and (
            self._kept + length + _HUGE_PAGE > self._most_kept or len(self._blocks) >= MOST_BLOCKS
        ):
            # An idle one is unmapped here, one in use when its last user is gone.
            index = next((i for i, block in enumerate(self._blocks) if _is_idle(block)), 0)
            self._kept -= len(self._blocks.pop(index))

    @property
    def kept(self) -> int:
        """How many bytes of address space are kept."""
        return self._kept

    def forget(self) -> None:
        """Keep nothing of what was there: in a forked child it is the parent's."""
        self._forget()


def _new_block(length: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, length)
    # A multiple of the huge page, so that the kernel aligns the mapping to one. What is
    # never touched at the end is never there. Private: a forked child sees its own copy.
    size = -(-length // _HUGE_PAGE) * _HUGE_PAGE
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    filled = length // _HUGE_PAGE * _HUGE_PAGE
    if sys.platform == "linux" and filled:
        try:
            block.madvise(mmap.MADV_HUGEPAGE, 0, filled)
        except OSError:  # a kernel without huge pages: small ones do as well, if slower
            pass
    return block


def _may_be_taken(block: mmap.mmap) -> bool:
    """Let the system take the memory of *block* when it is short; return whether it would."""
    if sys.platform != "linux":
        return False
    try:
        block.madvise(mmap.MADV_FREE)
    except OSError:  # it is locked in memory, say
        return False
    return True


def _is_idle(block: mmap.mmap) -> bool:
    return sys.getrefcount(block) <= _IDLE_REFERENCES


def _references_when_idle() -> int:
    """Count the references to a listed block that the loops above have, by trying."""
    blocks = [mmap.mmap(-1, mmap.PAGESIZE)]
    counts = [_count(block) for _, block in enumerate(blocks)]
    blocks.pop().close()
    return counts[0]


def _count(block: mmap.mmap) -> int:
    return sys.getrefcount(block)


_IDLE_REFERENCES = _references_when_idle()

#: The ones that every connection and queue of this process uses.
blocks = Blocks()
