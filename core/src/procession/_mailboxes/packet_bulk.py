"""The large messages of a packet mailbox: into memory beside its log, and out of it."""

from __future__ import annotations

import time

from procession._mailboxes.packet_marks import FULL, LEASING, SHELVED, SPOOLED
from procession._mailboxes.patience import BYTES_OF_WORTH, REWARD
from procession._messages.message_frame import message_in

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from procession._contracts.channel import Buffer, Message
    from procession._mailboxes.packet_books import PacketBooks
    from procession._mailboxes.packet_memory import PacketMemory
    from procession._mailboxes.packet_relay import PacketRelay
    from procession._mailboxes.packet_waits import PacketWaits

#: A longer message is a large one: what is copied while the mailbox's lock is held must take
#: microseconds only.
LONGEST_LOGGED = 64 << 10
#: And from this on it passes from hand to hand, if there is a getter for it: to agree on that
#: costs more for a shorter one than it saves (measured).
SHORTEST_PASSED = 4 << 20


class PacketBulk:
    """Copies large messages into the spool or to shelves, and out, one at a time each way.

    *The spool.* A message too long for the log is copied into memory beside it, one
    producer at a time, and out of it, one getter at a time; all others go on meanwhile,
    except that what was put after a large message is taken after it.

    *Shelves.* As soon as somebody has asked for leases, the buffers of large messages are
    copied to shelves (see `_mailboxes.shelves`) as long as there are free ones, and lie there until
    nobody looks at them.

    *From hand to hand.* A very large message passes from a producer to a getter that waits for it
    while it is being written (see `_mailboxes.packet_relay`), and is put into the spool if that
    fails.

    What is written has not happened until `PacketBooks` commits it: a process killed before
    leaves nothing but bytes that the next one overwrites.
    """

    __slots__ = ("_books", "_lock", "_memory", "_passing", "_spool", "_starved", "_waits", "_words")

    _passing: PacketRelay | None

    def __init__(self, memory: PacketMemory, books: PacketBooks, waits: PacketWaits) -> None:
        """All are borrowed."""
        self._memory = memory
        self._lock = memory.lock
        self._words = memory.words
        self._spool = memory.spool
        self._books = books
        self._waits = waits
        self._passing = None  # made when it is first needed
        # Whether a message has found no shelf since the last one that has, so that somebody
        # was warned.
        self._starved = False

    # -- putting

    def put(self, body: Buffer, buffers: Sequence[Buffer], deadline: float | None) -> None:
        """Put a message that is not to be copied while others wait for the mailbox's lock."""
        memory, waits = self._memory, self._waits
        if self._words[LEASING] and buffers and memory.shelves is not None:
            from procession._mailboxes.shelves import LONGEST_BODY, AllLent

            if len(body) <= LONGEST_BODY:
                try:
                    waits.put(
                        lambda: memory.writing.run(self._put_on_shelf, body, buffers, deadline),
                        deadline,
                    )
                    return
                except AllLent as lent:
                    # Not in there: the warning may run any code, and may be made an error.
                    from procession._messages.lease_warning import warn_of_leases

                    self._starved = True
                    warn_of_leases(lent, "a queue", "get(lease=True)", "put_empty")
        waits.put(lambda: memory.writing.run(self._pass, body, buffers, deadline), deadline)

    def _pass(self, body: Buffer, buffers: Sequence[Buffer], deadline: float | None) -> bool:
        """Pass a message to a getter, or else copy it into the spool; as `_spool_up`."""
        size = len(body) + sum(map(len, buffers))
        if size >= SHORTEST_PASSED and self._relay.put((body, *buffers), size, deadline):
            return True
        return self._spool_up(body, buffers, deadline)

    def _put_on_shelf(
        self, body: Buffer, buffers: Sequence[Buffer], deadline: float | None
    ) -> bool:
        """Copy a message to a shelf, or else to the spool, and add its token; as `_spool_up`.

        Raises `AllLent` if nobody was warned of that yet.
        """
        from procession._mailboxes.shelves import AllLent, space_for

        shelves = self._memory.shelves
        assert shelves is not None
        ledger = self._lock.run(self._books.look_for_room)
        if ledger is None:
            return False
        try:
            shelf = shelves.find(ledger.shelved, space_for([len(each) for each in buffers]))
        except AllLent:
            if not self._starved:
                raise
            shelf = None
        except OSError:  # no descriptor to look with, say
            shelf = None
        if shelf is None:
            return self._spool_up(body, buffers, deadline)
        self._starved = False
        token = shelves.write(shelf, body, buffers)
        return self._lock.run(self._books.add, token, SHELVED)

    def _spool_up(self, body: Buffer, buffers: Sequence[Buffer], deadline: float | None) -> bool:
        """Copy a message into the spool and add its token; False when there is no room."""
        size = len(body) + sum(map(len, buffers))
        worth = size // BYTES_OF_WORTH
        # Waiting for longer than it saves would be a loss, however quick getters are.
        until = time.monotonic() + worth * REWARD
        near_until = time.monotonic() + worth * REWARD / 2
        if deadline is not None:
            until, near_until = min(until, deadline), min(near_until, deadline)
        near = True
        while True:
            found = self._lock.run(self._books.find_place, size, near=near)
            if found is None:
                return False
            place, memory_end = found
            if near:
                # Memory that is in a cache is worth waiting for, as long as getters are quick.
                if place is not None:
                    break
                near = time.monotonic() < near_until and self._waits.nap(worth)
                continue
            assert place is not None
            # And so is memory that was used before.
            if (
                self._spool.is_inside(place)
                or size > self._spool.window // 2
                or time.monotonic() >= until
                or not self._waits.nap(worth)
            ):
                break
        # The lock is free again; only that place is ours.
        token = self._spool.write(place, body, buffers, memory_end=memory_end)
        return self._lock.run(self._books.add, token, SPOOLED)

    @property
    def _relay(self) -> PacketRelay:
        relay = self._passing
        if relay is None:
            from procession._mailboxes.packet_relay import PacketRelay

            relay = self._passing = PacketRelay(self._memory, self._books, self._waits)
        return relay

    # -- filling in place

    def reserve(self, size: int) -> memoryview | None:
        """See `Mailbox.reserve`."""
        memory = self._memory
        return None if memory.shelves is None else memory.writing.run(self._reserve, size)

    def _reserve(self, size: int) -> memoryview | None:
        from procession._mailboxes.shelves import AllLent

        shelves = self._memory.shelves
        assert shelves is not None
        try:
            shelf = shelves.find(self._memory.state.load().shelved, size)
            return None if shelf is None else shelves.lend(shelf, size)
        except (AllLent, OSError):
            return None

    def put_reserved(self, body: Buffer, memory: memoryview, deadline: float | None) -> None:
        """See `Mailbox.put_reserved`."""
        from procession._mailboxes.shelves import token_of

        exporter: Any = memory.obj
        token = token_of(exporter.shelf, body, [len(memory)])
        # Who looks for a free shelf must not see it neither waiting nor held.
        self._waits.put(
            lambda: self._memory.writing.run(self._lock.run, self._books.add, token, SHELVED),
            deadline,
        )

    # -- getting

    def take(self, deadline: float | None, lease: bool) -> Message | None:
        """Take the first message, a large one; None when another getter was faster.

        While we copy, the message is still there for all who look: should we be killed,
        the next getter takes it.
        """
        try:
            return self._memory.reading.run_within(deadline, self._copy, lease)
        except BlockingIOError:
            return None

    def take_offered(self, deadline: float | None) -> Message | None:
        """Take the message that a producer is passing; None when that fails."""
        return self._relay.take(deadline)

    def _copy(self, lease: bool) -> Message | None:
        packet = self._lock.run(self._books.take)
        if packet is None:
            return None
        token, kind = packet
        if kind < SPOOLED:  # another getter was faster, and this is what came next
            message = message_in(packet)
        else:
            if kind == SPOOLED:
                message = self._spool.read(token)
            else:
                shelves = self._memory.shelves
                assert shelves is not None
                message = shelves.read(token, lease=lease)
            self._lock.run(self._books.finish_large, token, kind)
        if self._words[FULL]:
            self._waits.tell_taken()
        return message
