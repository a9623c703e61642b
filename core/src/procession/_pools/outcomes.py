"""What became of tasks, on its way to those who wait for it."""

from __future__ import annotations

import sys

from procession._pools.events import TASK_DONE, TASK_FAILED
from procession._pools.failures import rebuild

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from procession._contracts.channel import Buffer
    from procession._pools.events import Events
    from procession._pools.task import Task


class Outcomes:
    """Outcomes that were not delivered yet. Belongs to the pool's own thread."""

    def __init__(self, events: Events) -> None:
        self._events = events
        # With the body and the buffers of an answer, or None and an exception.
        self._waiting: list[tuple[Task, Buffer | None, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def answer(self, task: Task, body: Buffer, buffers: Sequence[Buffer]) -> None:
        """Let what a worker has answered be what became of *task*."""
        task.done = True
        task.arguments = task.packed = None
        self._waiting.append((task, body, buffers))

    def fail(self, task: Task, error: BaseException) -> None:
        """Let *error* be what became of *task*."""
        task.done = True
        task.arguments = task.packed = None
        self._waiting.append((task, None, error))

    def deliver(self) -> None:
        """Give the outcomes to those who wait for them. Runs code of the program."""
        outcomes, self._waiting = self._waiting, []
        to_tell = set()
        for task, body, rest in outcomes:
            succeeded, value = (False, rest) if body is None else rebuild(body, rest)
            if self._events.streams:
                tell_outcome(self._events, task, succeeded, value)
            if task.job.deliver(task, succeeded, value):
                to_tell.add(task.job)
        for job in to_tell:
            job.told()


def tell_outcome(events: Events, task: Task, succeeded: bool, value: Any) -> None:
    """Tell those who want to know it what became of *task*."""
    if succeeded:
        events.tell(TASK_DONE, task)
    else:
        events.tell(TASK_FAILED, task, error=value)


def call_back(callback: Callable[[Any], object], value: Any) -> None:
    """Call *callback*; what it raises is shown as an exception of a thread is."""
    try:
        callback(value)
    except BaseException:
        kind, error, traceback = sys.exc_info()
        assert kind is not None
        assert error is not None
        try:
            import threading
        except (ImportError, OSError):  # no descriptor is to be had for that
            sys.excepthook(kind, error, traceback)
        else:
            threading.excepthook(threading.ExceptHookArgs((kind, error, traceback, None)))
