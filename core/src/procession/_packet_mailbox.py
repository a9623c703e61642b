"""A mailbox on a lane of packets: no feeder thread, and no lock for small messages."""

from __future__ import annotations

import mmap
import os
import sys
import time

from procession import _card
from procession._anonymous_file import anonymous_file
from procession._bell import Bell
from procession._file_lock import LockFile
from procession._mailbox import Mailbox
from procession._mailbox_state import (
    DRAINING,
    DROPPED,
    OPEN,
    SIZE,
    TABLE,
    TABLE_SIZE,
    MailboxState,
)
from procession._mailbox_watch import EMPTY, FULL, UNDONE, MailboxWatch, sleep
from procession._message_frame import frame, unframe
from procession._overflow_log import OverflowLog
from procession._patience import NAP, REWARD, Patience
from procession._spool import WINDOW, Spool
from procession._vigil import died_while_receiving, died_while_sending
from procession.errors import Empty, Full, ShutDown

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    import select
    from collections.abc import Callable, Sequence
    from typing import Any, Self

    from procession._channel import Buffer, Message
    from procession._handoff import Handoff, Recipe, Takeover
    from procession._lane import Lane
    from procession._mailbox_state import Ledger
    from procession._shelves import AllLent, Shelves

# Hot words: getters are asleep; puts, gets have to look closer before they use the lane;
# putters are asleep; somebody gets with leases.
_SLEEPING, _PUTS, _GETS, _FULL, _LEASING = 0, 1, 2, 3, 4
# Why they have to, in `_PUTS` and `_GETS`: the overflow log has messages, the mailbox was
# shut down, it has a maxsize, its messages are counted when they are taken.
_LOGGED, _SHUT, _BOUNDED, _COUNTED = 1, 2, 4, 8

# Kinds of packets; a lane carries the first two.
_PLAIN, _FRAMED, _SPOOLED, _SHELVED = 0, 1, 2, 3

# The last byte of a padded packet is below this one when it is plain.
_FIRST_FRAMED = 128

# A longer message goes to the spool, not through the log: what is copied while the
# mailbox's lock is held must take microseconds only.
_LONGEST_LOGGED = 64 << 10

# Writing so many bytes to memory that was never touched takes as much longer as a message that
# is taken during a nap is worth (measured).
_BYTES_OF_WORTH = 128 << 10

