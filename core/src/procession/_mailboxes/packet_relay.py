"""A large message from hand to hand: while its producer writes on, a getter reads already.

To write a large message whole and then to read it means to have all of it in memory twice, and
one processor that waits for the other. Where a getter is there to take it, the message *passes*:
through a circle that stays in the processors' caches, the beginning of the spool's window.

*Who has the message.* It is the producer's until the getter that has read all of it commits that
it was taken, and from then on that getter's: one commit, under the mailbox's lock, of an *offer*
that is open until then. `put` returns after it, so a producer that is killed before has put
nothing, and a getter that is killed before has taken nothing. When either finds that the other
does not get on for some milliseconds, it gives up: the producer by closing the offer, after
which it puts the message into the spool as if nothing had been, and the getter by forgetting what
it has read.

*What is read is what was written.* Positions only grow, from one offer to the next as well, so
that every offer is known by its first one, and what somebody who was stopped writes late means
nothing to a later offer. The producer of an offer has the lock of the spool's writers, and the
getter that of its readers; one getter at most reads an offer, the first that has written down its
beginning. Nothing else is written to the window before the offer is closed: so if it is still open
when the getter has read all of it, nothing of that was overwritten.

*Order.* An offer is made when the mailbox is empty, so that nothing that was put before is still to
be taken.
"""

from __future__ import annotations

import mmap
import os
import select
import sys
import time
from math import inf
from struct import pack_into, unpack_from

from procession._mailboxes.mailbox_state import OFFERED, READ, WRITTEN
from procession._mailboxes.packet_marks import OFFER, SLEEPING
from procession._mailboxes.packet_waits import left_until
from procession._mailboxes.patience import BYTES_OF_WORTH, REWARD
from procession._mailboxes.sparse_file import copy as copy_in_pieces
from procession._messages.blocks import blocks
from procession._messages.lookout import has_ordered_stores

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from procession._contracts.channel import Buffer, Message
    from procession._mailboxes.packet_books import PacketBooks
    from procession._mailboxes.packet_memory import PacketMemory
    from procession._mailboxes.packet_waits import PacketWaits

#: The bytes of the circle: that much stays in the caches (measured).
CIRCLE = 2 << 20
#: What is copied before the other side is told.
PIECE = 128 << 10
#: Neither waits longer for the other to get on, in seconds.
STALL = 0.01
#: A message that takes so many times as long as what is saved by passing was slow, as on a busy
#: machine, where every turn costs; after twice that it is given up. A getter that reads into
#: memory that was never touched is quicker (measured).
SLOW = 4
#: After an attempt in vain, or a slow one, there is none for so many times as long.
REST = 10
# What a wait begins with, in seconds, is looking.
_LOOK, _NAP = 0.0002, 0.00002

# In front of the circle: how many pieces a message has, and their sizes.
_HEAD = mmap.PAGESIZE
_MOST_PIECES = _HEAD // 8 - 1


