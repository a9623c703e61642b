"""The workers of a `ThreadPool`: threads of this process."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from itertools import starmap
from typing import TYPE_CHECKING, Any

from procession import _pool_wire as wire
from procession.errors import BrokenPoolError, TaskCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from procession._pool_stream import Feeder
    from procession._pool_task import Task


class ThreadCrew:
    """The same for threads as `procession._pool_crew.Crew` is for processes.

    A thread cannot be killed: what it has begun it finishes. Threads: any. Fork: a forked
    child has none of its threads, and may not use it.
    """

    def __init__(
        self,
        size: int,
        initializer: Callable[..., object] | None,
        initargs: Sequence[Any],
    ) -> None:
        """Start *size* threads."""
        self.size = size
        self._pid = os.getpid()
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._pending: deque[Task] = deque()
        self._feeders: set[Feeder] = set()
        self._changed = threading.Condition()
        # Outcomes are told by one thread at a time, so that callbacks are, too.
        self._delivering = threading.RLock()
        self._teller: int | None = None
        self.broken: BrokenPoolError | None = None
        self._closing = False
        self._terminating = False
        self._running = 0
        self.ended = threading.Event()
        self._alive = size
        for number in range(1, size + 1):
            threading.Thread(target=self._run, name=f"ThreadPool-{number}", daemon=True).start()

    # -- for everybody

    def submit(self, tasks: Iterable[Task]) -> None:
        """See `Crew.submit`."""
        with self._changed:
            self.check_runs()
            self._pending.extend(tasks)
            self._changed.notify_all()

    def feed(self, tasks: Iterable[Task]) -> None:
        """See `Crew.feed`."""
        with self._changed:
            self._pending.extend(tasks)
            self._changed.notify_all()
        if self.broken is not None or self._terminating:
            self._give_up_pending()

    def add_feeder(self, feeder: Feeder) -> None:
        """See `Crew.add_feeder`."""
        with self._changed:
            self.check_runs()
            self._feeders.add(feeder)

    def drop_feeder(self, feeder: Feeder) -> None:
        """See `Crew.drop_feeder`."""
        with self._changed:
            self._feeders.discard(feeder)
            self._changed.notify_all()

    def is_mine(self) -> bool:
        """Return whether this is the process that the pool belongs to."""
        return self._pid == os.getpid()

    def check_runs(self) -> None:
        """See `Crew.check_runs`."""
        if self._pid != os.getpid():
            raise ValueError("Pool not running in this process: its threads are in another one")
        if self.broken is not None:
            raise self._broken_again()
        if self._closing or self._terminating:
            raise ValueError("Pool not running")

    def check_may_wait(self) -> None:
        """See `Crew.check_may_wait`."""
        if self._teller == threading.get_ident():
            raise RuntimeError(
                "a callback of a pool cannot wait for results of that pool: they are told "
                "one after the other"
            )

    def cancel(self, tasks: Sequence[Task]) -> bool:
        """Cancel those of *tasks* that nobody has begun; return whether there were any."""
        cancelled = []
        with self._changed:
            for task in tasks:
                if task in self._pending:
                    self._pending.remove(task)
                    cancelled.append(task)
        for task in cancelled:
            self._tell(task, False, TaskCancelledError(f"{task.describe()} was cancelled"))
        return bool(cancelled)

    def call_back(self, callback: Callable[[Any], object], value: Any) -> None:
        """See `Crew.call_back`."""
        try:
            callback(value)
        except BaseException:
            kind, error, traceback = sys.exc_info()
            assert kind is not None
            threading.excepthook(threading.ExceptHookArgs((kind, error, traceback, None)))

    def close(self) -> None:
        """See `Crew.close`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def lift(self) -> None:
        """See `Crew.lift`."""
        for feeder in list(self._feeders):
            feeder.lift()

    def terminate(self, *, wait: bool = True) -> None:
        """Cancel what nobody has begun; does not wait for the rest. Idempotent."""
        with self._changed:
            self._terminating = True
            feeders = list(self._feeders)
            self._changed.notify_all()
        for feeder in feeders:
            feeder.stop()
        self._give_up_pending()

    # -- the threads

    def _run(self) -> None:
        try:
            if self._initializer is not None:
                self._initializer(*self._initargs)
        except BaseException as error:
            self._break(error)
        while (task := self._next()) is not None:
            try:
                value, succeeded = _call(task), True
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

    def _next(self) -> Task | None:
        """Wait for a task and return it; None when there will be no more."""
        with self._changed:
            while True:
                if self._terminating or self.broken is not None:
                    return None
                if self._pending:
                    self._running += 1
                    return self._pending.popleft()
                if self._closing and not self._feeders and not self._running:
                    return None
                self._changed.wait()

    def _tell(self, task: Task, succeeded: bool, value: Any) -> None:
        task.done = True
        task.arguments = None
        with self._delivering:
            before, self._teller = self._teller, threading.get_ident()
            try:
                task.job.deliver(task, succeeded, value)
                task.job.told()
            finally:
                self._teller = before

    def _break(self, error: BaseException) -> None:
        broken = BrokenPoolError(f"the pool has stopped: its initializer has failed with {error!r}")
        broken.__cause__ = error
        with self._changed:
            if self.broken is not None:
                return
            self.broken = broken
            feeders = list(self._feeders)
            self._changed.notify_all()
        for feeder in feeders:
            feeder.stop()
        self._give_up_pending()

    def _broken_again(self) -> BrokenPoolError:
        assert self.broken is not None
        again = BrokenPoolError(str(self.broken))
        again.__cause__ = self.broken.__cause__
        return again

    def _give_up_pending(self) -> None:
        while True:
            with self._changed:
                if not self._pending:
                    return
                task = self._pending.popleft()
            why: Exception
            if self.broken is not None:
                why = self._broken_again()
            else:
                why = TaskCancelledError(f"{task.describe()} was not done: the pool was terminated")
            self._tell(task, False, why)


def _call(task: Task) -> Any:
    function, arguments = task.job.function.function, task.arguments
    if task.mode == wire.APPLY:
        return function(*arguments[0], **arguments[1])
    if task.mode == wire.MAP:
        return list(map(function, arguments))
    return list(starmap(function, arguments))
