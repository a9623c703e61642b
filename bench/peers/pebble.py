"""Pebble."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

from peers import get_all_start_methods
from peers.executors import ExecutorPool, FutureResult, PoolContext, Result

__all__ = ["get_all_start_methods", "get_context"]


class Pool(ExecutorPool):
    """A pool whose results come by an iterator of its own kind."""

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._executor.close()
        self._executor.join()

    def apply(self, function: Callable[..., Any], args: Sequence[object]) -> Any:
        """Call and wait."""
        return self.apply_async(function, args).get()

    def apply_async(self, function: Callable[..., Any], args: Sequence[object]) -> Result:
        """Call."""
        return FutureResult(self._executor.schedule(function, args=args))

    def imap_unordered(
        self, function: Callable[..., Any], iterable: Iterable[object]
    ) -> Iterator[Any]:
        """Call for each, a task each."""
        results: Iterator[Any] = self._executor.map(function, iterable, chunksize=1).result()
        return results


def _pool(processes: int) -> Pool:
    context = multiprocessing.get_context("fork")
    return Pool(import_module("pebble").ProcessPool(processes, context=context))


def get_context(method: str | None) -> PoolContext:
    """Return the context."""
    return PoolContext(_pool)
