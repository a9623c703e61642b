"""What happens in a pool, told to whoever wants to show it."""

from __future__ import annotations

import itertools
import time

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import Any

    from procession._pools.event_stream import EventStream
    from procession._pools.task import Task

WORKER_STARTED, WORKER_ENDED = "worker-started", "worker-ended"
TASK_GIVEN, TASK_DONE, TASK_FAILED, TASK_RETRIED = (
    "task-given",
    "task-done",
    "task-failed",
    "task-retried",
)


class Events:
    """Those who want to know what happens in one pool.

    Threads: any, and signal handlers: there is no lock.
    """

    def __init__(self) -> None:
        #: Empty for most pools, where all this costs nothing.
        self.streams: list[EventStream] = []
        self._numbers = itertools.count(1)

    def open(self, crew: Any) -> EventStream:
        """Return a new stream."""
        from procession._pools.event_stream import EventStream

        stream = EventStream(self, crew)
        self.streams.append(stream)
        if crew.ended.is_set():
            self.end()
        return stream

    def drop(self, stream: EventStream) -> None:
        """Tell *stream* no more. Idempotent."""
        try:
            self.streams.remove(stream)
        except ValueError:
            return  # it has ended

    def tell(
        self,
        kind: str,
        task: Task | None = None,
        worker: int | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Tell all of them. Costs something: ask `streams` first."""
        words = number = None
        if task is not None:
            if task.key is None:
                task.key = next(self._numbers)
            words, number = task.describe(), task.key
        from procession._pools.event_stream import PoolEvent

        event = PoolEvent(kind, time.time(), words, number, worker, error)
        for stream in self.streams.copy():
            stream.put(event)

    def end(self) -> None:
        """End all streams: the pool has ended."""
        for stream in self.streams.copy():
            self.drop(stream)
            stream.end()
