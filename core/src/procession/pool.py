"""`Pool` and `ThreadPool`: workers that do what a program gives them.

Only parents of workers import this.
"""

from __future__ import annotations

import sys
from _operator import index
from itertools import islice

from procession._pools import wire
from procession._pools.crew import Crew
from procession._pools.failures import RemoteTraceback
from procession._pools.options import MapTerms, Terms
from procession._pools.results import ApplyResult, MapResult
from procession._pools.staff import Recipe
from procession._pools.task import FunctionReference, FunctionReferences, Task
from procession.errors import MaybeEncodingError, TimeoutError

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Self, TypeVar, Unpack

    from procession._pools.event_stream import EventStream, PoolEvent
    from procession._pools.options import MapOptions, TaskOptions
    from procession._pools.progress import Progress
    from procession._pools.stream import IMapIterator, IMapUnorderedIterator
    from procession.context import BaseContext
    from procession.process import Process

    S = TypeVar("S", IMapIterator, IMapUnorderedIterator)

__all__ = [
    "ApplyResult",
    "AsyncResult",
    "EventStream",
    "IMapIterator",
    "IMapUnorderedIterator",
    "MapResult",
    "MaybeEncodingError",
    "Pool",
    "PoolEvent",
    "Progress",
    "RemoteTraceback",
    "ThreadPool",
    "TimeoutError",
]

AsyncResult = ApplyResult

# What the first task of most pools does not need, and where it is.
_LATER = {
    "EventStream": "_pools.event_stream",
    "IMapIterator": "_pools.stream",
    "IMapUnorderedIterator": "_pools.stream",
    "PoolEvent": "_pools.event_stream",
    "Progress": "_pools.progress",
}

INIT, RUN, CLOSE, TERMINATE = "INIT", "RUN", "CLOSE", "TERMINATE"

#: How many chunks per worker `imap` runs ahead of its results unless it is told otherwise, and
#: when they are quick.
_AHEAD_PER_WORKER, _QUICK_AHEAD_PER_WORKER = 32, 256
# A map is cut into so many chunks per worker unless it is told otherwise.
_CHUNKS_PER_WORKER = 4


