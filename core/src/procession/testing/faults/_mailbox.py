"""A mailbox of which the messages stay in memory."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections import Counter
from queue import Empty, Full
from typing import TYPE_CHECKING

from procession._mailboxes.mailbox_watch import EMPTY, FULL, UNDONE
from procession._mailboxes.vigil import died_while_receiving, died_while_sending
from procession._processes.relatives import identities, relatives
from procession.errors import ShutDown
from procession.plugin import Mailbox
from procession.testing.faults._flow import LOOK_SECONDS, Flow, Item
from procession.testing.faults._home import Home
from procession.testing.faults._life import (
    MAIN,
    SIGKILL,
    Killed,
    Life,
    changed,
    current,
    lives,
    threads,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from procession._processes.relatives import Death
    from procession.plugin import Buffer, Handoff, Message, Recipe, Takeover

_OPEN, _DRAINING, _DROPPED = range(3)


class Box(Home):
    """The state of a mailbox, whoever has it open."""

    flow: Flow

    def __init__(self, maxsize: int, joinable: bool) -> None:
        super().__init__(Flow(mixes=True))
        self.maxsize = maxsize
        self.joinable = joinable
        self.shut = _OPEN
        self.made = time.monotonic()
        #: How many messages were put, or taken by whom, and not counted as done.
        self.unfinished = 0
        self.taken: Counter[Life] = Counter()
        #: Who has put something, and who has taken something, and may again in another thread.
        self.putters: set[Life] = set()
        self.takers: set[Life] = set()
        #: Who has it open, and who of them waits in it, how often.
        self.holders: Counter[Life] = Counter()
        self.asleep: Counter[Life] = Counter()

    def is_full(self) -> bool:
        """Return whether a message has to wait for room."""
        return bool(self.maxsize) and len(self.flow.items) >= self.maxsize

    def is_shut(self) -> bool:
        """Return whether nothing more will come."""
        return self.shut == _DROPPED or (self.shut == _DRAINING and not self.flow.items)

    def refresh(self, fd: int = -1) -> None:
        """Show what there is to be received."""
        self.show(self.flow.has_arrived(), fd)

    def is_left_alone(self, life: Life, served: set[Life]) -> bool:
        """Return whether *life* waits, and nobody is left who could end that.

        *served* are those who have done before what would end it. Only `MAIN` can know: a child
        is not told how its siblings end, and what may be on its way to one may come to anybody.
        """
        if life is not MAIN or any(each.is_starting for each in lives):
            return False
        if life in served and threading.active_count() - 1 > sum(t.is_alive() for t in threads):
            return False
        return all(holder is life or self.asleep[holder] for holder in +self.holders)


class MemoryMailbox(Mailbox):
    """A mailbox, as one process has it open. *fd* is taken over. Threads: any."""

    closed = True  # until there is something to close

    def __init__(self, box: Box, fd: int) -> None:
        self._box = box
        self._fd = fd
        self._life = current()
        self.maxsize = box.maxsize
        self.closed = False
        box.holders[self._life] += 1
        self._life.hold(self)

    @classmethod
    def make(cls, maxsize: int, joinable: bool) -> MemoryMailbox:
        """Return a new one. Raises `OSError` when descriptors have run out."""
        with changed:
            box = Box(maxsize, joinable)
            return cls(box, box.first)

    def put(
        self, body: Buffer, buffers: Sequence[Buffer] = (), /, *, timeout: float | None = None
    ) -> None:
        """See `Mailbox.put`."""
        with changed:
            box, life = self._box, self._life
            self._check_open()
            self._await(self._has_room, timeout, Full, FULL, box.takers)
            if box.shut:
                raise ShutDown("the queue was shut down")
            cut, seconds = box.flow.number(life)
            if cut is not None:
                raise ValueError(
                    f"message {cut.message} of {life.name!r} goes into a queue, and a queue cannot "
                    f"be cut; name the end of a connection in the script"
                )
            if life.death_in_message() is not None:
                life.end(-SIGKILL)
                raise Killed
            box.flow.items.append(Item(life, body, buffers, seconds))
            box.unfinished += 1
            box.putters.add(life)
            box.refresh()
            changed.notify_all()
            life.count_message()

    def _has_room(self) -> bool:
        return bool(self._box.shut) or not self._box.is_full()

    def get(self, *, timeout: float | None = None) -> Message:
        """See `Mailbox.get`."""
        with changed:
            box, life = self._box, self._life
            self._check_open()
            while (found := self._sleep_until_message(timeout)) is None:
                self._give_up(EMPTY)
            self._check_open()
            if not found:
                raise Empty
            if box.is_shut():
                raise ShutDown("the queue was shut down")
            item = box.flow.take()
            box.taken[life] += 1
            box.takers.add(life)
            box.refresh(self._fd)
            life.count_message()
            return item.message()

    def _sleep_until_message(self, timeout: float | None) -> bool | None:
        box, life = self._box, self._life
        is_stuck: Callable[[], bool] = bool
        if timeout is None:
            is_stuck = lambda: box.is_left_alone(life, box.putters)  # noqa: E731 - as short as it can be said
        box.asleep[life] += 1
        try:
            return box.flow.wait(timeout, life, self._is_over, is_stuck)
        finally:
            box.asleep[life] -= 1

    def _is_over(self) -> bool:
        return self.closed or self._box.is_shut()

    def _await(
        self,
        is_so: Callable[[], bool],
        timeout: float | None,
        late: type[Exception],
        waiting: str,
        served: set[Life],
    ) -> None:
        """Wait until *is_so*; raise *late* when *timeout* is over, or who has died.

        *served*: see `Box.is_left_alone`.
        """
        box, life = self._box, self._life
        deadline = None if timeout is None else time.monotonic() + timeout
        while not is_so():
            life.check_alive()
            left = LOOK_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise late
            box.asleep[life] += 1
            try:
                if deadline is None and box.is_left_alone(life, served):
                    self._give_up(waiting)
                changed.wait(min(left, LOOK_SECONDS))
            finally:
                box.asleep[life] -= 1
            self._check_open()
        life.check_alive()

    def _give_up(self, waiting: str) -> None:
        """Raise the error that says who has died; if nobody has, wait a little."""
        deaths = self._deaths()
        if deaths:
            give_up = died_while_sending if waiting == FULL else died_while_receiving
            raise give_up(waiting, deaths)
        changed.wait(LOOK_SECONDS)

    def _deaths(self) -> list[Death]:
        return relatives.deaths(identities(self), self._box.made)

    def size(self) -> int:
        """See `Mailbox.size`."""
        with changed:
            return 0 if self._box.shut == _DROPPED else len(self._box.flow.items)

    def shutdown(self, *, immediate: bool = False) -> None:
        """See `Mailbox.shutdown`."""
        with changed:
            box = self._box
            box.shut = max(box.shut, _DROPPED if immediate else _DRAINING)
            if immediate:
                box.unfinished -= len(box.flow.items)
                box.flow.items.clear()
                box.refresh(self._fd)
            changed.notify_all()

    def task_done(self) -> None:
        """See `Mailbox.task_done`."""
        with changed:
            box, life = self._box, self._life
            life.check_alive()
            if not box.joinable or box.unfinished <= 0:
                raise ValueError("task_done() called too many times")
            box.unfinished -= 1
            box.taken[life] -= 1
            changed.notify_all()

    def join(self, timeout: float | None = None, /) -> bool:
        """See `Mailbox.join`."""
        if not self._box.joinable:
            raise ValueError("a mailbox that was not made joinable cannot be joined")
        with changed:
            try:
                self._await(self._is_settled, timeout, TimeoutError, UNDONE, self._box.takers)
            except TimeoutError:
                return False
            return True

    def _is_settled(self) -> bool:
        box = self._box
        if box.unfinished <= 0:
            return True
        # What only the dead have taken nobody will count as done, whoever else is alive.
        undone = +box.taken
        if not box.flow.items and undone and all(life.exit_code is not None for life in undone):
            deaths = self._deaths()
            if deaths:
                raise died_while_receiving(UNDONE, deaths)
        return False

    def _check_open(self) -> None:
        if self.closed:
            self._life.check_alive()
            raise OSError(errno.EBADF, "this mailbox was closed")

    @property
    def flow(self) -> Flow:
        """What is in it."""
        return self._box.flow

    def fileno(self) -> int:
        """See `Mailbox.fileno`."""
        return self._fd

    def close(self) -> None:
        """See `Mailbox.close`."""
        with changed:
            if self.closed:
                return
            self.closed = True
            self._box.holders[self._life] -= 1
            os.close(self._fd)
            self._box.is_open()  # to notice if this was the last copy
            changed.notify_all()

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        self._check_open()
        return (handoff.give(self._fd),)

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> MemoryMailbox:
        """See `Exportable.attach`."""
        (token,) = recipe
        with changed:  # so that nobody kills it in between
            fd = takeover.take(token)
            return cls(Box.of(fd), fd)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():
            self.close()
