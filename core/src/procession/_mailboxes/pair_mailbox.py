"""A mailbox on a pair of channels: what a transport gets that offers nothing better."""

from __future__ import annotations

import mmap
import os
import sys
import time

from procession._contracts.mailbox import Mailbox
from procession._ground.anonymous_file import anonymous_file
from procession._ground.bell import Bell
from procession._ground.file_lock import LockFile
from procession._ground.waiting import wait_for_any
from procession._mailboxes import card, roster
from procession._mailboxes.mailbox_watch import EMPTY, FULL, UNDONE, MailboxWatch, sleep
from procession._mailboxes.vigil import died_while_receiving, died_while_sending
from procession._messages.pieces import Assembly, cut
from procession.errors import BrokenConnectionError, Empty, Full, ShutDown

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from procession._contracts.channel import Buffer, Channel, Message
    from procession._ground.handoff import Handoff, Recipe, Takeover

_OWN_SIZE = 4096
_SIZE = _OWN_SIZE + roster.SIZE
# Positions of numbers in the first page; the roster has the second. Each is written by the
# holder of one lock: the first two by the sender, the next two by the receiver, two by the
# keeper; anybody who finds the pair broken sets the last one.
_PUT, _SENDING, _TAKEN, _RECEIVING, _DONE, _SHUT, _BROKEN = range(7)
_OPEN, _DRAINING, _DROPPED = 0, 1, 2

# So that nobody who waits is left behind by somebody killed before ringing a bell.
_LONGEST_SLEEP = 1.0
# How often somebody in the middle of a message looks whether the others are; no bell is
# rung for a piece.
_LONGEST_PAUSE = 0.05


