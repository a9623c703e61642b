"""What became of tasks, on its way to those who wait for it."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from procession._pool_failures import rebuild

if TYPE_CHECKING:
    from collections.abc import Callable

    from procession._channel import Message
    from procession._pool_task import Task


class Outcomes:
    """Outcomes that were not delivered yet. Belongs to the pool's own thread."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Task, bytes | None, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def answer(self, task: Task, kind: bytes, message: Message) -> None:
        """Let what a worker has answered be what became of *task*."""
        self._add(task, kind, message)

    def fail(self, task: Task, error: BaseException) -> None:
        """Let *error* be what became of *task*."""
        self._add(task, None, error)

    def _add(self, task: Task, kind: bytes | None, outcome: Any) -> None:
        task.done = True
        task.arguments = task.packed = None
        self._waiting.append((task, kind, outcome))

    def deliver(self) -> None:
        """Give the outcomes to those who wait for them. Runs code of the program."""
        outcomes, self._waiting = self._waiting, []
        jobs = set()
        for task, kind, outcome in outcomes:
            succeeded, value = (False, outcome) if kind is None else rebuild(kind, outcome)
            task.job.deliver(task, succeeded, value)
            jobs.add(task.job)
        for job in jobs:
            job.told()


def call_back(callback: Callable[[Any], object], value: Any) -> None:
    """Call *callback*; what it raises is shown as an exception of a thread is."""
    try:
        callback(value)
    except BaseException:
        kind, error, traceback = sys.exc_info()
        assert kind is not None
        threading.excepthook(threading.ExceptHookArgs((kind, error, traceback, None)))
