"""What is done in a packet mailbox while its lock is held, each by one commit."""

from __future__ import annotations

from procession._mailboxes.mailbox_state import CLOSED, DRAINING, DROPPED, OFFERED, OPEN, TAKEN
from procession._mailboxes.packet_marks import GETS, LOGGED, OFFER, PUTS, SHELVED, SHUT, SPOOLED
from procession.errors import ShutDown

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession._contracts.lane import Lane
    from procession._ground.bell import Bell
    from procession._mailboxes.mailbox_state import Ledger
    from procession._mailboxes.packet_memory import PacketMemory

# How often a size is counted without the lock before it is counted with it.
_TRIES = 3


class PacketBooks:
    """Adds messages to a mailbox, takes them, counts them, and shuts it down.

    Whoever calls a method holds the mailbox's lock (`PacketMemory.lock`), but for `size`. A
    process killed at any instruction has done all of it or nothing.

    *Counting.* A *joinable* mailbox makes gets under the lock, too, and counts each
    message in the same moment as done or not, and who took it. `join` waits for the
    messages that are in the mailbox and for those that a get has *returned* (or is about
    to) without a `task_done`. When nothing is left but messages whose takers have died,
    it raises. The one inexactness: a getter killed in the microsecond between the kernel's
    giving it a packet and its counting of it takes the message along uncounted, so that
    `join` does not wait for it.
    """

    __slots__ = (
        "_joinable",
        "_lane",
        "_log",
        "_logged_bell",
        "_maxsize",
        "_memory",
        "_roster",
        "_spool",
        "_state",
        "_words",
    )

    def __init__(
        self, memory: PacketMemory, lane: Lane, logged_bell: Bell, maxsize: int, joinable: bool
    ) -> None:
        """All are borrowed. *logged_bell*: readable as long as the log has messages or the
        mailbox is shut down.
        """
        self._memory = memory
        self._state = memory.state
        self._words = memory.words
        self._roster = memory.roster
        self._log = memory.log
        self._spool = memory.spool
        self._lane = lane
        self._logged_bell = logged_bell
        self._maxsize = maxsize
        self._joinable = joinable

    # -- putting

    def add(self, packet: bytes, kind: int) -> bool:
        """Add a message; return whether there was room for it."""
        ledger = self.look_for_room()
        if ledger is None:
            return False
        fits = kind < SPOOLED and len(packet) <= self._lane.limit
        if fits and not ledger.logged and self._lane.send(packet, kind):
            self._correct_marks(ledger)
            return True
        self._log.append(ledger, packet, kind)
        if kind == SPOOLED:
            self._spool.add(ledger, packet)
        elif kind == SHELVED:
            from procession._mailboxes.shelves import shelf_of

            ledger.shelved |= 1 << shelf_of(packet)
        self._correct_marks(ledger)
        self._state.commit(ledger)
        return True

    def look_for_room(self) -> Ledger | None:
        """Return the ledger if there is room for a message. Raises `ShutDown`."""
        ledger = self._state.load()
        if ledger.shut != OPEN:
            raise ShutDown("the queue was shut down")
        if 0 < self._maxsize <= self._lane.pending() + ledger.logged:
            return None
        return ledger

    def find_place(self, size: int, *, near: bool) -> tuple[int | None, int] | None:
        """Return where in the spool to write *size* bytes, and up to where it has its memory.

        With *near*, the place is None unless it stays in a cache. None when there is no room for
        a message.
        """
        ledger = self.look_for_room()
        if ledger is None:
            return None
        if ledger.offer_fate == OFFERED:
            # Its producer was killed, and what is written now overwrites it.
            ledger.offer_fate = CLOSED
            self._state.commit(ledger)
        if near:
            return self._spool.find_near(ledger, size), ledger.window_end
        place = self._spool.find(ledger, size)
        self._state.commit(ledger)
        return place, ledger.window_end

    # -- from hand to hand, see `_mailboxes.packet_relay`

    def open_offer(self, size: int, memory: int) -> int | None:
        """Offer a message of *size* bytes and return where it begins; the mailbox must be empty.

        None if it is not. The window has *memory* bytes of memory. The writers' lock is held.
        """
        ledger = self.look_for_room()
        if ledger is None or ledger.logged or self._lane.pending():
            return None
        # Behind all that anybody has read or written for an earlier one.
        ledger.offer_start = start = ledger.offer_end + 1
        ledger.offer_end = start + size
        ledger.offer_fate = OFFERED
        ledger.window_end = max(ledger.window_end, self._spool.base + memory)
        self._state.commit(ledger)
        return start

    def take_offer(self, start: int) -> bool:
        """Take the message that begins at *start*; return whether it was still offered."""
        ledger = self._state.load()
        if ledger.offer_start != start or ledger.offer_fate != OFFERED:
            return False
        ledger.offer_fate = TAKEN
        self._count_taken(ledger)
        self._words[OFFER] = 0
        return True

    def close_offer(self) -> bool:
        """Offer the message no more; return whether it was taken. The writers' lock is held."""
        ledger = self._state.load()
        self._words[OFFER] = 0
        if ledger.offer_fate == OFFERED:
            ledger.offer_fate = CLOSED
            self._state.commit(ledger)
        return ledger.offer_fate == TAKEN

    # -- getting

    def take(self) -> tuple[bytes, int] | None:
        """Take the first packet; a large message's token is only looked at."""
        ledger = self._state.load()
        if ledger.shut == DROPPED:
            raise ShutDown("the queue was shut down")
        # Whatever is in the lane is older than the log, for each producer.
        packet = self._lane.receive()
        if packet is not None:
            if self._joinable:
                self._count_taken(ledger)
            return packet
        if not ledger.logged:
            self._correct_marks(ledger)
            if ledger.shut != OPEN:
                raise ShutDown("the queue was shut down")
            return None
        packet = self._log.first(ledger)
        if packet[1] < SPOOLED:
            self._drop_first(ledger, packet[0])
        return packet

    def _drop_first(self, ledger: Ledger, packet: bytes) -> None:
        """Commit that the log's first record was taken."""
        self._log.drop(ledger, packet)
        self._count_taken(ledger)
        if self._log.has_garbage(ledger):
            self._log.reclaim(ledger)
            self._state.commit(ledger)
        if not ledger.logged:
            self._correct_marks(ledger)

    def _count_taken(self, ledger: Ledger) -> None:
        """Commit *ledger*, and in it that one more message was taken."""
        if self._joinable:
            self._roster.count(1)
        ledger.taken += 1
        self._state.commit(ledger)

    def finish_large(self, token: bytes, kind: int) -> None:
        """Commit that the message of *token*, still the log's first, was taken."""
        ledger = self._state.load()
        if ledger.shut == DROPPED:
            raise ShutDown("the queue was shut down")
        if kind == SHELVED:
            from procession._mailboxes.shelves import shelf_of

            ledger.shelved &= ~(1 << shelf_of(token))
            self._drop_first(ledger, token)
            return
        self._spool.remove(ledger, token)
        self._drop_first(ledger, token)
        if self._spool.has_garbage(ledger):
            self._spool.reclaim(ledger)
            self._state.commit(ledger)

    # -- both

    def size(self) -> int:
        """Return how many messages there are. Takes the lock itself, if it has to."""
        for _ in range(_TRIES):
            version = self._state.version()
            size = self.count()
            # If nothing was committed, the log had this many when the kernel counted.
            if self._state.version() == version:
                return size
        return self._memory.lock.run(self.count)

    def count(self) -> int:
        """Return how many messages there are."""
        ledger = self._state.load()
        return 0 if ledger.shut == DROPPED else self._lane.pending() + ledger.logged

    def shut(self, *, immediate: bool) -> None:
        """Shut the mailbox down; with *immediate*, drop what is in it."""
        ledger = self._state.load()
        ledger.shut = max(ledger.shut, DROPPED if immediate else DRAINING)
        if ledger.offer_fate == OFFERED:
            ledger.offer_fate = CLOSED
        if immediate:
            self._log.clear(ledger)
            self._spool.clear(ledger)
            ledger.shelved = 0
            ledger.done = min(ledger.done, ledger.taken)
        self._correct_marks(ledger)
        self._state.commit(ledger)
        if immediate:
            # Only now: one killed in between has dropped everything, or nothing.
            while self._lane.receive() is not None:
                pass
            self._log.reclaim(ledger)
            self._spool.give_all_back()
            self._state.commit(ledger)

    def _correct_marks(self, ledger: Ledger) -> None:
        """Make hot words and bell agree with *ledger*.

        What makes others look closer is marked before it is committed, and the marks are
        taken away after. So a process killed in between leaves marks that are there in
        vain: they cost time, and whoever follows them comes here. The mark for gets is
        the last to be made and the first to go, so that if it is there all of it is.
        """
        words = self._words
        why = (LOGGED if ledger.logged else 0) | (SHUT if ledger.shut else 0)
        gets, puts = words[GETS], words[PUTS]
        if gets & (LOGGED | SHUT) == why == puts & (LOGGED | SHUT):
            return
        others = ~(LOGGED | SHUT)
        if why:
            words[PUTS] = puts & others | why
            self._logged_bell.ring()
            words[GETS] = gets & others | why
        else:
            words[GETS] = gets & others
            self._logged_bell.silence()
            words[PUTS] = puts & others

    # -- counting what is done

    def count_done(self) -> int:
        """Count one message as done and return how many are not. Raises `ValueError`."""
        ledger = self._state.load()
        unfinished = self._unfinished(ledger)
        if unfinished <= 0:
            raise ValueError("task_done() called too many times")
        ledger.done += 1
        self._state.commit(ledger)
        self._roster.count(-1)
        return unfinished - 1

    def _unfinished(self, ledger: Ledger) -> int:
        # What a late put has left in the lane after everything was dropped is dropped, too.
        waiting = 0 if ledger.shut == DROPPED else self._lane.pending() + ledger.logged
        return waiting + ledger.taken - ledger.done

    def settle(self, settled: Bell) -> bool:
        """Return whether all is done; if not, the bell *settled* is silent until it is."""
        ledger = self._state.load()
        if self._unfinished(ledger) <= 0:
            return True
        settled.silence()
        return False

    def undone(self) -> dict[int, int]:
        """Return who has taken what is undone; nobody as long as there is more to take."""
        return {} if self.count() else self._roster.undone()
