"""faster-fifo: a queue in shared memory behind a lock and two conditions."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from peers import ForkContext, get_all_start_methods

__all__ = ["get_all_start_methods", "get_context"]

#: Bytes that may wait in a queue: some of the largest arrays that are measured.
CAPACITY = 256 << 20
#: Seconds; the library does not take infinity.
FOR_EVER = 1e6


class Queue:
    """A queue that waits for ever, as `get` and `put` do elsewhere."""

    def __init__(self) -> None:
        """Make it."""
        self._queue: Any = import_module("faster_fifo").Queue(max_size_bytes=CAPACITY)

    def put(self, obj: object, /) -> None:
        """Put an object."""
        self._queue.put(obj, timeout=FOR_EVER)

    def get(self) -> Any:
        """Take an object."""
        return self._queue.get(timeout=FOR_EVER)

    def close(self) -> None:
        """Say that this process puts nothing more."""
        self._queue.close()

    def join_thread(self) -> None:
        """Return: there is no thread."""


class Context(ForkContext):
    """Queues of faster-fifo."""

    def Queue(self) -> Queue:
        """Make a queue."""
        return Queue()


def get_context(method: str | None) -> Context:
    """Return the context."""
    return Context()
