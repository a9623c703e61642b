"""Maps whose results come one by one while their input goes on: `imap` and its relatives."""

from __future__ import annotations

import sys
from itertools import chain, islice, starmap
from operator import length_hint

from procession._ground.deque import deque
from procession._pools.task import FunctionReference, Task
from procession._pools.waiters import Waiters
from procession._pools.wire import MAP
from procession.errors import TimeoutError as _TimeoutError

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, Self

    from procession._pools.crew import Crew
    from procession._pools.options import Terms
    from procession._pools.progress import Watch

#: Input of these kinds never makes anybody wait, and is known to be over when it is.
_AT_HAND = (list, tuple, range, str, bytes, set, frozenset, dict)
#: So many chunks are given at once.
_MOST_AT_ONCE = 256
#: Whenever so many chunks are left to be taken out, or none, there may be room for more.
_LOOKS_EVERY = 16
#: The arguments of one call that has none, for `starmap`.
_ONE_CALL: tuple[tuple[()], ...] = ((),)


class Feeder:
    """Gives the input of one stream to the pool, some way ahead of its results.

    What is at hand is given by the pool's own thread; anything else may make its reader wait
    for long, and has a thread of its own, as it always had in multiprocessing. So no signal
    handler comes between what is read and what is given.

    Threads: `give` belongs to the one that reads; the rest, any, and signal handlers: there is
    no lock. How much room there is follows from what is where, and is counted nowhere.
    """

    def __init__(
        self,
        stream: Stream,
        crew: Crew,
        iterable: Iterable[Any],
        chunk_size: int,
        ahead: int,
        quick_ahead: int,
        terms: Terms,
    ) -> None:
        self._stream = stream
        self._crew = crew
        self._knows_end = type(iterable) in _AT_HAND
        #: Whether the pool's own thread reads it.
        self.is_at_hand = self._knows_end and crew.reads_input
        self._iterable: Iterable[Any] | None = iterable
        self._input: Iterator[Any] | None = None
        self._chunks: Iterator[tuple[Any, ...]] = iter(())
        self._chunk_size = chunk_size
        # What its tasks are given apart from their input; most get nothing.
        self._terms = terms if terms.ends_tasks else None
        # How many calls and how many chunks were given.
        self._position = 0
        self._number = 0
        # How many chunks there may be between here and who takes results out.
        self._ahead = ahead
        self._quick_ahead = quick_ahead
        # Giving one by one costs more.
        self._worthwhile = max(1, ahead // 2)
        self._is_lifted = False
        self.is_over = False
        self._waiters = Waiters()

    def start(self) -> None:
        """Give the first input. Raises what `Crew.add_feeder` does."""
        try:
            self._crew.add_feeder(self)
            if not self.is_at_hand:
                import threading

                threading.Thread(target=self._run, name="Pool-input", daemon=True).start()
        except BaseException:
            self._end(None)  # nobody has the stream
            raise

    def describe(self) -> str:
        """Return which input is left, for people."""
        return f"the input of {self._stream.function.name}() from item {self._position} on"

    def lift(self) -> None:
        """Give all that is left, however much has not been taken out."""
        self._is_lifted = True
        self._have_given()

    def stop(self, error: BaseException) -> None:
        """Give no more; the stream ends with *error* behind what was given. Idempotent."""
        if not self.is_over:
            self._end(error)

    def look_for_room(self) -> None:
        """Have more given if there is room for it: something was taken out, or is waited for."""
        if self.is_due():
            self._have_given()

    def is_due(self) -> bool:
        """Return whether there is room for so much that it is worth while."""
        return not self.is_over and self._room() >= self._worthwhile

    def _have_given(self) -> None:
        """Wake who gives."""
        if self.is_at_hand:
            self._crew.look_for_input()
        else:
            self._waiters.wake()

    def _room(self) -> int:
        if self._is_lifted:
            return sys.maxsize
        ahead = self._quick_ahead if self._crew.is_quick() else self._ahead
        return ahead - (self._number - self._stream.taken_out())

    def _run(self) -> None:
        while not self.is_over:
            self._waiters.wait(lambda: self.is_over or self.is_due(), None, self._crew)
            # One by one: the next may make us wait.
            while not self.is_over and self.give(self._crew.feed, 1):
                pass

    def give(self, add: Callable[[list[Task]], object], most: int = _MOST_AT_ONCE) -> bool:
        """Have *add* called with as many tasks as there is room for, up to *most*.

        Returns whether there were any.
        """
        tasks: list[Task] = []
        failure: BaseException | None = None
        is_last = False
        position, number = self._position, self._number
        try:
            if self._input is None:
                assert self._iterable is not None
                self._input, self._iterable = iter(self._iterable), None
                self._chunks = _cut(self._input, self._chunk_size)
            stream, terms = self._stream, self._terms
            most = max(0, min(self._room(), most))
            for chunk in islice(self._chunks, most):
                task = Task(stream, MAP, chunk)
                task.position, task.number = position, number
                size = len(chunk)
                if size > 1:
                    task.size = size
                if terms is not None:
                    terms.apply_to(task)
                tasks.append(task)
                position += size
                number += 1
            is_last = len(tasks) < most or (self._knows_end and not length_hint(self._input))
        except BaseException as error:  # whatever it is, nobody may wait for more
            is_last, failure = True, error
        self._position, self._number = position, number
        if tasks:
            add(tasks)  # also when we were stopped meanwhile: they may be counted in the total
        if is_last:
            self._input = None
            self._chunks = iter(())
            self._end(failure)
        return bool(tasks)

    def _end(self, error: BaseException | None) -> None:
        self.is_over = True
        self._stream.end_input(self._number, error)
        self._crew.drop_feeder(self)
        self._waiters.wake()


def _cut(items: Iterator[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Return *items* in chunks of *size*, each of which is read when it is asked for."""
    if size == 1:
        return zip(items)
    return iter(lambda: tuple(islice(items, size)), ())


class _Failure:
    """What stands for the results of a chunk that has failed."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Stream:
    """The results of a map, one by one.

    Threads: any number may take results out; each result goes to one of them. A signal handler
    that raises in `next` may lose the result that was just taken out, and no other one.
    """

    _feeder: Feeder

    def __init__(self, pool: Any, function: FunctionReference, watch: Watch | None) -> None:
        self._pool = pool
        self._crew: Crew = pool._crew
        self._watch = watch
        self.function = function
        self._waiters = Waiters()
        #: The results of whole chunks that can be taken out.
        self._ready: deque[Sequence[Any]] = deque()
        #: What is left of the chunk that was taken out last.
        self._rest: deque[Any] = deque()
        # How many chunks the pool has brought, and how many there are; None if that is not known.
        self._brought = 0
        self._total: int | None = None
        # What has ended the input, until that was told.
        self._failure: deque[BaseException] = deque(maxlen=1)

    def begin(self, feeder: Feeder) -> None:
        """Begin to be fed."""
        self._feeder = feeder
        feeder.start()

    def wants(self, task: Task) -> bool:
        """See `Job.wants`."""
        return True

    def deliver(self, task: Task, succeeded: bool, value: Any) -> bool:
        """See `Job.deliver`."""
        if self._watch is not None:
            self._watch.note(task.size, succeeded)
        self._bring(task, value if succeeded else (_Failure(value),))
        self._brought += 1  # last: who sees this sees what was brought
        return True

    def _bring(self, task: Task, results: Sequence[Any]) -> None:
        """Have the results of *task* taken out when its turn has come."""
        self._ready.append(results)

    def told(self) -> None:
        """See `Job.told`."""
        if self._watch is not None:
            self._watch.tell()
        self._waiters.wake()

    def end_input(self, total: int, error: BaseException | None) -> None:
        """Learn that the input has ended after *total* chunks, by *error* if there is one."""
        if self._total is None:
            if error is not None:
                self._failure.append(error)
            self._total = total
        if self._watch is not None:
            self._watch.expect(total)
        self.told()

    def taken_out(self) -> int:
        """Return how many chunks were taken out."""
        return self._brought - len(self._ready)

    def __iter__(self) -> Self:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result, waiting for it up to *timeout* seconds (None: for ever).

        Raises `StopIteration` when there are no more, `procession.TimeoutError` when the time
        is over, and what `AsyncResult.get` raises for a call that has raised; with more than
        one call in a chunk, what is known of it is one exception for all. What has ended the
        input too early, an exception of its own or the end of the pool, is raised once, last.
        """
        while True:
            if self._rest:
                try:
                    value = self._rest.popleft()
                except IndexError:
                    continue  # another thread was faster
                if type(value) is _Failure:
                    raise _no_end(value.error)
                return value
            ready = self._ready
            if not ready:
                self._wait(timeout)
                continue
            try:
                # What is in the next chunk is taken out in one step, which no thread and no signal
                # handler can split.
                self._rest.extend(chain.from_iterable(starmap(ready.popleft, _ONE_CALL)))
            except IndexError:
                continue  # another thread was faster
            if not len(ready) % _LOOKS_EVERY:
                self._feeder.look_for_room()

    __next__ = next

    def _wait(self, timeout: float | None) -> None:
        """Wait until there is something to be taken out; raise what `next` does if not."""
        if self._is_exhausted():
            try:
                error = self._failure.popleft()
            except IndexError:
                raise StopIteration from None
            raise error
        self._feeder.look_for_room()
        if not self._waiters.wait(self._has_news, timeout, self._crew):
            raise _TimeoutError

    def _is_exhausted(self) -> bool:
        # In this order, in which results move on.
        return self._total is not None and self._brought >= self._total and not self._has_results()

    def _has_results(self) -> bool:
        return bool(self._ready) or bool(self._rest)

    def _has_news(self) -> bool:
        return self._has_results() or self._is_exhausted()


def _no_end(error: BaseException) -> BaseException:
    """Return what to raise for *error* of a call: a `StopIteration` would be taken for the end."""
    if not isinstance(error, StopIteration):
        return error
    shown = RuntimeError("a call has raised StopIteration")
    shown.__cause__ = error
    return shown


class IMapUnorderedIterator(Stream):
    """The results of `Pool.imap_unordered`, in the order in which they come."""


class IMapIterator(Stream):
    """The results of `Pool.imap`: what comes early waits for its turn."""

    def __init__(self, pool: Any, function: FunctionReference, watch: Watch | None) -> None:
        super().__init__(pool, function, watch)
        self._early: dict[int, Sequence[Any]] = {}
        self._next_number = 0

    def _bring(self, task: Task, results: Sequence[Any]) -> None:
        self._early[task.number] = results
        while self._next_number in self._early:
            # In this order: it is somewhere at any time, so that nobody sees room for one more.
            self._ready.append(self._early[self._next_number])
            del self._early[self._next_number]
            self._next_number += 1

    def taken_out(self) -> int:
        """See `Stream.taken_out`."""
        return super().taken_out() - len(self._early)
