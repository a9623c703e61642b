"""The workers of a `ThreadPool`: threads, which take tasks from one queue."""

from __future__ import annotations

import threading

from procession import _pool_wire as wire
from procession._deque import deque
from procession._pool_entrance import Entrance
from procession._pool_events import TASK_GIVEN, Events
from procession._pool_failures import cancelled
from procession._pool_outcomes import tell_outcome
from procession._pool_waiters import End
from procession.errors import BrokenPoolError

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from procession._pool_results import ApplyResult
    from procession._pool_stream import Feeder
    from procession._pool_task import Task


class ThreadCrew:
    """The same for threads as `procession._pool_crew.Crew` is for processes.

    A thread cannot be killed: what it has begun it finishes. Threads: any. Fork: a forked
    child has none of its threads, and may not use it.
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
        self._changed = threading.Condition(self.entrance.lock)
        # Outcomes are told by one thread at a time, so that callbacks are, too.
        self._delivering = threading.RLock()
        self._teller: int | None = None
        self._running = 0
        self.ended = End()
        self._alive = size
        for number in range(1, size + 1):
            threading.Thread(target=self._run, name=f"ThreadPool-{number}", daemon=True).start()

    # -- for everybody

    def submit(self, tasks: Iterable[Task]) -> None:
        """See `Crew.submit`."""
        with self._changed:
            self.entrance.check()
            self.feed(tasks)

    def call(self, task: Task, result: ApplyResult) -> None:
        """See `Crew.call`."""
        self.submit((task,))

    def feed(self, tasks: Iterable[Task]) -> None:
        """See `Crew.feed`."""
        with self._changed:
            self._pending.extend(tasks)
            self._changed.notify_all()
        if self.entrance.is_shut:
            self._give_up_pending()

    def add_feeder(self, feeder: Feeder) -> None:
        """See `Crew.add_feeder`."""
        self.entrance.admit(feeder)

    def drop_feeder(self, feeder: Feeder) -> None:
        """See `Crew.drop_feeder`."""
        with self._changed:
            self.entrance.feeders.discard(feeder)
            self._changed.notify_all()

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
        with self._changed:
            for task in tasks:
                if task in self._pending:
                    self._pending.remove(task)
                    dropped.append(task)
        for task in dropped:
            self._tell(task, False, cancelled(task))
        return bool(dropped)

    def close(self) -> None:
        """See `Crew.close`."""
        with self._changed:
            self.entrance.closing = True
            self._changed.notify_all()

    def terminate(self, *, wait: bool = True) -> None:
        """Cancel what nobody has begun; does not wait for the rest. Idempotent."""
        self.entrance.stop()
        with self._changed:
            self._changed.notify_all()
        self._give_up_pending()

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
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
            del task, value
        with self._changed:
            self._alive -= 1
            if not self._alive:
                self.ended.set()
                self.events.end()

    def _next(self) -> Task | None:
        """Wait for a task and return it; None when there will be no more."""
        with self._changed:
            while True:
                if self.entrance.is_shut:
                    return None
                if self._pending:
                    self._running += 1
                    return self._pending.popleft()
                if self.entrance.closing and not self.entrance.feeders and not self._running:
                    return None
                self._changed.wait()

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
        with self._changed:
            self._changed.notify_all()
        self._give_up_pending()

    def _give_up_pending(self) -> None:
        while True:
            with self._changed:
                if not self._pending:
                    return
                task = self._pending.popleft()
            self._tell(task, False, self.entrance.why_not(task.describe()))
