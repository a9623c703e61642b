"""A worker of a pool, as the pool sees it: what it was given, and what it owes."""

from __future__ import annotations

import marshal
import os
import time

from procession._contracts.channel import Channel
from procession._ground.anonymous_file import above_standard
from procession._ground.deque import deque
from procession._pools import wire
from procession._pools.desk import BEGUN, CLAIMED, RECALLED

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from procession._contracts.channel import Message
    from procession._pools.desk import Desk
    from procession._pools.errand import Offer
    from procession._pools.task import FunctionReference, Task
    from procession._starting.failure import FailureReport
    from procession.process import Process

_SIGKILL, _SIGTERM = 9, 15
#: What is sent to a worker that is at work has to fit here, so that sending never waits: the
#: worker might be waiting for us, to take its result. A page is the least that a pipe holds.
LONGEST_AHEAD = wire.SHORT
#: The longest call, arguments and function together, that a caller gives to a worker itself.
LONGEST_ERRAND = wire.SHORT - 100
#: What a worker that waits can be sent without waiting for it: channels have room for that.
LONGEST_AT_ONCE = 64 << 10
#: What a task takes beside its arguments and its function, at most: the numbers, and what
#: marshal writes of them.
ENTRY_BYTES = 40
#: How long a worker may go on after it has closed its channel, before it is killed.
_ENDING_SECONDS = 5.0