def __getattr__(name: str) -> Any:
    """Import what is needed later."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"procession.{_LATER[name]}"
    __import__(module)
    value = getattr(sys.modules[module], name)
    globals()[name] = value
    return value


class Pool:
    """Worker processes that call functions for this program.

    *processes*: how many (None: as many as there are CPUs to use, see
    `procession.available_cpus`). *initializer* is called with *initargs* by each worker
    first; when it raises, the pool stops with that (`BrokenPoolError`). *context* is the
    context whose processes and transport are used; the selected ones by default.

    Workers are replaced, each when it has nothing to do, after *maxtasksperchild* tasks (a
    chunk of a map is one), when they are *max_age* seconds old, or when more than *max_rss*
    bytes of them are resident; None for never. They are daemonic, ignore Ctrl-C, which is
    the parent's, and may have children and pools of their own.

    A worker that dies is replaced; the task that it was at ends with `WorkerDiedError`,
    unless it has ``retries`` left, and no other one is affected.

    End a pool with `close` and `join`, or `terminate`, which leaving a ``with`` block does,
    too. Threads: any. Fork: it works in the process that made it only.

    Raises `ValueError` and `TypeError` for arguments that cannot be right, and what starting
    a process raises.
    """

    _crew: Any  # one of two classes that do the same
    _state = INIT

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: BaseContext | None = None,
        *,
        max_age: float | None = None,
        max_rss: int | None = None,
    ) -> None:
        if context is None:
            from procession.context import default_context as context
        if maxtasksperchild is not None and (
            not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        for name, limit in (("max_age", max_age), ("max_rss", max_rss)):
            if limit is not None and not limit > 0:
                raise ValueError(f"{name} must be more than 0, or None for no limit, not {limit!r}")
        self._begin(processes, initializer)
        recipe = Recipe(context, initializer, tuple(initargs), maxtasksperchild, max_age, max_rss)
        self._references = FunctionReferences(recipe.encoder)
        self._crew = Crew(recipe, self._size)
        self._state = RUN

    def _begin(self, processes: int | None, initializer: Callable[..., object] | None) -> None:
        """Check what all kinds of pools are made of."""
        if processes is None:
            from procession._starting.available_cpus import available_cpus

            processes = int(available_cpus())
        self._size = index(processes)
        if self._size < 1:
            raise ValueError("Number of processes must be at least 1")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._references = FunctionReferences()

    @staticmethod
    def Process(ctx: BaseContext, *args: Any, **kwds: Any) -> Process:
        """Return a process of a context, as `multiprocessing.pool.Pool.Process` does."""
        return ctx.Process(*args, **kwds)

    # -- single calls

    def apply(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:
        """Call *func* in a worker and return what it returns; see `apply_async`."""
        if options:
            return self.apply_async(func, args, kwds, **options).get()
        result = ApplyResult(self, self._references.get(func))
        task = Task(result, wire.APPLY, (tuple(args), dict(kwds) if kwds else {}))
        self._crew.call(task, result)
        return result.get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        **options: Unpack[TaskOptions],
    ) -> ApplyResult:
        """Have *func* called with *args* and *kwds* in a worker; return its result to come.

        *callback* is called with the result, *error_callback* with the exception, in a thread
        of the pool that does nothing else meanwhile.

        Options: *timeout* is how many seconds the call may take once a worker has it; then the
        worker is killed, and the result is `TaskTimeoutError`. *retries* is how often to try
        again when the worker dies or the time is over, for calls that may be made twice.

        Raises `ValueError` ("Pool not running") and `BrokenPoolError`. What cannot be
        pickled is the result.
        """
        result = ApplyResult(self, self._references.get(func))
        if callback is not None or error_callback is not None:
            result.call(callback, error_callback)
        task = Task(result, wire.APPLY, (tuple(args), dict(kwds) if kwds else {}))
        if options:
            terms = Terms(**options)
            self._check(terms)
            terms.apply_to(task)
        result._tasks = tasks = (task,)
        self._crew.submit(tasks)
        return result

    # -- maps

    def map(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        **options: Unpack[MapOptions],
    ) -> list[Any]:
        """Return what *func* returns for each item, in order; see `map_async`."""
        result = self._map(wire.MAP, func, iterable, chunksize, None, None, options)
        return result.get()  # type: ignore[no-any-return]  # it is a list

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        **options: Unpack[MapOptions],
    ) -> list[Any]:
        """Like `map`, with each item unpacked to the arguments of a call."""
        result = self._map(wire.STARMAP, func, iterable, chunksize, None, None, options)
        return result.get()  # type: ignore[no-any-return]  # it is a list

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        **options: Unpack[MapOptions],
    ) -> MapResult:
        """Have *func* called for each item; return the list of results to come.

        Items are given to workers in chunks of *chunksize* (None: about four chunks for each
        worker, single items when there is a *timeout*). A chunk is a task: it fails as a
        whole, *timeout* times its length is its time, and it is what *retries* counts for.

        Options are those of `apply_async`, and *progress*: True shows a bar on standard error
        (by rich, where that is installed); a function is called with a `Progress` whenever
        chunks have ended, as a callback is.

        Raises what iterating raises, and as `apply_async` does.
        """
        return self._map(wire.MAP, func, iterable, chunksize, callback, error_callback, options)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        **options: Unpack[MapOptions],
    ) -> MapResult:
        """Like `map_async`, with each item unpacked to the arguments of a call."""
        return self._map(wire.STARMAP, func, iterable, chunksize, callback, error_callback, options)

    def _map(
        self,
        mode: int,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunk_size: int | None,
        callback: Callable[[list[Any]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
        options: MapOptions,
    ) -> MapResult:
        terms = MapTerms(**options)
        self._check(terms)
        self._crew.entrance.check()
        items: Sequence[Any] = iterable if hasattr(iterable, "__len__") else list(iterable)  # type: ignore[assignment]
        if chunk_size is None:
            chunk_size = -(-len(items) // (_CHUNKS_PER_WORKER * self._size)) or 1
            if terms.timeout is not None:
                chunk_size = 1
        _check_chunk_size(chunk_size)
        function = FunctionReference(func, self._references.encoder)
        watch = terms.watch(function, len(items))
        result = MapResult(self, function, len(items), watch)
        result.call(callback, error_callback)
        tasks: list[Task] = []
        position = 0
        iterator = iter(items)
        while chunk := tuple(islice(iterator, chunk_size)):
            task = Task.chunk(result, mode, chunk, position, len(tasks))
            terms.apply_to(task)
            tasks.append(task)
            position += len(chunk)
        if watch is not None:
            watch.expect(len(tasks))
        if not tasks:
            result.told()
            result._finish(True, [])
            return result
        result._tasks = tasks
        self._crew.submit(tasks)
        return result

    def imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        buffersize: int | None = None,
        **options: Unpack[MapOptions],
    ) -> IMapIterator:
        """Return an iterator over what *func* returns for each item, in order.

        The input is read only so far ahead that at most *buffersize* chunks are waiting, at
        work or not taken out yet (None: 32 for each worker, 256 when they take less than a
        fifth of a millisecond). `join` has all of it done, whether anybody takes results out
        or not. The options are those of `map_async`.

        Raises `ValueError`, and as `apply_async` does.
        """
        from procession._pools.stream import IMapIterator

        return self._stream(IMapIterator, func, iterable, chunksize, buffersize, options)

    def imap_unordered(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        buffersize: int | None = None,
        **options: Unpack[MapOptions],
    ) -> IMapUnorderedIterator:
        """Like `imap`, with the results in the order in which they come."""
        from procession._pools.stream import IMapUnorderedIterator

        return self._stream(IMapUnorderedIterator, func, iterable, chunksize, buffersize, options)

    def _stream(
        self,
        kind: type[S],
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunk_size: int,
        ahead: int | None,
        options: MapOptions,
    ) -> S:
        from procession._pools.stream import Feeder

        terms = MapTerms(**options)
        self._check(terms)
        _check_chunk_size(chunk_size)
        quick_ahead = ahead
        if ahead is None:
            ahead = _AHEAD_PER_WORKER * self._size
            quick_ahead = _QUICK_AHEAD_PER_WORKER * self._size
        elif ahead < 1:
            raise ValueError(f"buffersize must be 1 or more, or None, not {ahead!r}")
        function = FunctionReference(func, self._references.encoder)
        total = len(iterable) if hasattr(iterable, "__len__") else None  # type: ignore[arg-type]
        stream = kind(self, function, terms.watch(function, total))

        stream.begin(
            Feeder(stream, self._crew, iterable, chunk_size, ahead, quick_ahead or ahead, terms)
        )
        return stream

    def _check(self, terms: Terms) -> None:
        """Raise `ValueError` if *terms* cannot be kept here."""

    # -- watching

    def events(self) -> EventStream:
        """Return an iterator over what happens in the pool from now on (`PoolEvent`).

        It ends with the pool, or when it is closed. Waiting for the next event in a callback
        of the pool is a `RuntimeError`.
        """
        return self._crew.events.open(self._crew)  # type: ignore[no-any-return]

    # -- ending

    def close(self) -> None:
        """Take no more tasks; the workers end when everything is done. Idempotent."""
        if self._state == RUN:
            self._state = CLOSE
            self._crew.close()

    def terminate(self) -> None:
        """End the workers at once, and wait until they have ended. Idempotent.

        What is not done gets `TaskCancelledError`. The workers get SIGTERM, and SIGKILL when
        they have not ended after five seconds.
        """
        self._state = TERMINATE
        self._crew.terminate()

    def join(self) -> None:
        """Wait until everything is done and the workers have ended.

        Raises `ValueError` ("Pool is still running") before `close` or `terminate`.
        """
        if self._state == RUN and self._crew.entrance.broken is None:
            raise ValueError("Pool is still running")
        self._crew.check_may_wait()
        self._crew.entrance.lift()
        self._crew.ended.wait()

    def __enter__(self) -> Self:
        """Return the pool. Raises `ValueError` when it was told to end.

        One that has stopped by itself, as its workers could not begin, says so when it is used:
        whether it has done so by now is a matter of luck.
        """
        self._crew.entrance.check_ends()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Terminate the pool."""
        self.terminate()

    def __reduce__(self) -> Any:
        """Refuse: workers belong to the process that started them."""
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        """Return the class, the state and the size."""
        kind = type(self)
        return f"<{kind.__module__}.{kind.__qualname__} state={self._state} pool_size={self._size}>"

    def __del__(
        self,
        is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        if self._state != RUN or is_finalizing() or self._crew.ended.is_set():
            return
        self._crew.terminate(wait=False)
        if self._crew.entrance.is_mine():
            from warnings import warn

            warn(f"unclosed running pool {self!r}", ResourceWarning, source=self, stacklevel=2)


class ThreadPool(Pool):
    """A pool whose workers are threads of this process; otherwise the same.

    Nothing is pickled. Threads cannot be killed: there is no *timeout* and nothing to retry,
    `AsyncResult.cancel` drops only what was not begun, and `terminate` does not wait for the
    rest, which `join` does.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        from procession._pools.threads import ThreadCrew

        self._begin(processes, initializer)
        self._crew = ThreadCrew(self._size, initializer, tuple(initargs))
        self._state = RUN

    def _check(self, terms: Terms) -> None:
        if terms.ends_tasks:
            raise ValueError(
                "a ThreadPool has no timeout and no retries: threads cannot be killed; use a Pool"
            )


def _check_chunk_size(chunk_size: int) -> None:
    if not isinstance(chunk_size, int):
        raise TypeError(f"chunksize must be an int of 1 or more, not {chunk_size!r}")
    if chunk_size < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunk_size}")
