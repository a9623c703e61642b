"""Taking the events of a pool one by one. Imported by whoever does, as most programs do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from procession._ground.deque import deque
from procession._pools.waiters import Waiters
from procession.errors import TimeoutError as _TimeoutError

if TYPE_CHECKING:
    from typing import Self

    from procession._pools.crew import Crew
    from procession._pools.events import Events

#: So many events are kept for somebody who does not take them.
_MOST_KEPT = 10_000


class PoolEvent(NamedTuple):
    """Something that has happened in a pool.

    *kind* is ``worker-started`` (and ready), ``worker-ended``, ``task-given`` (to a worker),
    ``task-retried``, ``task-done`` or ``task-failed``.
    """

    kind: str
    #: When, by `time.time`.
    time: float
    #: Which task, in words, and a number that no other task of the pool has; None for a worker.
    task: str | None
    number: int | None
    #: The pid of the worker, if it is about one.
    worker: int | None
    #: Why the task has failed.
    error: BaseException | None


class EventStream:
    """The events of a pool from now on: an iterator, which ends with the pool, or by `close`.

    Nobody waits for who reads it: of more than 10000 events that were not taken, the oldest
    are dropped, and counted in `missed`. Threads: any; each event goes to one of them.
    """

    def __init__(self, events: Events, crew: Crew) -> None:
        self._events = events
        self._crew = crew
        self._kept: deque[PoolEvent] = deque()
        self._waiters = Waiters()
        self._is_over = False
        #: How many events were dropped.
        self.missed = 0

    def next(self, timeout: float | None = None) -> PoolEvent:
        """Return the next event, waiting for it up to *timeout* seconds (None: for ever).

        Raises `StopIteration` when there will be no more, `procession.TimeoutError` when the
        time is over, and `RuntimeError` in a callback of the pool.
        """
        while True:
            try:
                if self._kept:
                    return self._kept.popleft()
            except IndexError:
                continue  # another thread was faster
            if self._is_over and not self._kept:
                raise StopIteration
            if not self._waiters.wait(self._has_news, timeout, self._crew):
                raise _TimeoutError

    __next__ = next

    def __iter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Have no more events; those that are there can still be taken. Idempotent."""
        self._events.drop(self)
        self.end()

    def _has_news(self) -> bool:
        return bool(self._kept) or self._is_over

    # -- for the pool

    def put(self, event: PoolEvent) -> None:
        """Add *event*."""
        if len(self._kept) >= _MOST_KEPT:
            try:
                self._kept.popleft()
                self.missed += 1
            except IndexError:
                pass  # somebody takes them just now
        self._kept.append(event)
        self._waiters.wake()

    def end(self) -> None:
        """End the iteration behind what is there."""
        self._is_over = True
        self._waiters.wake()
