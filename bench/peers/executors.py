"""What the pools of other libraries have in common: here each in the shape of multiprocessing's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, Self

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


class PeerPool(ABC):
    """What is the same in all of them."""

    def __enter__(self) -> Self:
        """Return the pool."""
        return self

    @abstractmethod
    def imap_unordered(
        self, function: Callable[..., Any], iterable: Iterable[object]
    ) -> Iterator[Any]:
        """Call for each, a task each."""

    def map(
        self, function: Callable[..., Any], iterable: Iterable[object], chunksize: int = 1
    ) -> list[Any]:
        """Call for each, and wait."""
        return list(self.imap_unordered(function, iterable))


class ExecutorPool(PeerPool):
    """An executor of the shape of `concurrent.futures`."""

    def __init__(self, executor: Any) -> None:
        """Use *executor*, and end it."""
        self._executor = executor

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._executor.shutdown()

    def apply(self, function: Callable[..., Any], args: Sequence[object]) -> Any:
        """Call and wait."""
        return self._executor.submit(function, *args).result()

    def apply_async(self, function: Callable[..., Any], args: Sequence[object]) -> Result:
        """Call."""
        return FutureResult(self._executor.submit(function, *args))

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
