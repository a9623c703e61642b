"""Maps whose results come one by one while their input goes on: `imap` and its relatives."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from procession._pool_task import FunctionReference, Task
from procession._pool_waiters import Waiters
from procession.errors import TimeoutError as _TimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self

    from procession._pool_crew import Crew
    from procession._pool_progress import Watch

#: Input of these kinds is taken by whoever asks for results: it never makes anybody wait.
_AT_HAND = (list, tuple, range, str, bytes, set, frozenset, dict)


# So many chunks are given at once.
_MOST_AT_ONCE = 256


class Feeder:
    """Gives the input of one stream to the pool, some way ahead of its results.

    What is at hand is given by whoever takes results out; anything else may make its reader
    wait for long, and has a thread of its own, as it always had in multiprocessing.
    """

    def __init__(
        self,
        stream: Stream,
        crew: Crew,
        iterable: Iterable[Any],
        chunk_size: int,
        ahead: int,
        quick_ahead: int,
        make_task: Callable[[Any, int, int], Task],
    ) -> None:
        self._stream = stream
        self._crew = crew
        self._at_hand = type(iterable) in _AT_HAND
        self._iterable: Iterable[Any] | None = iterable
        self._input: Iterator[Any] | None = None
        self._chunk_size = chunk_size
        self._make_task = make_task
        self._position = 0
        self._number = 0
        # Chunks that may still be given; each that is taken out makes room for another one.
        self._room = ahead
        # What is added to it when chunks turn out to be quick.
        self._more_room = quick_ahead - ahead
        # Room is made when so many were taken out: giving one by one costs more.
        self._worthwhile = max(1, ahead // 2)
        # One step of a counter cannot be split, by no thread and no signal handler.
        self._taken_out = itertools.count(1)
        # Held while input is taken. Re-entrant, as is the condition: for signal handlers.
        self._giving = threading.RLock()
        self._changed = threading.Condition()
        self._unbounded = False
        self._stopped = False
        self._is_over = False

    def start(self) -> None:
        """Give the first input."""
        if self._at_hand:
            self._give()
        else:
            threading.Thread(target=self._run, name="Pool-input", daemon=True).start()

    def make_room(self) -> None:
        """Give more, some time: a chunk was taken out."""
        if next(self._taken_out) % self._worthwhile or self._is_over:
            return
        with self._changed:
            self._room += self._worthwhile
            if self._more_room and self._crew.is_quick():
                self._room, self._more_room = self._room + self._more_room, 0
            self._changed.notify()
        if self._at_hand:
            self._give()

    def lift(self) -> None:
        """Give all that is left, however much has not been taken out."""
        with self._changed:
            self._unbounded = True
            self._changed.notify()
        if self._at_hand:
            self._give()

    def stop(self) -> None:
        """Give no more."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._at_hand:
            self._give()

    def _run(self) -> None:
        while not self._is_over:
            with self._changed:
                while not (self._room > 0 or self._unbounded or self._stopped):
                    self._changed.wait()
            self._give()

    def _give(self) -> None:
        """Give as much as there is room for."""
        with self._giving:
            while not self._is_over:
                with self._changed:
                    if self._stopped:
                        self._end(None)
                        return
                    if self._unbounded:
                        self._room = max(self._room, _MOST_AT_ONCE)
                    room = min(self._room, _MOST_AT_ONCE if self._at_hand else 1)
                    if room <= 0:
                        return
                    self._room -= room
                self._give_chunks(room)

    def _give_chunks(self, count: int) -> None:
        tasks = []
        over = False
        failure = None
        try:
            if self._input is None:
                assert self._iterable is not None
                self._input, self._iterable = iter(self._iterable), None
            for _ in range(count):
                chunk = tuple(islice(self._input, self._chunk_size))
                if not chunk:
                    over = True
                    break
                tasks.append(self._make_task(chunk, self._position, self._number))
                self._position += len(chunk)
                self._number += 1
        except Exception as error:
            over, failure = True, error
        if tasks:
            self._crew.feed(tasks)
        if over:
            self._end(failure)

    def _end(self, error: BaseException | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._input = self._iterable = None
            self._stream.end_input(self._number, error)
            self._crew.drop_feeder(self)


class Stream:
    """The results of a map, one by one.

    Threads: any number may take results out; each result goes to one of them.
    """

    def __init__(self, pool: Any, function: FunctionReference, watch: Watch | None) -> None:
        self._pool = pool
        self._crew: Crew = pool._crew
        self._watch = watch
        self.function = function
        self._feeder: Feeder | None = None
        self._waiters = Waiters()
        #: Whole chunks that can be taken out.
        self._ready: deque[tuple[bool, Any]] = deque()
        #: What is left of the chunk that was taken out last.
        self._rest: deque[Any] = deque()
        self._taken = 0
        self._total: int | None = None
        self._input_error: BaseException | None = None

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
        self._bring(task, succeeded, value)
        return True

    def _bring(self, task: Task, succeeded: bool, value: Any) -> None:
        """Have the outcome of *task* taken out when its turn has come."""
        self._ready.append((succeeded, value))

    def told(self) -> None:
        """See `Job.told`."""
        if self._watch is not None:
            self._watch.tell()
        self._waiters.wake()

    def end_input(self, total: int, error: BaseException | None) -> None:
        """Learn that the input has ended after *total* chunks, by *error* if there is one."""
        self._input_error = error
        self._total = total
        if self._watch is not None:
            self._watch.expect(total)
        self.told()

    def __iter__(self) -> Self:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result, waiting for it up to *timeout* seconds (None: for ever).

        Raises `StopIteration` when there are no more, `procession.TimeoutError` when the time
        is over, and what `AsyncResult.get` raises for a call that has raised; with more than
        one call in a chunk, what is known of it is one exception for all.
        """
        while True:
            try:
                if self._rest:
                    return self._rest.popleft()
                if self._ready:
                    succeeded, value = self._ready.popleft()
                else:
                    succeeded = None
            except IndexError:
                continue  # another thread was faster
            if succeeded is None:  # not in the handler: Ctrl-C would show two tracebacks
                self._wait(timeout)
                continue
            self._taken += 1
            if self._feeder is not None:
                self._feeder.make_room()
            if not succeeded:
                raise value
            if len(value) == 1:
                return value[0]
            self._rest.extend(value)

    __next__ = next

    def _wait(self, timeout: float | None) -> None:
        """Wait until there is something to be taken out; raise what `next` does if not."""
        if self._is_exhausted():
            error, self._input_error = self._input_error, None
            if error is not None:
                raise error
            raise StopIteration
        if not self._waiters.wait(self._has_news, timeout, self._crew):
            raise _TimeoutError

    def _is_exhausted(self) -> bool:
        return self._total is not None and self._taken >= self._total and not self._ready

    def _has_news(self) -> bool:
        return bool(self._ready) or bool(self._rest) or self._is_exhausted()


class IMapUnorderedIterator(Stream):
    """The results of `Pool.imap_unordered`, in the order in which they come."""


class IMapIterator(Stream):
    """The results of `Pool.imap`: what comes early waits for its turn."""

    def __init__(self, pool: Any, function: FunctionReference, watch: Watch | None) -> None:
        super().__init__(pool, function, watch)
        self._early: dict[int, tuple[bool, Any]] = {}
        self._next_number = 0

    def _bring(self, task: Task, succeeded: bool, value: Any) -> None:
        self._early[task.number] = succeeded, value
        while self._next_number in self._early:
            self._ready.append(self._early.pop(self._next_number))
            self._next_number += 1