class Member:
    """A worker of a pool. Belongs to the pool's own thread."""

    def __init__(self, process: Process, channel: Channel, desk: Desk, place: int) -> None:
        """*desk* is the one at its *place*, which are both lent."""
        self.process = process
        self.channel = channel
        self.channel_fd = channel.fileno()
        self.pid = process.pid
        #: Its exit code, once it is buried, and how it has failed, if it has.
        self.exit_code: int | None = None
        #: One of our own: a program may close the process, when it has ended.
        self.sentinel = above_standard(os.dup(process.sentinel))
        self.place = place
        self._desk = desk
        self._functions: dict[int, Any] = {}
        #: What it was given and has not answered; None stands for what was recalled.
        self.outstanding: deque[Task | None] = deque()
        #: Whether it is done with its initializer.
        self.ready = False
        #: Whether it was told to end, so that its end is no failure.
        self.retiring = False
        #: The task that we kill it for, and what becomes of that.
        self.sentence: tuple[Task, BaseException] | None = None
        self.begun_at = time.monotonic()
        #: When it has begun, at the earliest, what it is at now.
        self.at_work_since = 0.0
        self.given = 0
        self.answered = 0
        #: The number from which on tasks are recalled; 0 for none.
        self._recalled_from = 0
        #: When the answer to a recall can be read; None if there is none.
        self.recall_settles_at: float | None = None
        #: When it will be killed.
        self.kill_at: float | None = None
        #: Whether all that it has said was taken, and no more will come.
        self.is_silent = False
        #: Whether nothing can be sent to it any more, so that it must end soon.
        self.is_deaf = False
        #: Whether the channel is lent to somebody else (`procession._pools.carrier`), and whether
        #: the worker has ended meanwhile.
        self.in_transit = False
        self.has_ended = False
        #: Who uses the channel now, if that is not the pool's own thread.
        self.borrower: object = None
        self._is_left = False
        # Of the two that may close it, the one who takes this.
        self._closing = deque((True,))
        #: What is offered to callers, or under way, see `procession._pools.errand`; and whether
        #: what it is at now was: then it rings for somebody who may not listen any more.
        self.offer: Offer | None = None
        self.is_adopted = False
        # Whether the channel tells of its room; nothing is sent ahead if it does not.
        self._tells_room = type(channel).wait_for_room is not Channel.wait_for_room

    # -- giving

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a task."""
        return (
            self.ready
            and not self.outstanding
            and not self.retiring
            and not self.in_transit
            and self.offer is None
            and self.sentence is None
        )

    def room(self, ahead: int, limit: int | None) -> int:
        """Return how many tasks may be sent now.

        *ahead* is how many it may have at once, *limit* how many in its life.
        """
        if not self.ready or self.retiring or self.sentence is not None:
            return 0
        if self.is_deaf or self.is_silent or self.in_transit:
            return 0
        if self.outstanding and (self._recalled_from or not self._tells_room):
            return 0
        room = max(1, ahead) - len(self.outstanding)
        return room if limit is None else min(room, limit - self.given)

    def has_room_ahead(self) -> bool:
        """Return whether a short message can be sent without waiting."""
        return self.channel.wait_for_room(LONGEST_AHEAD, 0)

    def give(self, tasks: Sequence[Task]) -> Message:
        """Have *tasks*, which are packed, outstanding, and return the message to send.

        Only a single one may have buffers.
        """
        entries: list[tuple[int, bytes | None, int, bytes]] = []
        functions = self._functions
        buffers: Sequence[Any] = ()
        for task in tasks:
            assert task.packed is not None
            body, own_buffers = task.packed
            if own_buffers:
                buffers = own_buffers
            number = task.job.function.number
            if number in functions:
                entries.append((number, None, task.mode, body))
            else:
                entries.append(self._entry(task, task.mode))
                self._note_function(task)
        if not self.outstanding:
            self._forget_recall()
            self.at_work_since = time.monotonic()
        self.outstanding.extend(tasks)
        self.given += len(tasks)
        return marshal.dumps(entries), buffers

    def _entry(self, task: Task, mode: int) -> tuple[int, bytes | None, int, bytes]:
        """Return what the worker learns of *task*."""
        assert task.packed is not None
        reference = task.job.function
        function = None
        if reference.number not in self._functions:
            function = reference.pickled()
        return reference.number, function, mode, task.packed[0]

    def _note_function(self, task: Task) -> None:
        """Note that the worker has got *task*, or will, and its function with it."""
        number = task.job.function.number
        if number not in self._functions:
            wire.remember(self._functions, number, True)

    def _forget_recall(self) -> None:
        """Have a recall that nothing was left for not read for what comes now."""
        self._recalled_from = 0
        self.recall_settles_at = None
        self._desk.words[RECALLED] = 0

    def has_room_for(self, function: int) -> bool:
        """Return whether the worker need not forget others to remember *function*."""
        return function in self._functions or len(self._functions) < wire.MOST_FUNCTIONS

    def errand(self, task: Task) -> Callable[[], object]:
        """Return what gives *task* for a caller, over the channel that is lent for it.

        Nothing is changed here: it may be called or not.
        """
        return self.channel.sender(marshal.dumps([self._entry(task, task.mode | wire.CALLER)]))

    def adopt(self, task: Task) -> None:
        """Have *task* outstanding, which was sent for a caller."""
        self._note_function(task)
        self.outstanding.append(task)
        self.given += 1
        self.at_work_since = time.monotonic()
        self.is_adopted = True

    def book(self, number: int, function: int) -> None:
        """Have done task *number*, of *function*, which was answered to its caller. Idempotent.

        Whoever comes late with it finds it done (for "one step" see `procession._pools.errand`).
        """
        if self.answered < number:
            self._functions[function] = True  # one step
            self.answered = self.given = number  # one step

    def length_of(self, function: FunctionReference) -> int:
        """Return how much longer *function* makes a message. Raises what pickling raises."""
        return 0 if function.number in self._functions else len(function.pickled())

    def retire(self) -> None:
        """Tell it to end; it owes nothing."""
        self.retiring = True
        try:
            self.channel.send(b"")
        except OSError:
            return  # it ends anyway

    # -- taking

    @property
    def can_be_heard(self) -> bool:
        """Whether there may be something in the channel for the pool's own thread."""
        return not self.is_silent and not self.in_transit

    def look(self) -> bytes | None:
        """Return the next answer, if it lies in the tray."""
        return self._desk.look(self.answered + 1)

    def look_for_all(self) -> list[bytes]:
        """Return the answers to outstanding tasks that lie in the tray, in order."""
        return self._desk.take(self.answered + 1, len(self.outstanding))

    def is_sending_long(self) -> bool:
        """Return whether the message in the channel is a long one. One must be there."""
        return bool(self.outstanding) and self._desk.is_long(self.answered + 1)

    def answer(self, count: int) -> list[Task | None]:
        """Return the tasks that the next *count* answers are for; None for what was recalled."""
        self.answered += count
        self.is_adopted = False
        self.at_work_since = time.monotonic()
        pop = self.outstanding.popleft
        return [pop() for _ in range(count)]

    def has_begun(self) -> bool:
        """Return whether it has begun the first of its outstanding tasks.

        Of one that has ended this is true only when all its answers were taken.
        """
        begun: int = self._desk.words[BEGUN]
        return begun > self.answered

    # -- recalling

    def may_recall(self) -> bool:
        """Return whether it has something that was not recalled yet."""
        return not self._recalled_from and len(self.outstanding) > 1

    def recall(self) -> None:
        """Ask for what it has not begun: all but the first of its outstanding tasks."""
        if not self.may_recall():
            return
        self._recalled_from = self.answered + 2
        self._desk.words[RECALLED] = self._recalled_from
        self.recall_settles_at = time.monotonic() + wire.SETTLING_SECONDS

    def recalled(self) -> list[Task]:
        """Return what the recall has brought back, in order."""
        self.recall_settles_at = None
        claimed: int = self._desk.words[CLAIMED]
        back: list[Task] = []
        for at, task in enumerate(self.outstanding):
            number = self.answered + 1 + at
            if task is not None and number >= self._recalled_from and number > claimed:
                back.append(task)
                self.outstanding[at] = None
        return back

    # -- ending

    def kill(self) -> None:
        """Kill it."""
        self.signal(_SIGKILL)

    def terminate(self) -> None:
        """End it by SIGTERM, and later by SIGKILL."""
        if self.kill_at is None:
            self.kill_at = time.monotonic() + _ENDING_SECONDS
            self.signal(_SIGTERM)

    def expect_end(self) -> None:
        """Kill it later, if it has not ended by itself: its channel is of no use any more."""
        if self.kill_at is None and not self.retiring:
            self.kill_at = time.monotonic() + _ENDING_SECONDS

    def signal(self, number: int) -> None:
        """Send a signal; that it has ended is no error."""
        try:
            self.process._signal(number)
        except ValueError:
            return  # it has ended, and the program has closed it

    def age(self) -> float:
        """Return for how many seconds it has existed."""
        return time.monotonic() - self.begun_at

    def resident(self, limit: float) -> int:
        """Return how many bytes of it are resident, exactly beyond *limit*; 0 when it has ended."""
        from procession._starting.limit_watch import resident

        assert self.pid is not None
        return resident(self.pid, limit)

    def give_back_channel(self, borrower: object) -> bool:
        """End the use of the channel by *borrower*; return False if nobody wants it back.

        A borrower that comes late, when somebody else has it, changes nothing.
        """
        # First what we do, and then a look at what the other side does: one of the two sees both.
        if self.borrower is borrower:
            self.borrower = None  # one step
        if self._is_left and self.borrower is None:
            self._close_channel()
        return not self._is_left

    def lend_channel(self, borrower: object) -> None:
        """Let *borrower* use the channel, who gives it back."""
        self.borrower = borrower

    def prepare_offer(self) -> None:
        """Be ready to be offered. Only the pool's own thread may do this."""
        self._forget_recall()

    def close(self) -> None:
        """Close the channel, unless it is in use: then its user does it; and the sentinel."""
        self._is_left = True
        if self.borrower is None:
            self._close_channel()
        os.close(self.sentinel)

    def _close_channel(self) -> None:
        try:
            self._closing.pop()
        except IndexError:
            return
        self.channel.close()

    def abandon(self) -> None:
        """Close both in a forked child, which has no thread that could be using them."""
        self.channel.close()
        os.close(self.sentinel)

    @property
    def failure(self) -> FailureReport | None:
        """How it has failed, now that it is buried. Who was told to end need not be asked."""
        try:
            return self.process.failure
        except ValueError:
            return None  # the program has closed it

    def bury(self) -> None:
        """Collect the process, which has ended, and close what was open to it.

        The process object is not closed: a program may have it from `active_children`.
        """
        self.close()
        try:
            self.process.join()
            self.exit_code = self.process.exitcode
        except ValueError:
            return  # it has ended, and the program has closed it
