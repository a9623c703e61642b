"""Large messages, each in memory of its own until somebody takes it."""

from __future__ import annotations

import mmap
import os
import struct
import sys

from procession._mailboxes.sparse_file import copy as copy_in_pieces
from procession._mailboxes.sparse_file import give_back, page_end, read_all, write_all
from procession._messages.blocks import blocks

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from procession._contracts.channel import Buffer, Message
    from procession._mailboxes.mailbox_state import Ledger

# Copies the second into the first, which are of one length.
Copy: TypeAlias = "Callable[[Buffer, Buffer], object]"

#: Where it ends in any case: what comes behind is others'.
END = 1 << 41

#: How much memory a window keeps: two arrays of 32 MiB, and some more.
WINDOW = 72 << 20
# How much of it is used first, if messages are not so long that this has no room for two: what a
# processor's last cache holds beside the arrays themselves (measured).
_NEAR, _MARGIN = 9 << 20, 2 << 20


class Spool:
    """Regions of a file, one for each large message, first in, first out.

    Like `OverflowLog` it is stateless and works on a `Ledger` that the caller commits.
    A message is written to a place that `find` has found, in time that may be long, while
    its writer holds the lock of the spool's writers; the commit that adds its *token* to
    the overflow log also makes the region part of the spool. A writer killed before
    leaves nothing but bytes that the next one overwrites. In the same way one reader at
    a time copies the first message out, and the commit that removes its token frees the
    region; a reader killed before leaves the message to the next.

    Memory that was never touched costs several times what copying does. So the spool begins
    with a *window*, a circle of messages whose memory is used again and not given back.
    What has no room there goes behind it, and its memory is given back when it is taken.
    And memory that is in no cache any more costs twice what other memory does. So the beginning
    of the window is a circle as well, as long as getters are quick enough.
    """

    __slots__ = ("_copy", "_fd", "_map", "_start", "base", "window")

    def __init__(self, fd: int, base: int, window: int = WINDOW, copy: Copy | None = None) -> None:
        """Use the file from offset *base* on; *fd* is borrowed. *window* may be 0 bytes.

        *copy* copies what is mapped, where there is something better than
        `_mailboxes.sparse_file.copy`.
        """
        self._fd = fd
        self.base = base
        self.window = window
        self._start = base + window
        self._copy = copy or copy_in_pieces
        self._map: mmap.mmap | None = None

    def begin(self, ledger: Ledger) -> None:
        """Make *ledger* that of an empty spool, in a file that nobody else has yet."""
        if self.window and sys.platform != "win32":
            os.ftruncate(self._fd, self._start)  # so that the window can be mapped
        ledger.window_head = ledger.window_tail = ledger.window_end = self.base
        ledger.spool_head = ledger.spool_tail = ledger.spool_freed = self._start

    def find_near(self, ledger: Ledger, size: int) -> int | None:
        """Return where to write *size* bytes so that they stay in a cache, or None."""
        size = page_end(size)
        return self._in_window(ledger, size, self.base + max(_NEAR, 2 * size + _MARGIN))

    def find(self, ledger: Ledger, size: int) -> int:
        """Return where to write *size* bytes; the writers' lock is held.

        It may give memory back that others have lost: commit *ledger*.
        """
        place = self._in_window(ledger, page_end(size), self._start)
        if place is not None:
            return place
        if ledger.spool_freed == ledger.spool_tail:
            # Nobody is writing: what lies here now was written by somebody who was killed.
            give_back(self._fd, self._start, END)
            ledger.spool_head = ledger.spool_tail = ledger.spool_freed = self._start
        return ledger.spool_tail

    def _in_window(self, ledger: Ledger, size: int, end: int) -> int | None:
        """Return where in the window there are *size* bytes, none of them at *end* or behind it."""
        head, tail = ledger.window_head, ledger.window_tail
        if head <= tail:
            if tail + size <= min(end, self._start):
                return tail
            # A circle that is full looks like an empty one, so it is never filled up.
            if self.base + size < head:
                return self.base
        elif tail + size < head and tail + size <= end:
            return tail
        return None

    def is_inside(self, place: int) -> bool:
        """Return whether a message at *place* lies in the window."""
        return place < self._start

    def write(
        self, place: int, body: Buffer, buffers: Sequence[Buffer], *, memory_end: int
    ) -> bytes:
        """Write a message to *place* and return its token; commits nothing.

        The writers' lock is held. Below *memory_end*, the ledger's `window_end`, there is
        memory already. Raises `OSError` when more has run out.
        """
        pieces = (body, *buffers)
        sizes = [len(piece) for piece in pieces]
        end = place + sum(sizes)
        # What is mapped is only touched where no memory can be missing.
        view = self.view(place, end) if end <= memory_end else None
        if view is not None:
            for piece, size in zip(pieces, sizes, strict=True):
                self._copy(view[:size], piece)
                view = view[size:]
        else:
            try:
                write_all(self._fd, pieces, place)
            except OSError:
                # What was written of it is in nobody's way, but memory is short.
                give_back(self._fd, max(place, memory_end), page_end(end))
                raise
        return struct.pack(f"={len(sizes) + 1}Q", place, *sizes)

    def view(self, place: int, end: int) -> memoryview | None:
        """Return the window's memory from *place* to *end*; None if it cannot be looked at."""
        if not self.is_inside(place):
            return None
        window = self._map
        if window is None:
            try:
                window = self._map = mmap.mmap(self._fd, self.window, offset=self.base)
            except OSError:  # no address space or descriptor is left, say
                return None
        return memoryview(window)[place - self.base : end - self.base]

    def add(self, ledger: Ledger, token: bytes) -> None:
        """Make the message of *token* part of the spool."""
        place, *sizes = _unpack(token)
        end = page_end(place + sum(sizes))
        if self.is_inside(place):
            ledger.window_tail = end
            ledger.window_end = max(ledger.window_end, end)
        else:
            ledger.spool_tail = end

    def read(self, token: bytes) -> Message:
        """Return a copy of the message of *token*. The readers' lock is held."""
        place, *sizes = _unpack(token)
        pieces = [blocks.take(size) for size in sizes]
        view = self.view(place, place + sum(sizes))
        if view is not None:
            for piece, size in zip(pieces, sizes, strict=True):
                self._copy(piece, view[:size])
                view = view[size:]
        else:
            read_all(self._fd, pieces, place)
        return pieces[0], pieces[1:]

    def remove(self, ledger: Ledger, token: bytes) -> None:
        """Remove the message of *token*, the first one."""
        place, *sizes = _unpack(token)
        end = page_end(place + sum(sizes))
        if not self.is_inside(place):
            ledger.spool_head = end
        elif end != ledger.window_tail:
            ledger.window_head = end
        else:  # the last one: the same memory is used again
            ledger.window_head = ledger.window_tail = self.base

    def clear(self, ledger: Ledger) -> None:
        """Remove every message."""
        ledger.window_head = ledger.window_tail = ledger.window_end = self.base
        ledger.spool_head = ledger.spool_tail

    def close(self) -> None:
        """Unmap the window; a copy that another thread is making ends before that."""
        window, self._map = self._map, None
        if window is not None:
            try:
                window.close()
            except BufferError:
                pass  # it goes with the last view of it

    def give_all_back(self) -> None:
        """Give back all memory after `clear` was committed, as nothing comes any more."""
        give_back(self._fd, self.base, END)

    def has_garbage(self, ledger: Ledger) -> bool:
        """Return whether `reclaim` would give memory back."""
        return ledger.spool_freed < ledger.spool_head

    def reclaim(self, ledger: Ledger) -> None:
        """Give back the memory of removed messages; commit the removal before this."""
        give_back(self._fd, ledger.spool_freed, ledger.spool_head)
        ledger.spool_freed = ledger.spool_head


def _unpack(token: bytes) -> tuple[int, ...]:
    return struct.unpack(f"={len(token) // 8}Q", token)