# Where the log and the spool lie in the file, behind the state and the table of the shelves.
# It is sparse, and both give back what was taken, so the distance costs nothing.
_LOG = -(-(TABLE + TABLE_SIZE) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
_SPOOL = 1 << 40


def _place_of_spool() -> int:
    """Return where the spool begins: half-way, when a resource limit is on the size of files."""
    if sys.platform == "win32":
        return _SPOOL
    try:
        import resource
    except (ImportError, OSError):  # no descriptor is left to load it with
        return _SPOOL
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY or limit >= 2 * _SPOOL:
        return _SPOOL
    return max(_LOG, limit // 2 // _LOG * _LOG)


# A process killed between making a change and ringing the bell leaves others asleep;
# so nobody sleeps for longer than this without looking.
_LONGEST_SLEEP = 1.0

# How often a size is counted without the lock before it is counted with it.
_TRIES = 3


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

    *The spool.* A message too long for the log is copied into memory beside it, one
    producer at a time, and out of it, one getter at a time; all others go on meanwhile,
    except that what was put after a large message is taken after it.

    *Shelves.* As soon as somebody has asked for leases, the buffers of large messages are
    copied to shelves (see `_shelves`) as long as there are free ones, and lie there until
    nobody looks at them.

    *Limits.* With a *maxsize*, puts are made under the lock, and room is counted from
    the kernel's own number of packets and the log's committed one, so that the mailbox
    never holds more, and never believes to be fuller than it is, whoever is killed.

    *Counting.* A *joinable* mailbox makes gets under the lock, too, and counts each
    message in the same moment as done or not, and who took it. `join` waits for the
    messages that are in the mailbox and for those that a get has *returned* (or is about
    to) without a `task_done`. When nothing is left but messages whose takers have died,
    it raises. The one inexactness: a getter killed in the microsecond between the kernel's
    giving it a packet and its counting of it takes the message along uncounted, so that
    `join` does not wait for it.

    *Waits without limit* end with a `PeerDiedError` when everybody who could end them has
    died; see `MailboxWatch`.

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
    takes to copy a large message into the spool: a put of a large message waits for it.

    Linux only. Owns its descriptors; each process closes its own.
    """

    if sys.platform == "linux":
        _poll: select.epoll | None
    _shelves_here: Shelves | None

    __slots__ = (
        "_fd",
        "_gets_here",
        "_joinable",
        "_lane",
        "_limit",
        "_lock",
        "_lock_file",
        "_log",
        "_logged_bell",
        "_made",
        "_patience",
        "_poll",
        "_puts_here",
        "_reading",
        "_receive",
        "_room",
        "_roster",
        "_send",
        "_settled",
        "_shelves_here",
        "_spool",
        "_starved",
        "_state",
        "_wake",
        "_words",
        "_writing",
        "closed",
        "maxsize",
    )

    def __init__(self, lane: Lane, *, maxsize: int = 0, joinable: bool = False) -> None:
        """Make a new mailbox on *lane*, which is taken over, also after an error."""
        opened: list[Bell] = []
        fd = -1
        try:
            spool = _place_of_spool()
            fd = anonymous_file("procession-mailbox", bytes(SIZE))
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
        ledger = self._state.load()
        ledger.head = ledger.tail = ledger.freed = _LOG
        self._spool.begin(ledger)
        self._state.commit(ledger)
        self._words[_PUTS] = _BOUNDED if maxsize else 0
        self._words[_GETS] = _COUNTED if joinable else 0
        _card.write(
            fd,
            "packets",
            maxsize=maxsize,
            lane=_card.identity(lane.fileno()),
            counters=_card.counters(lane.counters()),
            wake=_card.identity(self._wake.fileno()),
            room=_card.identity(None if self._room is None else self._room.fileno()),
            settled=_card.identity(None if self._settled is None else self._settled.fileno()),
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
        self._state = MailboxState(fd)
        self.maxsize = maxsize
        self.closed = False
        self._joinable = settled is not None
        self._lane = lane
        self._limit, self._send, self._receive = lane.limit, lane.send, lane.receive
        self._fd = fd
        self._words = self._state.hot
        self._log = OverflowLog(fd, _LOG)
        # No window where the room is limited: it could be used up although little is in it.
        self._spool = Spool(fd, spool, WINDOW if spool == _SPOOL else 0, lane.copy)
        # Made when it is first needed. Whether a message has found none since the last one that
        # has, so that somebody was warned.
        self._shelves_here = None
        self._starved = False
        self._lock_file = LockFile(fd)
        # The mailbox's lock; the locks of the spool's one writer and one reader. Whoever
        # wants two takes the spool's first.
        self._lock = self._lock_file.lock(0)
        self._writing = self._lock_file.lock(1)
        self._reading = self._lock_file.lock(2)
        # Rung for getters that sleep; readable as long as the log has messages or the
        # mailbox is shut down; rung for producers when a message was taken; for `join`.
        self._wake = wake
        self._logged_bell = logged
        self._room = room
        self._settled = settled
        self._patience = Patience()
        self._poll = None
        # For waits without limit: which processes wait and take, and what this one has done.
        self._roster = self._state.roster
        self._made = time.monotonic()
        self._puts_here = self._gets_here = False

    # -- putting

    def put(
        self, body: Buffer, buffers: Sequence[Buffer] = (), /, *, timeout: float | None = None
    ) -> None:
        """See `Mailbox.put`."""
        self._puts_here = True
        words = self._words
        if words[_PUTS] or buffers or len(body) > self._limit or type(body) is not bytes:
            self._put_closer(body, buffers, timeout)
        elif not self._send(body):
            self._put_on_full_lane(body)
        if words[_SLEEPING]:
            words[_SLEEPING] = 0
            self._wake.ring()

    def put_many(self, messages: Sequence[Message], /, *, timeout: float | None = None) -> int:
        """See `Mailbox.put_many`."""
        if not self._words[_PUTS]:
            limit = self._limit
            packets: list[bytes] = []
            for body, buffers in messages:
                if buffers or type(body) is not bytes or len(body) > limit:
                    break
                packets.append(body)
            sent = self._lane.send_many(packets) if packets else 0
            if sent:
                self._puts_here = True
                if self._words[_SLEEPING]:
                    self._words[_SLEEPING] = 0
                    self._wake.ring()
                return sent
        return super().put_many(messages, timeout=timeout)

    def _put_on_full_lane(self, packet: bytes) -> None:
        """Wait a little for room if that is worth it, then append to the log."""
        while not self._words[_PUTS] and self._nap():
            if not self._words[_PUTS] and self._lane.send(packet, _PLAIN):
                return
        self._lock.run(self._add, packet, _PLAIN)

    def _put_closer(self, body: Buffer, buffers: Sequence[Buffer], timeout: float | None) -> None:
        """Put when it is not just one packet into a lane that anybody may use."""
        deadline = None if timeout is None else _deadline(timeout)
        if len(body) + sum(map(len, buffers)) > _LONGEST_LOGGED:
            self._put_large(body, buffers, deadline)
            return
        packet, kind = (frame(body, buffers), _FRAMED) if buffers else (bytes(body), _PLAIN)
        if not self._lock.run(self._add, packet, kind):
            self._put_with_limit(lambda: self._lock.run(self._add, packet, kind), deadline)
        if self._words[_PUTS] & _LOGGED and not self._words[_SLEEPING]:
            self._nap()

    def _put_large(self, body: Buffer, buffers: Sequence[Buffer], deadline: float | None) -> None:
        """Put a message that is not to be copied while others wait for the mailbox's lock."""
        if self._words[_LEASING] and buffers and self._shelves is not None:
            from procession._shelves import LONGEST_BODY, AllLent

            if len(body) <= LONGEST_BODY:
                try:
                    self._put_with_limit(
                        lambda: self._writing.run(self._put_on_shelf, body, buffers, deadline),
                        deadline,
                    )
                    return
                except AllLent as lent:
                    # Not in there: the warning may run any code, and may be made an error.
                    self._starved = True
                    _warn_of_leases(lent)
        self._put_with_limit(
            lambda: self._writing.run(self._spool_up, body, buffers, deadline), deadline
        )

    def _put_on_shelf(
        self, body: Buffer, buffers: Sequence[Buffer], deadline: float | None
    ) -> bool:
        """Copy a message to a shelf, or else to the spool, and add its token; as `_spool_up`.

        Raises `AllLent` if nobody was warned of that yet.
        """
        from procession._shelves import AllLent, space_for

        shelves = self._shelves
        assert shelves is not None
        ledger = self._lock.run(self._look_for_room)
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
        return self._lock.run(self._add, token, _SHELVED)

    def _look_for_room(self) -> Ledger | None:
        """Return the ledger, with the lock held, if there is room for a message."""
        ledger = self._state.load()
        self._check_open(ledger)
        return None if self._is_full(ledger) else ledger

    def reserve(self, size: int, /) -> memoryview | None:
        """See `Mailbox.reserve`."""
        return None if self._shelves is None else self._writing.run(self._reserve, size)

    def _reserve(self, size: int) -> memoryview | None:
        from procession._shelves import AllLent

        shelves = self._shelves
        assert shelves is not None
        try:
            shelf = shelves.find(self._state.load().shelved, size)
            return None if shelf is None else shelves.lend(shelf, size)
        except (AllLent, OSError):
            return None

    def put_reserved(
        self, body: Buffer, memory: memoryview, /, *, timeout: float | None = None
    ) -> None:
        """See `Mailbox.put_reserved`."""
        from procession._shelves import token_of

        self._puts_here = True
        exporter: Any = memory.obj
        token = token_of(exporter.shelf, body, [len(memory)])
        # Who looks for a free shelf must not see it neither waiting nor held.
        self._put_with_limit(
            lambda: self._writing.run(self._lock.run, self._add, token, _SHELVED),
            _deadline(timeout),
        )
        if self._words[_SLEEPING]:
            self._words[_SLEEPING] = 0
            self._wake.ring()

    @property
    def _shelves(self) -> Shelves | None:
        """The shelves; None where there are none."""
        shelves = self._shelves_here
        if shelves is None and self._spool.base == _SPOOL:
            from procession._shelves import Shelves

            shelves = self._shelves_here = Shelves(self._fd, self._lane.copy)
        return shelves

    def _spool_up(self, body: Buffer, buffers: Sequence[Buffer], deadline: float | None) -> bool:
        """Copy a message into the spool and add its token; False when there is no room."""
        size = len(body) + sum(map(len, buffers))
        worth = size // _BYTES_OF_WORTH
        # Waiting for longer than it saves would be a loss, however quick getters are.
        until = time.monotonic() + worth * REWARD
        if deadline is not None:
            until = min(until, deadline)
        while True:
            found = self._lock.run(self._find_place, size)
            if found is None:
                return False
            place, memory_end = found
            # Memory that was used before is worth waiting for, as long as getters are quick.
            if (
                self._spool.is_inside(place)
                or size > self._spool.window // 2
                or time.monotonic() >= until
                or not self._nap(worth)
            ):
                break
        # The lock is free again; only that place is ours.
        token = self._spool.write(place, body, buffers, memory_end=memory_end)
        return self._lock.run(self._add, token, _SPOOLED)

    def _find_place(self, size: int) -> tuple[int, int] | None:
        ledger = self._state.load()
        self._check_open(ledger)
        if self._is_full(ledger):
            return None
        place = self._spool.find(ledger, size)
        self._state.commit(ledger)
        return place, ledger.window_end

    def _add(self, packet: bytes, kind: int) -> bool:
        """Add a message with the lock held; return whether there was room for it."""
        ledger = self._state.load()
        self._check_open(ledger)
        if self._is_full(ledger):
            return False
        fits = kind < _SPOOLED and len(packet) <= self._lane.limit
        if fits and not ledger.logged and self._lane.send(packet, kind):
            self._correct_marks(ledger)
            return True
        self._log.append(ledger, packet, kind)
        if kind == _SPOOLED:
            self._spool.add(ledger, packet)
        elif kind == _SHELVED:
            from procession._shelves import shelf_of

            ledger.shelved |= 1 << shelf_of(packet)
        self._correct_marks(ledger)
        self._state.commit(ledger)
        return True

    def _check_open(self, ledger: Ledger) -> None:
        if ledger.shut != OPEN:
            raise ShutDown("the queue was shut down")

    def _is_full(self, ledger: Ledger) -> bool:
        """Return whether `maxsize` is reached."""
        return 0 < self.maxsize <= self._lane.pending() + ledger.logged

    def _put_with_limit(self, add: Callable[[], bool], deadline: float | None) -> None:
        """Wait until *add* finds room; raise `Full` at *deadline*. Like `_get_closer`."""
        if add() or (_left(deadline) > NAP and self._nap() and add()):
            return
        if _left(deadline) <= 0:
            raise Full
        assert self._room is not None
        watch: MailboxWatch | None = None
        try:
            while True:
                # Whoever takes a message after this rings; who took one before it made
                # room for this try.
                self._words[_FULL] = 1
                if add():
                    return
                left = _left(deadline)
                if left <= 0:
                    raise Full
                if sleep(self._room.wait, left, watch):
                    self._room.silence()
                    if add() or (_left(deadline) > NAP and self._nap() and add()):
                        return
                elif deadline is None:
                    watch = self._look(watch, self._gets_here)
                    if watch.deaths:
                        if add():
                            return
                        raise died_while_sending(FULL, watch.deaths)
        finally:
            # One ring is for one of those who wait: the next looks for itself.
            if not self.closed:
                self._room.ring()

    def _ring_for_room(self) -> None:
        """Wake a putter that waits for room."""
        assert self._room is not None
        self._words[_FULL] = 0
        self._room.ring()

    def _nap(self, worth: int = 1) -> bool:
        """Let the getters catch up, if that is worth it; return whether we slept.

        A message that they take is *worth* as much as so many small ones.
        """
        begun = time.monotonic()
        if not self._patience.allows(begun):
            return False
        before = self._state.load().taken, self._lane.pending()
        time.sleep(NAP)
        taken = self._state.load().taken - before[0]
        now = time.monotonic()
        taken = max(taken, before[1] - self._lane.pending())
        self._patience.record(now, now - begun, worth * taken)
        return True

    # -- getting

    def get(self, *, timeout: float | None = None) -> Message:
        """See `Mailbox.get`."""
        self._gets_here = True
        if not self._words[_GETS]:
            packet = self._receive()
            if packet is not None:
                if self._words[_FULL]:
                    self._ring_for_room()
                return unframe(packet[0]) if packet[1] else (packet[0], ())
        return self._get_closer(timeout)

    def get_pickle(self, *, timeout: float | None = None) -> Message:
        """See `Mailbox.get_pickle`."""
        self._gets_here = True
        if not self._words[_GETS]:
            padded = self._lane.receive_padded()
            if padded is not None:
                if self._words[_FULL]:
                    self._ring_for_room()
                return (padded, ()) if padded[-1] < _FIRST_FRAMED else unframe(padded)
        return self._get_closer(timeout)

    def get_leased(self, *, timeout: float | None = None) -> Message:
        """See `Mailbox.get_leased`."""
        self._words[_LEASING] = 1
        self._gets_here = True
        return self._get_closer(timeout, lease=True)

    def get_many(self, most: int, /, *, timeout: float | None = None) -> list[Message]:
        """See `Mailbox.get_many`."""
        if not self._words[_GETS] and most > 1:
            packets = self._lane.receive_many(most)
            if packets:
                self._gets_here = True
                if self._words[_FULL]:
                    self._ring_for_room()
                return [
                    (padded, ()) if padded[-1] < _FIRST_FRAMED else unframe(padded)
                    for padded in packets
                ]
        return super().get_many(most, timeout=timeout)

    def _get_closer(self, timeout: float | None, *, lease: bool = False) -> Message:
        """Get when the lane is empty, or not the only thing to look at."""
        deadline = _deadline(timeout)
        message = self._try(deadline, lease)
        if message is not None:
            return message
        if _left(deadline) <= 0:
            raise Empty
        watch: MailboxWatch | None = None
        try:
            while True:
                # Whoever puts after this rings; who put before it is seen by the try.
                self._words[_SLEEPING] = 1
                message = self._try(deadline, lease)
                if message is not None:
                    return message
                left = _left(deadline)
                if left <= 0:
                    raise Empty
                if watch is not None and watch.deaths:
                    raise died_while_receiving(EMPTY, watch.deaths)
                if sleep(self._wake.wait, left, watch):
                    self._wake.silence()
                elif deadline is None:
                    watch = self._look(watch, self._puts_here)
        finally:
            self._pass_on()

    def _look(self, watch: MailboxWatch | None, served: bool) -> MailboxWatch:
        """Look, after a second in which nothing happened, whether anything still can."""
        if watch is None:
            self._lock.run(self._roster.place)
            watch = MailboxWatch(self._fd, self._roster, self._made)
        watch.look(served=served)
        return watch

    def _pass_on(self) -> None:
        """Wake the next sleeping getter if there is something for it.

        One getter is woken for many puts, as the first that sleep ends is the one that
        notices; and one that gives up must not keep a ring that was meant for others.
        """
        if self.closed:
            return
        if self._words[_GETS] & _SHUT or self.size():
            self._wake.ring()
        else:
            self._words[_SLEEPING] = 1

    def _try(self, deadline: float | None, lease: bool) -> Message | None:
        """Take a message if there is one; with *lease*, look at a large one where it lies."""
        # The puts' mark may be there alone, when somebody was killed.
        if (self._words[_GETS] | self._words[_PUTS]) & (_LOGGED | _SHUT | _COUNTED):
            packet = self._lock.run(self._take)
        else:
            packet = self._lane.receive()
        if packet is not None and packet[1] >= _SPOOLED:
            return self._take_large(deadline, lease)
        return self._open(packet)

    def _open(self, packet: tuple[bytes, int] | None) -> Message | None:
        """Return the message in a packet that was taken, after making its room known."""
        if packet is None:
            return None
        if self._words[_FULL]:
            self._ring_for_room()
        return unframe(packet[0]) if packet[1] else (packet[0], ())

    def _take(self) -> tuple[bytes, int] | None:
        """Take the first packet, with the lock held; a large message's token is only looked at."""
        ledger = self._state.load()
        if ledger.shut == DROPPED:
            raise ShutDown("the queue was shut down")
        # Whatever is in the lane is older than the log, for each producer.
        packet = self._lane.receive()
        if packet is not None:
            if self._joinable:
                self._roster.count(1)
                ledger.taken += 1
                self._state.commit(ledger)
            return packet
        if not ledger.logged:
            self._correct_marks(ledger)
            if ledger.shut != OPEN:
                raise ShutDown("the queue was shut down")
            return None
        packet = self._log.first(ledger)
        if packet[1] < _SPOOLED:
            self._drop_first(ledger, packet[0])
        return packet

    def _drop_first(self, ledger: Ledger, packet: bytes) -> None:
        """Commit that the log's first record was taken."""
        self._log.drop(ledger, packet)
        if self._joinable:
            self._roster.count(1)
        ledger.taken += 1
        self._state.commit(ledger)
        if self._log.has_garbage(ledger):
            self._log.reclaim(ledger)
            self._state.commit(ledger)
        if not ledger.logged:
            self._correct_marks(ledger)

    def _take_large(self, deadline: float | None, lease: bool) -> Message | None:
        """Take the first message, a large one; None when another getter was faster.

        While we copy, the message is still there for all who look: should we be killed,
        the next getter takes it.
        """
        try:
            return self._reading.run_within(deadline, self._copy_large, lease)
        except BlockingIOError:
            return None

    def _copy_large(self, lease: bool) -> Message | None:
        packet = self._lock.run(self._take)
        if packet is None or packet[1] < _SPOOLED:
            return self._open(packet)
        token, kind = packet
        if kind == _SPOOLED:
            message = self._spool.read(token)
        else:
            shelves = self._shelves
            assert shelves is not None
            message = shelves.read(token, lease=lease)
        self._lock.run(self._finish_large, token, kind)
        if self._words[_FULL]:
            self._ring_for_room()
        return message

    def _finish_large(self, token: bytes, kind: int) -> None:
        """Commit that the message of *token*, still the log's first, was taken."""
        ledger = self._state.load()
        if ledger.shut == DROPPED:
            raise ShutDown("the queue was shut down")
        if kind == _SHELVED:
            from procession._shelves import shelf_of

            ledger.shelved &= ~(1 << shelf_of(token))
            self._drop_first(ledger, token)
            return
        self._spool.remove(ledger, token)
        self._drop_first(ledger, token)
        self._spool.reclaim(ledger)
        self._state.commit(ledger)

    # -- both

    def size(self) -> int:
        """See `Mailbox.size`."""
        for _ in range(_TRIES):
            version = self._state.version()
            size = self._count()
            # If nothing was committed, the log had this many when the kernel counted.
            if self._state.version() == version:
                return size
        return self._lock.run(self._count)

    def _count(self) -> int:
        ledger = self._state.load()
        return 0 if ledger.shut == DROPPED else self._lane.pending() + ledger.logged

    def shutdown(self, *, immediate: bool = False) -> None:
        """See `Mailbox.shutdown`."""
        self._lock.run(self._shut, DROPPED if immediate else DRAINING)
        for bell in (self._wake, self._room, self._settled):
            if bell is not None:
                bell.ring()

    def _shut(self, how: int) -> None:
        ledger = self._state.load()
        ledger.shut = max(ledger.shut, how)
        if how == DROPPED:
            self._log.clear(ledger)
            self._spool.clear(ledger)
            ledger.shelved = 0
            ledger.done = min(ledger.done, ledger.taken)
        self._correct_marks(ledger)
        self._state.commit(ledger)
        if how == DROPPED:
            # Only now: one killed in between has dropped everything, or nothing.
            while self._lane.receive() is not None:
                pass
            self._log.reclaim(ledger)
            self._spool.give_all_back()
            self._state.commit(ledger)

    def _correct_marks(self, ledger: Ledger) -> None:
        """Make hot words and bell agree with *ledger*; the lock is held.

        What makes others look closer is marked before it is committed, and the marks are
        taken away after. So a process killed in between leaves marks that are there in
        vain: they cost time, and whoever follows them comes here. The mark for gets is
        the last to be made and the first to go, so that if it is there all of it is.
        """
        words = self._words
        why = (_LOGGED if ledger.logged else 0) | (_SHUT if ledger.shut else 0)
        gets, puts = words[_GETS], words[_PUTS]
        if gets & (_LOGGED | _SHUT) == why == puts & (_LOGGED | _SHUT):
            return
        others = ~(_LOGGED | _SHUT)
        if why:
            words[_PUTS] = puts & others | why
            self._logged_bell.ring()
            words[_GETS] = gets & others | why
        else:
            words[_GETS] = gets & others
            self._logged_bell.silence()
            words[_PUTS] = puts & others

    # -- counting

    def task_done(self) -> None:
        """See `Mailbox.task_done`."""
        if self._settled is None:
            raise ValueError("task_done() called too many times: nothing is counted here")
        if self._lock.run(self._count_done) == 0:
            self._settled.ring()

    def _count_done(self) -> int:
        """Count one message as done and return how many are not."""
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

    def join(self, timeout: float | None = None, /) -> bool:
        """See `Mailbox.join`."""
        if self._settled is None:
            raise ValueError("a mailbox that was not made joinable cannot be joined")
        deadline = _deadline(timeout)
        watch: MailboxWatch | None = None
        while not self._lock.run(self._is_settled):
            left = _left(deadline)
            if left <= 0:
                return False
            if watch is not None and watch.deaths:
                raise died_while_receiving(UNDONE, watch.deaths)
            if not sleep(self._settled.wait_with_others, left, watch) and deadline is None:
                watch = self._look(watch, self._gets_here)
                if not watch.deaths:
                    watch.look_for_undone(self._lock.run(self._undone))
        return True

    def _undone(self) -> dict[int, int]:
        """Return who has taken what is undone; nobody as long as there is more to take."""
        return {} if self._count() else self._roster.undone()

    def _is_settled(self) -> bool:
        """Return whether all is done; if not, the bell is silent until it is."""
        assert self._settled is not None
        ledger = self._state.load()
        if self._unfinished(ledger) <= 0:
            return True
        self._settled.silence()
        return False

    # -- descriptors

    def fileno(self) -> int:
        """See `Mailbox.fileno`.

        Readable, too, when the mailbox is shut down. It is made when it is first asked
        for, and a lane that somebody waits on in this way is slower for everybody.
        """
        return self._lock.run(self._open_poll)

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
            handoff.give(self._fd),
            self.maxsize,
            self._spool.base,
            *(
                None if bell is None else bell.export(handoff)
                for bell in (self._wake, self._logged_bell, self._room, self._settled)
            ),
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
        self.closed = True
        self._lock_file.close()
        self._wake.ring()
        self._lane.close()
        for bell in (self._wake, self._logged_bell, self._room, self._settled):
            if bell is not None:
                bell.close()
        if sys.platform == "linux" and self._poll is not None:
            self._poll.close()
        self._spool.close()
        if self._shelves_here is not None:
            self._shelves_here.close()
        self._state.close()
        os.close(self._fd)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        # A constructor that ran out of descriptors has closed what it had.
        if not getattr(self, "closed", True):
            self.close()


def _warn_of_leases(lent: AllLent) -> None:
    """Warn whoever puts that leases keep all the memory there is for them."""
    import warnings

    from procession.errors import LeaseWarning

    who = ", ".join(f"{each.process!r} (pid {each.pid})" for each in lent.holders)
    warnings.warn(
        f"a queue has no memory to lend for an object of {lent.wanted >> 10} KiB: leases keep "
        f"{lent.size >> 10} of {lent.most >> 10} KiB. They are held by "
        f"{who or 'unknown processes'}, or processes forked from there. Until some of them end "
        f"(del what get(lease=True) has returned and put_empty has given), large objects are "
        f"copied, which is slower",
        LeaseWarning,
        stacklevel=6,  # who has called `put` of the queue
    )


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(deadline: float | None) -> float:
    """Return how long to sleep now, zero or less when the time is over."""
    if deadline is None:
        return _LONGEST_SLEEP
    return min(deadline - time.monotonic(), _LONGEST_SLEEP)
