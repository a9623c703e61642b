"""Waiting in a packet mailbox: for a message, for room, until everything is done."""

from __future__ import annotations

import time

from procession import errors
from procession._mailboxes.mailbox_watch import EMPTY, FULL, UNDONE, MailboxWatch, sleep
from procession._mailboxes.packet_marks import FULL as FULL_MARK
from procession._mailboxes.packet_marks import GETS, MOVED, SHUT, SLEEPING
from procession._mailboxes.patience import NAP, Patience
from procession._mailboxes.turns import LONGEST, MASK, Turns
from procession._mailboxes.vigil import died_while_receiving, died_while_sending
from procession.errors import Empty

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable

    from procession._contracts.channel import Message
    from procession._contracts.lane import Lane
    from procession._ground.bell import Bell
    from procession._mailboxes.packet_books import PacketBooks
    from procession._mailboxes.packet_memory import PacketMemory

# A process killed between making a change and ringing the bell leaves others asleep;
# so nobody sleeps for longer than this without looking.
_LONGEST_SLEEP = 1.0


class PacketWaits:
    """The bells of a mailbox, and who waits for them in this process.

    A wait without limit ends with a `PeerDiedError` when everybody who could end it has died.
    """

    __slots__ = (
        "_books",
        "_lane",
        "_made",
        "_memory",
        "_turns_for_message",
        "_turns_for_room",
        "_words",
        "closed",
        "gets_here",
        "patience",
        "puts_here",
        "room",
        "settled",
        "wake",
    )

    def __init__(
        self,
        memory: PacketMemory,
        lane: Lane,
        books: PacketBooks,
        wake: Bell,
        room: Bell | None,
        settled: Bell | None,
    ) -> None:
        """All are borrowed. *wake* is rung for getters that sleep, *room* for producers when a
        message was taken, if there is a maxsize, and *settled* for `join`, if it is joinable.
        """
        if room is not None:
            # Not at the top: the module of `Full` brings threading, and there may be no descriptor
            # to load it with when it is to be raised.
            errors.Full  # noqa: B018
        self._memory = memory
        self._words = memory.words
        self._lane = lane
        self._books = books
        self.wake = wake
        self.room = room
        self.settled = settled
        self.patience = Patience()
        self._turns_for_message = Turns(memory.words)
        self._turns_for_room = Turns(memory.words)
        self._made = time.monotonic()
        #: What this process has done, which tells it what it need not wait for.
        self.puts_here = self.gets_here = False
        #: Whether the mailbox is closed in this process.
        self.closed = False

    # -- for a message

    def get(
        self, take: Callable[[float | None, bool], Message | None], timeout: float | None,
        lease: bool,
    ) -> Message:  # fmt: skip
        """Return what *take* does, which is given the deadline and *lease*, once it is a message.

        Raises `Empty` when there is none within *timeout* seconds, and `PeerDiedError`.
        """
        deadline = deadline_of(timeout)
        message = take(deadline, lease)
        if message is not None:
            return message
        left = left_until(deadline)
        if left <= 0:
            raise Empty
        if self.room is None:
            # Have the next one who takes a message, which may never have to wait, say so.
            self._words[FULL_MARK] = 1
        if left > LONGEST and self._turns_for_message.give(self._lane.pending):
            message = take(deadline, lease)
            if message is not None:
                return message
        watch: MailboxWatch | None = None
        try:
            while True:
                # Whoever puts after this rings; who put before it is seen by the try.
                self._words[SLEEPING] = 1
                message = take(deadline, lease)
                if message is not None:
                    return message
                left = left_until(deadline)
                if left <= 0:
                    raise Empty
                if watch is not None and watch.deaths:
                    raise died_while_receiving(EMPTY, watch.deaths)
                if sleep(self.wake.wait, left, watch):
                    self.wake.silence()
                elif deadline is None:
                    watch = self._look(watch, self.puts_here)
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Wake the next sleeping getter if there is something for it.

        One getter is woken for many puts, as the first that sleep ends is the one that
        notices; and one that gives up must not keep a ring that was meant for others.
        """
        if self.closed:
            return
        words = self._words
        words[MOVED] = (words[MOVED] + 1) & MASK  # for others who give way meanwhile
        if words[GETS] & SHUT or self._books.size():
            self.wake.ring()
        else:
            words[SLEEPING] = 1

    def wake_getter(self) -> None:
        """Wake a getter that sleeps."""
        self._words[SLEEPING] = 0
        self.wake.ring()

    # -- for room

    def put(self, add: Callable[[], bool], deadline: float | None) -> None:
        """Wait until *add* finds room; raise `Full` at *deadline*. Like `get`."""
        if add() or (left_until(deadline) > LONGEST and self.nap() and add()):
            return
        if left_until(deadline) <= 0:
            raise errors.Full
        assert self.room is not None
        watch: MailboxWatch | None = None
        try:
            while True:
                # Whoever takes a message after this rings; who took one before it made
                # room for this try.
                self._words[FULL_MARK] = 1
                if add():
                    return
                left = left_until(deadline)
                if left <= 0:
                    raise errors.Full
                if sleep(self.room.wait, left, watch):
                    self.room.silence()
                    if add() or (left_until(deadline) > LONGEST and self.nap() and add()):
                        return
                elif deadline is None:
                    watch = self._look(watch, self.gets_here)
                    if watch.deaths:
                        if add():
                            return
                        raise died_while_sending(FULL, watch.deaths)
        finally:
            # One ring is for one of those who wait: the next looks for itself.
            if not self.closed:
                self.room.ring()

    def tell_taken(self) -> None:
        """Wake a putter that waits for room; without a maxsize, tell a getter that gives way."""
        words = self._words
        words[FULL_MARK] = 0
        if self.room is not None:
            self.room.ring()
        else:
            words[MOVED] = (words[MOVED] + 1) & MASK

    def nap(self, worth: int = 1) -> bool:
        """Let the getters catch up, if that is worth it; return whether they had some time.

        A message that they take is *worth* as much as so many small ones.
        """
        begun = time.monotonic()
        if not self.patience.allows(begun):
            return False
        lane, state, words = self._lane, self._memory.state, self._words
        taken, waiting, moved = state.load().taken, lane.pending(), words[MOVED]

        def gone() -> int:
            return max(0, waiting - lane.pending())

        if not waiting or not self._turns_for_room.give(gone):
            time.sleep(NAP)
            words[MOVED] = (words[MOVED] + gone()) & MASK
        # Others may have filled what room there was meanwhile, but they have said so.
        taken = max(state.load().taken - taken, words[MOVED] - moved & MASK)
        now = time.monotonic()
        self.patience.record(now, now - begun, worth * taken)
        return True

    # -- until everything is done

    def join(self, settled: Bell, timeout: float | None) -> bool:
        """Wait until every message is done; return whether that was within *timeout* seconds."""
        lock, books = self._memory.lock, self._books
        deadline = deadline_of(timeout)
        watch: MailboxWatch | None = None
        while not lock.run(books.settle, settled):
            left = left_until(deadline)
            if left <= 0:
                return False
            if watch is not None and watch.deaths:
                raise died_while_receiving(UNDONE, watch.deaths)
            if not sleep(settled.wait_with_others, left, watch) and deadline is None:
                watch = self._look(watch, self.gets_here)
                if not watch.deaths:
                    watch.look_for_undone(lock.run(books.undone))
        return True

    # -- all of them

    def _look(self, watch: MailboxWatch | None, served: bool) -> MailboxWatch:
        """Look, after a second in which nothing happened, whether anything still can."""
        if watch is None:
            memory = self._memory
            memory.lock.run(memory.roster.place)
            watch = MailboxWatch(memory.fd, memory.roster, self._made)
        watch.look(served=served)
        return watch


def deadline_of(timeout: float | None) -> float | None:
    """Return when *timeout* seconds are over, by `time.monotonic`; None for never."""
    return None if timeout is None else time.monotonic() + timeout


def left_until(deadline: float | None) -> float:
    """Return how long to sleep now, zero or less when the time is over."""
    if deadline is None:
        return _LONGEST_SLEEP
    return min(deadline - time.monotonic(), _LONGEST_SLEEP)
