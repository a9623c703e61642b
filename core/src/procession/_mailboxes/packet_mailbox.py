"""A mailbox on a lane of packets: no feeder thread, and no lock for small messages."""

from __future__ import annotations

import os
import sys

from procession._contracts.mailbox import Mailbox
from procession._ground.bell import Bell
from procession._mailboxes import card
from procession._mailboxes.packet_books import PacketBooks
from procession._mailboxes.packet_bulk import LONGEST_LOGGED, PacketBulk
from procession._mailboxes.packet_marks import (
    BOUNDED,
    BUDGET,
    COUNTED,
    FRAMED,
    FULL,
    GETS,
    LEASING,
    LOGGED,
    OFFER,
    PLAIN,
    PUTS,
    SHUT,
    SLEEPING,
    SPOOLED,
)
from procession._mailboxes.packet_memory import PacketMemory, new_file, place_of_spool
from procession._mailboxes.packet_waits import PacketWaits, deadline_of
from procession._messages.message_frame import frame, message_in, unframe

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    import select
    from collections.abc import Callable, Sequence
    from typing import Self

    from procession._contracts.channel import Buffer, Message
    from procession._contracts.lane import Lane
    from procession._ground.handoff import Handoff, Recipe, Takeover

# The last byte of a padded packet is below this one when it is plain.
_FIRST_FRAMED = 128


