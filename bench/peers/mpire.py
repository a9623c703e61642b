"""MPIRE."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

from peers import get_all_start_methods
from peers.executors import PeerPool, PoolContext, Result

__all__ = ["get_all_start_methods", "get_context"]


class Pool(PeerPool):
    """A pool whose workers stay from call to call."""

    def __init__(self, processes: int) -> None:
        """Make it."""
        self._pool: Any = import_module("mpire").WorkerPool(
            processes, start_method="fork", keep_alive=True
        )

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._pool.stop_and_join()

    def apply(self, function: Callable[..., Any], args: Sequence[object]) -> Any:
        """Call and wait."""
        return self._pool.apply(function, tuple(args))

    def apply_async(self, function: Callable[..., Any], args: Sequence[object]) -> Result:
        """Call."""
        result: Result = self._pool.apply_async(function, tuple(args))
        return result

    def imap_unordered(
        self, function: Callable[..., Any], iterable: Iterable[object]
    ) -> Iterator[Any]:
        """Call for each, a task each. An array would be cut into its items: it goes as a tuple."""
        arguments = [(argument,) for argument in iterable]
        results: Iterator[Any] = self._pool.imap_unordered(function, arguments, chunk_size=1)
        return results


def get_context(method: str | None) -> PoolContext:
    """Return the context."""
    return PoolContext(Pool)
