"""What the pools of other libraries have in common: here each in the shape of multiprocessing's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from peers import ForkContext


class Result(Protocol):
    """What a call that is under way is known by."""

    def get(self) -> Any:
        """Wait for the result."""


class FutureResult:
    """A future that is asked as multiprocessing asks."""

    def __init__(self, future: Any) -> None:
        """Wrap *future*."""
        self.get = future.result


class ExecutorPool:
    """An executor of the shape of `concurrent.futures`."""

    def __init__(self, executor: Any) -> None:
        """Use *executor*, and end it."""
        self._executor = executor

    def __enter__(self) -> ExecutorPool:
        """Return the pool."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._executor.shutdown()

    def apply(self, function: Callable[..., Any], args: Sequence[object]) -> Any:
        """Call and wait."""
        return self._executor.submit(function, *args).result()

    def apply_async(self, function: Callable[..., Any], args: Sequence[object]) -> Result:
        """Call."""
        return FutureResult(self._executor.submit(function, *args))

    def map(
        self, function: Callable[..., Any], iterable: Iterable[object], chunksize: int = 1
    ) -> list[Any]:
        """Call for each, and wait."""
        return list(self.imap_unordered(function, iterable))

    def imap_unordered(
        self, function: Callable[..., Any], iterable: Iterable[object]
    ) -> Iterator[Any]:
        """Call for each, a task each; executors know but the order of the calls."""
        return iter(self._executor.map(function, iterable, chunksize=1))


class PoolContext(ForkContext):
    """A context that has a pool and nothing else of its own."""

    def __init__(self, pool: Callable[[int], Any]) -> None:
        """Have *pool* make one for a number of workers."""
        self.Pool = pool