class PacketMailbox(Mailbox):
    """A mailbox made of a lane, and of memory for what the lane has no room for.

    *The lane.* A message that fits a packet is one system call to put and one to get.
    Nothing is kept in the process: a put that has returned has handed the message to
    the kernel, and a process killed at any instruction changes nothing for the others.

    *The overflow log.* When the lane is full, a producer lets the getters catch up for
    some tenths of a millisecond as long as they are quick (`Patience`); after that it
    appends to a log in anonymous memory, under a lock that the kernel releases when its
    holder dies. While the log has messages, every put goes there, and getters take from
    it when the lane is empty: so order is kept, and an unbounded put never waits for a
    getter. Memory is given back as the log is read.

    *Limits.* With a *maxsize*, puts are made under the lock, and room is counted from
    the kernel's own number of packets and the log's committed one, so that the mailbox
    never holds more, and never believes to be fuller than it is, whoever is killed.

    *Its parts.* The lane, and the memory (`PacketMemory`), in which everything is changed by
    the books (`PacketBooks`); large messages are the bulk's (`PacketBulk`), and who has to
    wait is one of the waits (`PacketWaits`).

    *Shutting down.* A put that is being made while another process shuts the mailbox
    down may still succeed; its message is there to be taken, also by a get after one
    that raised `ShutDown`.

    *Signals.* A signal handler that raises (KeyboardInterrupt) leaves everything
    usable. In the instant after the kernel took a message and before `put` returns,
    the message is there although `put` raises; in the same instant of a `get` the
    message is lost. No pure Python code can close that gap. A handler may itself put
    and get; if it interrupted a put or get of the same mailbox that holds the lock, it
    gets a `RuntimeError`.

    *Errors.* `OSError` when memory (ENOSPC, ENOMEM), descriptors (EMFILE) or file size
    (EFBIG, with a resource limit on it) have run out: nothing was put or taken, and
    the mailbox goes on.

    *Timeouts* are kept to the clock's precision, but for the time that another process
    takes to copy a large message into the spool, or to pass it to a getter: a put of a large
    message waits for it.

    Linux only. Owns its descriptors; each process closes its own.
    """

    if sys.platform == "linux":
        _poll: select.epoll | None

    __slots__ = (
        "_books",
        "_bulk",
        "_lane",
        "_limit",
        "_logged_bell",
        "_memory",
        "_poll",
        "_receive",
        "_send",
        "_waits",
        "_words",
        "closed",
        "maxsize",
    )

    def __init__(self, lane: Lane, *, maxsize: int = 0, joinable: bool = False) -> None:
        """Make a new mailbox on *lane*, which is taken over, also after an error."""
        opened: list[Bell] = []
        fd = -1
        try:
            # What it takes to count is loaded now: done after a fork, it would cost the parent and
            # the child a hundred pages that they could have in common.
            lane.pending()
            spool = place_of_spool()
            fd = new_file()
            for _ in range(2 + bool(maxsize) + joinable):
                opened.append(Bell())
            bells = iter(opened)
            self._assemble(
                lane,
                fd,
                next(bells),
                next(bells),
                next(bells) if maxsize else None,
                next(bells) if joinable else None,
                maxsize,
                spool,
            )
        except BaseException:
            lane.close()
            for bell in opened:
                bell.close()
            if fd >= 0:
                os.close(fd)
            raise
        self._memory.begin()
        self._words[PUTS] = BOUNDED if maxsize else 0
        self._words[GETS] = COUNTED if joinable else 0
        waits = self._waits
        card.write(
            fd,
            "packets",
            maxsize=maxsize,
            lane=card.identity(lane.fileno()),
            counters=card.counters(lane.counters()),
            wake=card.identity(waits.wake.fileno()),
            room=card.identity(None if waits.room is None else waits.room.fileno()),
            settled=card.identity(None if waits.settled is None else waits.settled.fileno()),
        )

    def _assemble(
        self,
        lane: Lane,
        fd: int,
        wake: Bell,
        logged: Bell,
        room: Bell | None,
        settled: Bell | None,
        maxsize: int,
        spool: int,
    ) -> None:
        self.maxsize = maxsize
        self._lane = lane
        self._limit, self._send, self._receive = lane.limit, lane.send, lane.receive
        self._memory = memory = PacketMemory(fd, spool, lane.copy)
        self._words = memory.words
        self._logged_bell = logged
        self._books = PacketBooks(memory, lane, logged, maxsize, settled is not None)
        self._waits = PacketWaits(memory, lane, self._books, wake, room, settled)
        self._bulk = PacketBulk(memory, self._books, self._waits)
        self._poll = None
        self.closed = False

    def lend_at_most(self, budget: int, /) -> None:
        """See `Mailbox.lend_at_most`."""
        self._words[BUDGET] = budget

    # -- putting

    def put(
        self, body: Buffer, buffers: Sequence[Buffer] = (), /, *, timeout: float | None = None
    ) -> None:
        """See `Mailbox.put`."""
        self._waits.puts_here = True
        words = self._words
        if words[PUTS] or buffers or len(body) > self._limit or type(body) is not bytes:
            self._put_closer(body, buffers, timeout)
        elif not self._send(body):
            self._put_on_full_lane(body)
        if words[SLEEPING]:
            self._waits.wake_getter()

    def put_many(self, messages: Sequence[Message], /, *, timeout: float | None = None) -> int:
        """See `Mailbox.put_many`."""
        if not self._words[PUTS]:
            limit = self._limit
            packets: list[bytes] = []
            for body, buffers in messages:
                if buffers or type(body) is not bytes or len(body) > limit:
                    break
                packets.append(body)
            sent = self._lane.send_many(packets) if packets else 0
            if sent:
                self._waits.puts_here = True
                if self._words[SLEEPING]:
                    self._waits.wake_getter()
                return sent
        return super().put_many(messages, timeout=timeout)

    def _put_on_full_lane(self, packet: bytes) -> None:
        """Wait a little for room if that is worth it, then append to the log."""
        while not self._words[PUTS] and self._waits.nap():
            if not self._words[PUTS] and self._lane.send(packet, PLAIN):
                return
        self._memory.lock.run(self._books.add, packet, PLAIN)

    def _put_closer(self, body: Buffer, buffers: Sequence[Buffer], timeout: float | None) -> None:
        """Put when it is not just one packet into a lane that anybody may use."""
        deadline = deadline_of(timeout)
        if len(body) + sum(map(len, buffers)) > LONGEST_LOGGED:
            self._bulk.put(body, buffers, deadline)
            return
        lock, add = self._memory.lock, self._books.add
        packet, kind = (frame(body, buffers), FRAMED) if buffers else (bytes(body), PLAIN)
        if not lock.run(add, packet, kind):
            self._waits.put(lambda: lock.run(add, packet, kind), deadline)
        if self._words[PUTS] & LOGGED and not self._words[SLEEPING]:
            self._waits.nap()

    def reserve(self, size: int, /) -> memoryview | None:
        """See `Mailbox.reserve`."""
        return self._bulk.reserve(size)

    def put_reserved(
        self, body: Buffer, memory: memoryview, /, *, timeout: float | None = None
    ) -> None:
        """See `Mailbox.put_reserved`."""
        self._waits.puts_here = True
        self._bulk.put_reserved(body, memory, deadline_of(timeout))
        if self._words[SLEEPING]:
            self._waits.wake_getter()

    # -- getting

    def get(self, *, timeout: float | None = None) -> Message:
        """See `Mailbox.get`."""
        self._waits.gets_here = True
        if not self._words[GETS]:
            packet = self._receive()
            if packet is not None:
                if self._words[FULL]:
                    self._waits.tell_taken()
                return unframe(packet[0]) if packet[1] else (packet[0], ())
        return self._waits.get(self._take, timeout, lease=False)

    def get_pickle(self, *, timeout: float | None = None) -> Message:
        """See `Mailbox.get_pickle`."""
        self._waits.gets_here = True
        if not self._words[GETS]:
            padded = self._lane.receive_padded()
            if padded is not None:
                if self._words[FULL]:
                    self._waits.tell_taken()
                return (padded, ()) if padded[-1] < _FIRST_FRAMED else unframe(padded)
        return self._waits.get(self._take, timeout, lease=False)

    def get_leased(self, *, timeout: float | None = None) -> Message:
        """See `Mailbox.get_leased`."""
        self._words[LEASING] = 1
        self._waits.gets_here = True
        return self._waits.get(self._take, timeout, lease=True)

    def get_many(self, most: int, /, *, timeout: float | None = None) -> list[Message]:
        """See `Mailbox.get_many`."""
        if not self._words[GETS] and most > 1:
            packets = self._lane.receive_many(most)
            if packets:
                self._waits.gets_here = True
                if self._words[FULL]:
                    self._waits.tell_taken()
                return [
                    (padded, ()) if padded[-1] < _FIRST_FRAMED else unframe(padded)
                    for padded in packets
                ]
        return super().get_many(most, timeout=timeout)

    def _take(self, deadline: float | None, lease: bool) -> Message | None:
        """Take a message if there is one; with *lease*, look at a large one where it lies."""
        # The puts' mark may be there alone, when somebody was killed.
        if (self._words[GETS] | self._words[PUTS]) & (LOGGED | SHUT | COUNTED):
            packet = self._memory.lock.run(self._books.take)
        else:
            packet = self._lane.receive()
        if packet is None:
            offered = self._words[OFFER] and not lease
            return self._bulk.take_offered(deadline) if offered else None
        if packet[1] >= SPOOLED:
            return self._bulk.take(deadline, lease)
        if self._words[FULL]:
            self._waits.tell_taken()
        return message_in(packet)

    # -- both

    def size(self) -> int:
        """See `Mailbox.size`."""
        return self._books.size()

    def shutdown(self, *, immediate: bool = False) -> None:
        """See `Mailbox.shutdown`."""
        self._memory.lock.run(self._books.shut, immediate=immediate)
        for bell in (self._waits.wake, self._waits.room, self._waits.settled):
            if bell is not None:
                bell.ring()

    def task_done(self) -> None:
        """See `Mailbox.task_done`."""
        settled = self._waits.settled
        if settled is None:
            raise ValueError("task_done() called too many times: nothing is counted here")
        if self._memory.lock.run(self._books.count_done) == 0:
            settled.ring()

    def join(self, timeout: float | None = None, /) -> bool:
        """See `Mailbox.join`."""
        settled = self._waits.settled
        if settled is None:
            raise ValueError("a mailbox that was not made joinable cannot be joined")
        return self._waits.join(settled, timeout)

    # -- descriptors

    def fileno(self) -> int:
        """See `Mailbox.fileno`.

        Readable, too, when the mailbox is shut down. It is made when it is first asked
        for, and a lane that somebody waits on in this way is slower for everybody.
        """
        return self._memory.lock.run(self._open_poll)

    def _open_poll(self) -> int:
        if sys.platform != "linux":
            raise OSError("only Linux has epoll")
        if self._poll is None:
            import select

            poll = select.epoll()
            try:
                poll.register(self._lane.fileno(), select.EPOLLIN)
                poll.register(self._logged_bell.fileno(), select.EPOLLIN)
            except BaseException:
                poll.close()
                raise
            self._poll = poll
        return self._poll.fileno()

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        return (
            type(self._lane),
            self._lane.export(handoff),
            handoff.give(self._memory.fd),
            self.maxsize,
            self._memory.spool.base,
            *(None if bell is None else bell.export(handoff) for bell in self._bells()),
        )

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        lane_type, lane_recipe, token, maxsize, spool, *bell_recipes = recipe
        lane: Lane | None = None
        fd = -1
        bells: list[Bell | None] = []
        try:
            lane = lane_type.attach(lane_recipe, takeover)
            assert lane is not None
            fd = takeover.take(token)
            for bell_recipe in bell_recipes:
                bells.append(None if bell_recipe is None else Bell.attach(bell_recipe, takeover))
            wake, logged, room, settled = bells
            assert wake is not None
            assert logged is not None
            self = cls.__new__(cls)
            self._assemble(lane, fd, wake, logged, room, settled, maxsize, spool)
        except BaseException:
            if lane is not None:
                lane.close()
            for bell in bells:
                if bell is not None:
                    bell.close()
            if fd >= 0:
                os.close(fd)
            raise
        return self

    def close(self) -> None:
        """See `Mailbox.close`. Threads of this process that wait in it get an `OSError`."""
        if self.closed:
            return
        self.closed = self._waits.closed = True
        self._memory.retire()
        self._waits.wake.ring()
        self._lane.close()
        for bell in self._bells():
            if bell is not None:
                bell.close()
        if sys.platform == "linux" and self._poll is not None:
            self._poll.close()
        self._memory.close()

    def _bells(self) -> tuple[Bell, Bell, Bell | None, Bell | None]:
        waits = self._waits
        return waits.wake, self._logged_bell, waits.room, waits.settled

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        # A constructor that ran out of descriptors has closed what it had.
        if not getattr(self, "closed", True):
            self.close()
