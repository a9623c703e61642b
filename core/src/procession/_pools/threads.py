"""The workers of a `ThreadPool`: threads, which take tasks from one queue."""

from __future__ import annotations

import threading

from procession._ground.deque import deque
from procession._pools import wire
from procession._pools.entrance import Entrance
from procession._pools.events import TASK_GIVEN, Events
from procession._pools.failures import cancelled
from procession._pools.outcomes import tell_outcome
from procession._pools.waiters import End, Waiters
from procession.errors import BrokenPoolError

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from procession._pools.results import ApplyResult
    from procession._pools.stream import Feeder
    from procession._pools.task import Task


class ThreadCrew:
    """The same for threads as `procession._pools.crew.Crew` is for processes.

    A thread cannot be killed: what it has begun it finishes. Threads: any, and signal handlers,
    which may wait for the pool: nobody who gives it something has a lock that its threads need.
    (`cancel` and `terminate` have one while they tell what was not done.) Fork: a forked child
    has none of its threads, and may not use it.
    """

    reads_input = False

    def __init__(
        self,
        size: int,
        initializer: Callable[..., object] | None,
        initargs: Sequence[Any],
    ) -> None:
        """Start *size* threads."""
        self.entrance = Entrance()
        self.events = Events()
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._pending: deque[Task] = deque()
        self._idle = Waiters()
        # Outcomes are told by one thread at a time, so that callbacks are, too.
        self._delivering = threading.RLock()
        self._teller: int | None = None
        self.ended = End()
        # One for each thread; taking one out is one step.
        self._alive = [True] * size
        for number in range(1, size + 1):
            threading.Thread(target=self._run, name=f"ThreadPool-{number}", daemon=True).start()

    # -- for everybody

    def submit(self, tasks: Iterable[Task]) -> None:
        """See `Crew.submit`."""
        with self.entrance.lock:
            self.entrance.check()
            self._pending.extend(tasks)
        self._wake()

    def call(self, task: Task, result: ApplyResult) -> None:
        """See `Crew.call`."""
        self.submit((task,))

    def feed(self, tasks: Iterable[Task]) -> None:
        """See `Crew.feed`."""
        self._pending.extend(tasks)
        self._wake()

    def _wake(self) -> None:
        """Have what is pending seen to, also when a signal handler has ended the pool."""
        self._idle.wake()
        if self.entrance.is_shut or self.ended.is_set():
            self._give_up_pending()

    def add_feeder(self, feeder: Feeder) -> None:
        """See `Crew.add_feeder`."""
        self.entrance.admit(feeder)

    def drop_feeder(self, feeder: Feeder) -> None:
        """See `Crew.drop_feeder`."""
        self.entrance.feeders.discard(feeder)
        self._idle.wake()

    def look_for_input(self) -> None:
        """See `Crew.look_for_input`: here each feeder has a thread of its own."""

    def is_quick(self) -> bool:
        """See `Crew.is_quick`: a thread takes the next task by itself."""
        return False

    def check_may_wait(self) -> None:
        """See `Crew.check_may_wait`."""
        if self._teller == threading.get_ident():
            raise RuntimeError(
                "a callback of a pool cannot wait for results of that pool: they are told "
                "one after the other"
            )

    def cancel(self, tasks: Sequence[Task]) -> bool:
        """Cancel those of *tasks* that nobody has begun; return whether there were any."""
        dropped = []
        for task in tasks:
            try:
                self._pending.remove(task)
            except ValueError:
                continue  # it was begun
            dropped.append(task)
        for task in dropped:
            self._tell(task, False, cancelled(task))
        return bool(dropped)

    def close(self) -> None:
        """See `Crew.close`."""
        with self.entrance.lock:
            self.entrance.closing = True
        self._idle.wake()

    def terminate(self, *, wait: bool = True) -> None:
        """Cancel what nobody has begun; does not wait for the rest. Idempotent."""
        self.entrance.stop()
        self._wake()

    # -- the threads

    def _run(self) -> None:
        try:
            if self._initializer is not None:
                self._initializer(*self._initargs)
        except BaseException as error:
            self._break(error)
        while (task := self._next()) is not None:
            if self.events.streams:
                self.events.tell(TASK_GIVEN, task)
            try:
                function = task.job.function.function
                value, succeeded = wire.call(function, task.mode, task.arguments), True
            except BaseException as error:
                value, succeeded = error, False
            self._tell(task, succeeded, value)
            del task, value
        self._alive.pop()
        if not self._alive:
            self.ended.set()
            self._give_up_pending()
            self.events.end()

    def _next(self) -> Task | None:
        """Wait for a task and return it; None when there will be no more."""
        while not self.entrance.is_shut:
            try:
                return self._pending.popleft()
            except IndexError:
                if self._is_done():
                    return None
                self._idle.wait(self._has_news, None)
        return None

    def _is_done(self) -> bool:
        # In this order, in which nothing can be added any more.
        return self.entrance.closing and not self.entrance.feeders and not self._pending

    def _has_news(self) -> bool:
        return bool(self._pending) or self.entrance.is_shut or self._is_done()

    def _tell(self, task: Task, succeeded: bool, value: Any) -> None:
        task.done = True
        task.arguments = None
        with self._delivering:
            if self.events.streams:
                tell_outcome(self.events, task, succeeded, value)
            before, self._teller = self._teller, threading.get_ident()
            try:
                task.job.deliver(task, succeeded, value)
                task.job.told()
            finally:
                self._teller = before

    def _break(self, error: BaseException) -> None:
        self.entrance.give_up(
            BrokenPoolError(f"the pool has stopped: its initializer has failed with {error!r}"),
            error,
        )
        self._wake()

    def _give_up_pending(self) -> None:
        while True:
            try:
                task = self._pending.popleft()
            except IndexError:
                return
            self._tell(task, False, self.entrance.why_not(task.describe()))