class PairMailbox(Mailbox):
    """A mailbox made of a one-way pair of channels, and of locks that the kernel releases.

    Every process holds both ends; one at a time sends and one at a time receives. It
    works on any transport and promises less than a mailbox on a lane of packets:

    * `put` blocks while the pair is full, with or without a timeout: that limits only
      how long it waits for a `maxsize`. A transport's pair holds what it holds, also
      when the mailbox has no maxsize.
    * A process killed *while it sends or receives* may leave half a message in the
      pair. Nobody can know, so as soon as somebody comes to it, every put and get in
      every process raises `BrokenConnectionError`, saying so; no message is wrong.
      Killed at any other moment it harms nothing. The same goes for a signal handler
      that raises in the middle of a message.
    * A `put` that waits for room in the pair, and not for a *maxsize*, notices that all who
      could make room have died only if no other process is about to put something.
    * `get` may exceed its timeout by the time that a message takes to arrive, once its
      first piece is there.

    Nobody is blocked in the channel itself, where nothing could end it: messages go through
    in pieces (`procession._messages.pieces`), each sent when there is room and received when it is
    there. Only a channel that cannot tell whether it has room, or that may take a part of a
    piece when its sender is killed, can still block; pipes and sockets can not. The price is
    some microseconds for every piece: megabytes go through at a fifth of the speed or less.

    Sizes and counts are exact unless it is broken. Owns the channels and its descriptors.
    """

    __slots__ = (
        "_bell",
        "_fd",
        "_gets_here",
        "_joinable",
        "_keeping",
        "_lock_file",
        "_made",
        "_map",
        "_puts_here",
        "_reader",
        "_receiving",
        "_room",
        "_roster",
        "_sending",
        "_settled",
        "_words",
        "_writer",
        "closed",
        "maxsize",
    )

    def __init__(
        self, reader: Channel, writer: Channel, *, maxsize: int = 0, joinable: bool = False
    ) -> None:
        """Make a new mailbox on a pair, which is taken over, also after an error."""
        self.closed = True  # nothing to close for __del__ until it is complete
        fd = -1
        bells: list[Bell] = []
        try:
            fd = anonymous_file("procession-mailbox", bytes(_SIZE))
            for _ in range(3):
                bells.append(Bell())
            self._assemble(reader, writer, fd, bells, maxsize, joinable)
            card.write(
                fd,
                "pair",
                maxsize=maxsize,
                lane=card.identity(reader.fileno()),
                room=card.identity(self._room.fileno()),
                settled=card.identity(self._settled.fileno()),
            )
        except BaseException:
            self.closed = True
            _close_all(reader, writer, bells, fd)
            raise

    def _assemble(
        self,
        reader: Channel,
        writer: Channel,
        fd: int,
        bells: Sequence[Bell],
        maxsize: int,
        joinable: bool,
    ) -> None:
        self._map = mmap.mmap(fd, _SIZE)
        self._words = memoryview(self._map).cast("Q")
        self._reader, self._writer = reader, writer
        self._fd = fd
        self._lock_file = LockFile(fd)
        # Whoever wants two of them takes them in this order.
        self._sending = self._lock_file.lock(1)
        self._receiving = self._lock_file.lock(2)
        self._keeping = self._lock_file.lock(0)
        # Rung at shutdown, and when somebody broke the pair; for room; for `join`.
        self._bell, self._room, self._settled = bells
        self.maxsize = maxsize
        self._joinable = joinable
        # For waits without limit: which processes wait and take, and what this one has done.
        self._roster = roster.Roster(self._words[_OWN_SIZE // 8 :])
        self._made = time.monotonic()
        self._puts_here = self._gets_here = False
        self.closed = False

    def put(
        self, body: Buffer, buffers: Sequence[Buffer] = (), /, *, timeout: float | None = None
    ) -> None:
        """See `Mailbox.put`, and the class for what is different."""
        self._puts_here = True
        deadline = _deadline(timeout)
        watch: MailboxWatch | None = None
        while not self._sending.run(self._send, body, buffers):
            left = _left(deadline)
            if left <= 0:
                raise Full
            if watch is not None and watch.deaths:
                raise died_while_sending(FULL, watch.deaths)
            if not sleep(self._room.wait_with_others, left, watch) and deadline is None:
                watch = self._look(watch, self._gets_here)

    def _look(self, watch: MailboxWatch | None, served: bool) -> MailboxWatch:
        """Look, after a second in which nothing happened, whether anything still can."""
        if watch is None:
            self._keeping.run(self._roster.place)
            watch = MailboxWatch(self._fd, self._roster, self._made)
        watch.look(served=served)
        return watch

    def _send(self, body: Buffer, buffers: Sequence[Buffer]) -> bool:
        """Send a message if *maxsize* allows; the lock for sending is held."""
        words = self._words
        self._check_sending(words[_SENDING])
        if self.maxsize and self.size() >= self.maxsize:
            self._room.silence()
            if self.size() >= self.maxsize:
                return False
        pieces = cut(body, buffers)
        first = next(pieces)
        self._await_room(len(first))
        # Counted first: a getter must not take what was not put yet.
        self._keeping.run(self._count_put)
        try:
            self._writer.send(first)
        except BaseException:
            if not self._writer.closed:  # nothing of it was written
                words[_PUT] -= 1
                words[_SENDING] = 0
            raise
        for piece in pieces:
            self._await_room(len(piece))
            self._writer.send(piece)
        words[_SENDING] = 0
        return True

    def _count_put(self) -> None:
        """Begin a message that no shutdown has come before; the keeper's lock is held."""
        self._check_sending(0)
        self._words[_SENDING] = 1
        self._words[_PUT] += 1

    def _check_sending(self, broken: int) -> None:
        """Refuse to begin a message, or to go on with one that nobody would receive."""
        words = self._words
        if words[_SHUT] == _DROPPED:
            raise ShutDown("the queue was shut down")
        self._check_whole(broken or words[_BROKEN])
        if words[_SHUT] and not words[_SENDING]:
            raise ShutDown("the queue was shut down")

    def _await_room(self, length: int) -> None:
        """Wait until the pair has room for a piece of *length* bytes; the lock is held."""

        def wait(seconds: float) -> bool:
            return self._writer.wait_for_room(length, seconds)

        watch: MailboxWatch | None = None
        next_look = time.monotonic() + _LONGEST_SLEEP
        while not sleep(wait, _LONGEST_PAUSE, watch):
            self._check_sending(0)
            if time.monotonic() >= next_look:
                watch = self._look(watch, self._gets_here)
                if watch.deaths:
                    raise died_while_sending(FULL, watch.deaths)
                next_look = time.monotonic() + _LONGEST_SLEEP

    def get(self, *, timeout: float | None = None) -> Message:
        """See `Mailbox.get`, and the class for what is different."""
        self._gets_here = True
        deadline = _deadline(timeout)
        watch: MailboxWatch | None = None
        while True:
            try:
                message = self._receiving.run_within(deadline, self._receive)
            except BlockingIOError:
                raise Empty from None
            if message is not None:
                if self.maxsize:
                    self._room.ring()
                return message
            left = _left(deadline)
            if left <= 0:
                raise Empty
            if watch is not None and watch.deaths:
                raise died_while_receiving(EMPTY, watch.deaths)
            if not sleep(self._wait, left, watch) and deadline is None:
                watch = self._look(watch, self._puts_here)

    def _wait(self, seconds: float) -> bool:
        return bool(wait_for_any((self._reader.fileno(), self._bell.fileno()), seconds))

    def _receive(self) -> Message | None:
        """Receive a message if one is there; the lock for receiving is held."""
        words = self._words
        shut = words[_SHUT]
        if shut == _DROPPED:
            raise ShutDown("the queue was shut down")
        self._check_whole(words[_RECEIVING] or words[_BROKEN])
        if shut and not self.size():
            raise ShutDown("the queue was shut down")
        if words[_SENDING] and self.size() <= 1:
            # All that is there, if anything, is the message of somebody who is sending.
            self._check_whole(self._is_abandoned())
        if not self._reader.wait(0):
            return None
        words[_RECEIVING] = 1
        message = Assembly()
        try:
            self._add_piece(message)
        except BaseException:
            if not self._reader.closed and not message.begun:
                words[_RECEIVING] = 0
            raise
        while (body := message.body()) is None:
            self._await_piece()
            self._add_piece(message)
        if self._joinable:
            self._keeping.run(self._roster.count, 1)
        words[_TAKEN] += 1
        words[_RECEIVING] = 0
        return body, ()

    def _add_piece(self, message: Assembly) -> None:
        """Receive the next piece, which is there, and is not if a handler's error lost one."""
        piece, _ = self._reader.receive()
        if not message.add(piece):
            self._check_whole(1)

    def _await_piece(self) -> None:
        """Wait for the next piece of a message; the lock for receiving is held."""
        while not self._reader.wait(_LONGEST_PAUSE):
            if self._words[_SHUT] == _DROPPED:
                raise ShutDown("the queue was shut down")
            self._check_whole(self._words[_BROKEN] or self._is_abandoned())

    def _is_abandoned(self) -> bool:
        """Return whether nobody is sending, although the page says so."""
        try:
            # Read with the lock held: the next sender sets it as soon as the lock is free.
            return bool(self._sending.run_within(time.monotonic(), lambda: self._words[_SENDING]))
        except BlockingIOError:
            return False

    def _check_whole(self, broken: int) -> None:
        """Refuse to go on when the last holder of a lock left a message unfinished."""
        if broken:
            self._words[_BROKEN] = 1
            self._ring_all()
            raise BrokenConnectionError(
                "a process was killed or interrupted in the middle of a message of this queue, and "
                "its transport cannot tell how much of it went through; choose a transport with "
                "atomic messages (pipe, socketpair)"
            )

    def size(self) -> int:
        """See `Mailbox.size`."""
        words = self._words
        if words[_SHUT] == _DROPPED:
            return 0
        # In this order: what is put in between makes it larger, never negative.
        taken = words[_TAKEN]
        return words[_PUT] - taken

    def shutdown(self, *, immediate: bool = False) -> None:
        """See `Mailbox.shutdown`."""
        how = _DROPPED if immediate else _DRAINING
        self._keeping.run(self._shut, how)
        self._ring_all()

    def _ring_all(self) -> None:
        for bell in (self._bell, self._room, self._settled):
            bell.ring()

    def _shut(self, how: int) -> None:
        self._words[_SHUT] = max(self._words[_SHUT], how)

    def task_done(self) -> None:
        """See `Mailbox.task_done`."""
        if not self._joinable:
            raise ValueError("task_done() called too many times: nothing is counted here")
        if self._keeping.run(self._count_done) <= 0:
            self._settled.ring()

    def _count_done(self) -> int:
        unfinished = self._unfinished()
        if unfinished <= 0:
            raise ValueError("task_done() called too many times")
        self._words[_DONE] += 1
        self._roster.count(-1)
        return unfinished - 1

    def _unfinished(self) -> int:
        words = self._words
        done = words[_DONE]
        # What an immediate shutdown dropped will not be done by anybody.
        return (words[_TAKEN] if words[_SHUT] == _DROPPED else words[_PUT]) - done

    def join(self, timeout: float | None = None, /) -> bool:
        """See `Mailbox.join`."""
        if not self._joinable:
            raise ValueError("a mailbox that was not made joinable cannot be joined")
        deadline = _deadline(timeout)
        watch: MailboxWatch | None = None
        while not self._keeping.run(self._is_settled):
            left = _left(deadline)
            if left <= 0:
                return False
            if watch is not None and watch.deaths:
                raise died_while_receiving(UNDONE, watch.deaths)
            if not sleep(self._settled.wait_with_others, left, watch) and deadline is None:
                watch = self._look(watch, self._gets_here)
                if not watch.deaths:
                    watch.look_for_undone(self._keeping.run(self._undone))
        return True

    def _undone(self) -> dict[int, int]:
        """Return who has taken what is undone; nobody as long as there is more to take."""
        return {} if self.size() else self._roster.undone()

    def _is_settled(self) -> bool:
        """Return whether all is done; if not, the bell is silent until it is."""
        if self._unfinished() <= 0:
            return True
        self._check_whole(self._words[_BROKEN])
        self._settled.silence()
        return False

    def fileno(self) -> int:
        """See `Mailbox.fileno`. A shutdown does not make it readable."""
        return self._reader.fileno()

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        return (
            (type(self._reader), self._reader.export(handoff)),
            (type(self._writer), self._writer.export(handoff)),
            handoff.give(self._fd),
            [bell.export(handoff) for bell in (self._bell, self._room, self._settled)],
            self.maxsize,
            self._joinable,
        )

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        ends, token, bell_recipes, maxsize, joinable = recipe[:2], *recipe[2:]
        channels: list[Channel] = []
        bells: list[Bell] = []
        fd = -1
        self = cls.__new__(cls)
        self.closed = True
        try:
            for kind, end in ends:
                channels.append(kind.attach(end, takeover))
            fd = takeover.take(token)
            for bell_recipe in bell_recipes:
                bells.append(Bell.attach(bell_recipe, takeover))
            self._assemble(channels[0], channels[1], fd, bells, maxsize, joinable)
        except BaseException:
            for channel in channels:
                channel.close()
            _close_all(None, None, bells, fd)
            raise
        return self

    def close(self) -> None:
        """See `Mailbox.close`."""
        if self.closed:
            return
        self.closed = True
        self._lock_file.close()
        self._roster.close()
        self._words.release()
        self._map.close()
        _close_all(self._reader, self._writer, (self._bell, self._room, self._settled), self._fd)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        if not getattr(self, "closed", True):
            self.close()


def _close_all(
    reader: Channel | None, writer: Channel | None, bells: Sequence[Bell], fd: int
) -> None:
    for channel in (reader, writer):
        if channel is not None:
            channel.close()
    for bell in bells:
        bell.close()
    if fd >= 0:
        os.close(fd)


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(deadline: float | None) -> float:
    """Return how long to sleep now, zero or less when the time is over."""
    if deadline is None:
        return _LONGEST_SLEEP
    return min(deadline - time.monotonic(), _LONGEST_SLEEP)