class PacketRelay:
    """Passes large messages of one mailbox, for one of its processes.

    Threads: any. Fork: the child goes on using it.
    """

    __slots__ = (
        "_books",
        "_copy",
        "_lock",
        "_memory",
        "_rest_until",
        "_state",
        "_waits",
        "_words",
    )

    def __init__(self, memory: PacketMemory, books: PacketBooks, waits: PacketWaits) -> None:
        """All are borrowed."""
        self._memory = memory
        self._state = memory.state
        self._lock = memory.lock
        self._words = memory.words
        self._copy = memory.copy or copy_in_pieces
        self._books = books
        self._waits = waits
        # Until when there is no attempt.
        self._rest_until = 0.0

    # -- the producer's side; the lock of the spool's writers is held

    def put(self, pieces: Sequence[Buffer], size: int, deadline: float | None) -> bool:
        """Pass a message of *size* bytes to a getter; return whether one has taken it.

        If not, nothing was put. Raises `ShutDown`.
        """
        begun = time.monotonic()
        if not self._is_possible(len(pieces), begun):
            return False
        # What is saved by it, in seconds: waiting for much longer would be a loss.
        saved = size // BYTES_OF_WORTH * REWARD
        longest = 2 * SLOW * saved
        if deadline is not None:
            longest = min(longest, deadline - begun)
        taken = False
        try:
            taken = self._is_alone(size, begun + longest) and self._offer(
                pieces, size, longest, saved / 2
            )
        finally:
            now = time.monotonic()
            if not taken or now - begun > SLOW * saved:
                self._rest_until = now + REST * (now - begun)
        return taken

    def _is_possible(self, pieces: int, now: float) -> bool:
        """Return whether a message of so many *pieces* could pass."""
        return now >= self._rest_until and pieces <= _MOST_PIECES and has_ordered_stores()

    def _is_alone(self, size: int, until: float) -> bool:
        """Return whether nothing else is there, or getters are quick enough to take it at once."""
        while self._books.size():
            if time.monotonic() >= until or not self._waits.nap(size // BYTES_OF_WORTH):
                return False
        return True

    def _offer(
        self, pieces: Sequence[Buffer], size: int, longest: float, longest_alone: float
    ) -> bool:
        """Offer a message for *longest* seconds at most; return whether a getter has taken it.

        It is given up after *longest_alone* already if none has begun to read it.
        """
        if not self._has_memory():
            return False
        view = self._view()
        if view is None:
            return False
        start = self._lock.run(self._books.open_offer, size, _HEAD + CIRCLE)
        if start is None:
            return False
        taken = False
        try:
            self._announce(view, start, pieces)
            now = time.monotonic()
            self._write(view[_HEAD:], start, pieces, now + longest, now + longest_alone)
        finally:
            taken = self._lock.run(self._books.close_offer)
            if not taken:
                # Whoever was woken for the offer may be gone, and another one asleep.
                self._words[SLEEPING] = 1
        return taken

    def _has_memory(self) -> bool:
        """Have the system find the memory of the circle, if it has not yet."""
        base = self._memory.spool.base
        if self._memory.state.load().window_end >= base + _HEAD + CIRCLE:
            return True
        if sys.platform in ("win32", "darwin"):
            return False
        try:
            os.posix_fallocate(self._memory.fd, base, _HEAD + CIRCLE)
        except OSError:  # memory is short: the spool may still find some, and else says so
            return False
        return True

    def _announce(self, view: memoryview, start: int, pieces: Sequence[Buffer]) -> None:
        """Let getters know of the offer."""
        sizes = [len(piece) for piece in pieces]
        pack_into(f"={len(sizes) + 1}Q", view, 0, len(sizes), *sizes)
        self._state.relay[WRITTEN] = start
        self._words[OFFER] = start
        self._wake()

    def _write(
        self,
        circle: memoryview,
        start: int,
        pieces: Sequence[Buffer],
        until: float,
        until_read: float,
    ) -> None:
        """Write *pieces* as there is room, and wait until all of it was taken; or give up."""
        relay, copy = self._state.relay, self._copy

        def is_read(least: int) -> bool:
            # A position below the start is about an earlier offer: nobody has begun.
            return (relay[READ] >= start or _wait(until_read, self._has_begun, start)) and _wait(
                until, self._was_read, least
            )

        position = start
        for part, place, position in _parts(pieces, start):
            if position - CIRCLE > start and not is_read(position - CIRCLE):
                return
            copy(circle[place : place + len(part)], part)
            relay[WRITTEN] = position
        if is_read(position):
            _wait(until, self._was_taken, start)

    def _has_begun(self, start: int) -> bool:
        """Return whether a getter reads; wake one otherwise, if there is one asleep."""
        self._wake()
        return self._state.relay[READ] >= start

    def _was_read(self, least: int) -> bool:
        """Return whether the getter has come to the position *least*."""
        return self._state.relay[READ] >= least

    def _was_taken(self, start: int) -> bool:
        """Return whether the offer is none any more."""
        return self._words[OFFER] != start

    def _wake(self) -> None:
        """Wake a getter, if one is asleep."""
        if self._words[SLEEPING]:
            self._waits.wake_getter()

    # -- the getter's side

    def take(self, deadline: float | None) -> Message | None:
        """Take the message that is offered; None if there is none, or it did not pass.

        Nobody waits here for another getter: there may be something else for this one.
        """
        start = self._words[OFFER]
        if not start or self._state.relay[READ] >= start or left_until(deadline) <= 0:
            return None
        try:
            return self._memory.reading.run_within(0.0, self._read, start, deadline)
        except BlockingIOError:
            return None

    def _read(self, start: int, deadline: float | None) -> Message | None:
        """Take the message whose offer begins at *start*; the readers' lock is held."""
        relay, copy = self._state.relay, self._copy
        view = self._view()
        if view is None or relay[READ] >= start:
            return None
        relay[READ] = start
        sizes = self._sizes(view, start)
        if sizes is None:
            return None
        pieces = [blocks.take(size) for size in sizes]
        circle = view[_HEAD:]
        until = inf if deadline is None else deadline
        for part, place, position in _parts(pieces, start):
            if not _wait(until, self._was_written, start, position) or self._words[OFFER] != start:
                return None
            copy(part, circle[place : place + len(part)])
            relay[READ] = position
        if not self._lock.run(self._books.take_offer, start):
            return None
        return pieces[0], pieces[1:]

    def _sizes(self, view: memoryview, start: int) -> tuple[int, ...] | None:
        """Return the sizes of the pieces of the message; None if its offer is open no more."""
        (count,) = unpack_from("=Q", view)
        if not 0 < count <= _MOST_PIECES:
            return None
        sizes = unpack_from(f"={count}Q", view, 8)
        # Only now: what an open offer says is all there, and is not changed any more.
        ledger = self._state.load()
        if ledger.offer_fate != OFFERED or ledger.offer_start != start:
            return None
        return sizes if sum(sizes) == ledger.offer_end - start else None

    def _was_written(self, start: int, position: int) -> bool:
        """Return whether all before *position* is there, or the offer is none any more."""
        return self._state.relay[WRITTEN] >= position or self._words[OFFER] != start

    # -- both

    def _view(self) -> memoryview | None:
        """Return the memory of the circle, and what is in front of it; None if there is none."""
        spool = self._memory.spool
        return spool.view(spool.base, spool.base + _HEAD + CIRCLE)


def _parts(pieces: Sequence[Buffer], start: int) -> Iterator[tuple[memoryview, int, int]]:
    """Yield what both sides copy at once, from the position *start* on.

    That is a part of a piece, its place in the circle, and the position behind it.
    """
    position = start
    for piece in pieces:
        left = memoryview(piece)
        while left:
            place = (position - start) % CIRCLE
            length = min(PIECE, len(left), CIRCLE - place)
            position += length
            yield left[:length], place, position
            left = left[length:]


def _wait(until: float, is_so: Callable[..., bool], *args: int) -> bool:
    """Wait until *is_so*, as long as the other side may need to get on, and not after *until*.

    Return whether it is.
    """
    if is_so(*args):
        return True
    begun = now = time.monotonic()
    end = min(begun + STALL, until)
    if sys.platform == "win32":
        raise OSError("packet mailboxes are a Linux thing")
    release_gil = select.poll().poll
    while now < end:
        if now < begun + _LOOK:
            release_gil(0)
            os.sched_yield()  # the other side may be waiting for this very processor
        else:
            time.sleep(_NAP)
        if is_so(*args):
            return True
        now = time.monotonic()
    return False
