"""`ProcessPoolExecutor`: the executor of `concurrent.futures`, with procession's workers.

Only parents of workers import this.
"""

from __future__ import annotations

import atexit
import operator
import time
from collections import deque
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from procession._ground.after_fork import in_forked_children
from procession._pools import wire
from procession._pools.crew import Crew
from procession._pools.outcomes import call_back
from procession._pools.staff import Recipe
from procession._pools.task import FunctionReference, FunctionReferences, Task
from procession.errors import BrokenPoolError, TaskCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from procession.context import BaseContext

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor"]

T = TypeVar("T")


class _Call:
    """What the tasks of an executor belong to: one future each."""

    __slots__ = ("_runs", "function", "future")

    def __init__(self, function: FunctionReference) -> None:
        self.function = function
        self.future: Future[Any] = Future()
        #: Whether it was begun; None as long as it can be cancelled.
        self._runs: bool | None = None

    def wants(self, task: Task) -> bool:
        """See `Job.wants`: whether nobody has cancelled the future, which runs from now on."""
        if self._runs is None:
            self._runs = self.future.set_running_or_notify_cancel()
        return self._runs

    def deliver(self, task: Task, succeeded: bool, value: Any) -> bool:
        """See `Job.deliver`."""
        if self._runs is None and isinstance(value, TaskCancelledError):
            self.future.cancel()
        if not self.wants(task):
            return False
        if isinstance(value, BrokenPoolError):
            value = _broken(value)
        # Callbacks of the program are called in there.
        tell = self.future.set_result if succeeded else self.future.set_exception
        call_back(tell, value)
        return False

    def told(self) -> None:
        """See `Job.told`."""


def _broken(error: BrokenPoolError) -> BrokenProcessPool:
    broken = BrokenProcessPool(str(error))
    broken.__cause__ = error
    return broken


class ProcessPoolExecutor(Executor):
    """`concurrent.futures.ProcessPoolExecutor`, with workers that may die.

    *max_workers*: how many (None: `procession.available_cpus()`); they are started at once.
    *mp_context*: the context of procession whose processes and transport are used. Each
    worker calls *initializer* with *initargs* first, and is replaced after
    *max_tasks_per_child* calls, on every start method.

    A worker that dies is replaced. The call that it was at ends with
    `procession.errors.WorkerDiedError`; no other one is affected, so that
    `BrokenProcessPool` is left for when there are no workers to be had: the initializer
    fails, or they die before they have done anything. Its cause says which.

    Threads: any. Fork: it works in the process that made it only. It is ended by
    `shutdown`, which leaving a ``with`` block does, too, and with the interpreter: both
    have everything done first.

    Raises `ValueError` and `TypeError` for arguments that cannot be right, and what
    starting a process raises.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        if max_workers is None:
            from procession._starting.available_cpus import available_cpus

            max_workers = int(available_cpus())
        self._max_workers = operator.index(max_workers)
        if self._max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        if mp_context is None:
            from procession.context import default_context as mp_context
        recipe = Recipe(mp_context, initializer, tuple(initargs), max_tasks_per_child, None, None)
        self._references = FunctionReferences(recipe.encoder)
        self._crew = Crew(recipe, self._max_workers)
        _remember(self)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have *fn* called in a worker, and return the future of what it returns.

        Raises `RuntimeError` after `shutdown`, and `BrokenProcessPool`, which is one, too.
        What cannot be pickled is the result.
        """
        call = _Call(self._references.get(fn))
        return self._submit(Task(call, wire.APPLY, (args, kwargs)), call)

    def _submit(self, task: Task, call: _Call) -> Future[Any]:
        try:
            self._crew.submit((task,))
        except BrokenPoolError as error:
            raise _broken(error) from error
        except ValueError as error:
            raise RuntimeError(f"cannot schedule new futures after shutdown: {error}") from error
        return call.future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator over what *fn* returns for each item, or each of several, in order.

        *timeout*: how many seconds from now on results may take; then the iterator raises
        `TimeoutError`. *chunksize*: how many calls are given to a worker at once; they fail
        together. *buffersize*: how many chunks may be waiting, at work, or not taken out yet;
        the input is read on as results are taken out (None: all of it is read at once).
        An iterator that ends early cancels what nobody has begun.

        Raises `ValueError` and `TypeError`, what reading the input raises, and as `submit`.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            if not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
        until = None if timeout is None else time.monotonic() + timeout
        coming = self._chunks(fn, zip(*iterables, strict=False), chunksize)
        waiting = deque(islice(coming, buffersize))
        return _results(waiting, coming, until)

    def _chunks(
        self, fn: Callable[..., Any], items: Iterator[Any], size: int
    ) -> Iterator[Future[Any]]:
        """Submit chunks, each when its future is asked for."""
        function = FunctionReference(fn, self._references.encoder)
        position = 0
        while chunk := tuple(islice(items, size)):
            call = _Call(function)
            yield self._submit(Task.chunk(call, wire.STARMAP, chunk, position, 0), call)
            position += len(chunk)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the workers end when everything is done. Idempotent.

        *wait*: whether to return only then. *cancel_futures*: whether to cancel what nobody
        has begun. Raises `RuntimeError` when a callback of a future waits for itself.
        """
        crew = self._crew
        if not crew.entrance.is_mine():
            return
        crew.close()
        if cancel_futures:
            for task in crew.waiting():
                if isinstance(task.job, _Call):
                    task.job.future.cancel()
        if wait:
            crew.check_may_wait()
            crew.ended.wait()

    def __del__(self) -> None:
        crew = getattr(self, "_crew", None)
        if crew is not None:
            crew.close()


def _results(
    waiting: deque[Future[Any]], coming: Iterator[Future[Any]], until: float | None
) -> Iterator[Any]:
    """Take results out of *waiting*; each chunk that is taken out has another one submitted."""
    try:
        while waiting:
            left = None if until is None else until - time.monotonic()
            chunk = waiting[0].result(left)
            del waiting[0]
            waiting.extend(islice(coming, 1))
            yield from chunk
    finally:
        for future in waiting:
            future.cancel()


_executors: WeakSet[ProcessPoolExecutor] = WeakSet()
_watches_end = False


def _remember(executor: ProcessPoolExecutor) -> None:
    global _watches_end
    if not _watches_end:
        _watches_end = True
        # Its workers have been started, so that this comes later than what ends children,
        # and is run before it.
        atexit.register(_shut_down_all)
        in_forked_children(_executors.clear)
    _executors.add(executor)


def _shut_down_all() -> None:
    for executor in list(_executors):
        executor.shutdown()
