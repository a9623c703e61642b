"""What a program gets for the tasks that it gives to a pool."""

from __future__ import annotations

from procession._pools.outcomes import call_back
from procession._pools.task import FunctionReference, Task
from procession._pools.waiters import Waiters
from procession.errors import TimeoutError as _TimeoutError

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from procession._pools.progress import Watch


class ApplyResult:
    """The result of `Pool.apply_async`, which may not be there yet.

    Threads: any. It keeps the pool alive, which runs as long as somebody waits.
    """

    _callback: Callable[[Any], object] | None = None
    _error_callback: Callable[[BaseException], object] | None = None
    _is_ready = False
    _succeeded = False
    _value: Any = None
    _tasks: Sequence[Task] = ()

    def __init__(self, pool: Any, function: FunctionReference) -> None:
        self._pool = pool
        self.function = function
        self._waiters = Waiters()

    def call(
        self,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        """Have one of the two called with the result. Before there are tasks for it."""
        self._callback = callback
        self._error_callback = error_callback

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the result, up to *timeout* seconds (None: for ever), and return it.

        Raises what the call has raised, with the worker's traceback as its cause;
        `procession.TimeoutError` when the time is over; and what became of a task that was
        not done: `WorkerDiedError`, `TaskTimeoutError`, `TaskCancelledError`,
        `BrokenPoolError`, `MaybeEncodingError` (see `procession.errors`).
        """
        self.wait(timeout)
        if not self._is_ready:
            raise _TimeoutError
        if self._succeeded:
            return self._value
        raise self._value

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the result is there, up to *timeout* seconds (None: for ever)."""
        if not self._is_ready:
            self._waiters.wait(self.ready, timeout, self._pool._crew)

    def ready(self) -> bool:
        """Return whether the result is there."""
        return self._is_ready

    def successful(self) -> bool:
        """Return whether the call has returned rather than raised.

        Raises `ValueError` when the result is not there yet.
        """
        if not self._is_ready:
            raise ValueError(f"{self!r} not ready")
        return self._succeeded

    def cancel(self) -> bool:
        """Cancel what is not done yet; return whether there was anything to cancel.

        A task that nobody has begun is dropped. A worker that is at it is killed, and
        another one takes its place; a thread cannot be, so that a `ThreadPool` finishes
        what it has begun. The result becomes `TaskCancelledError`, in a moment.
        """
        return not self._is_ready and self._pool._crew.cancel(self._tasks)

    def wants(self, task: Task) -> bool:
        """See `Job.wants`."""
        return not task.cancelled

    def deliver(self, task: Task, succeeded: bool, value: Any) -> bool:
        """See `Job.deliver`."""
        self._finish(succeeded, value)
        return False

    def told(self) -> None:
        """See `Job.told`."""

    def _finish(self, succeeded: bool, value: Any) -> None:
        self._tasks = ()
        self._succeeded = succeeded
        self._value = value
        callback = self._callback if succeeded else self._error_callback
        self._callback = self._error_callback = None
        if callback is not None:
            call_back(callback, value)
        # Only now: who waits for the result finds what the callback has done.
        self._is_ready = True
        self._waiters.wake()


class MapResult(ApplyResult):
    """The result of a map: ready when all of it is done, or has failed.

    When calls raise, the result is what the first one raised that is known of, once the
    others have ended, too.
    """

    def __init__(
        self, pool: Any, function: FunctionReference, length: int, watch: Watch | None
    ) -> None:
        super().__init__(pool, function)
        self._watch = watch
        self._results: list[Any] = [None] * length
        self._left = length
        self._error: BaseException | None = None

    def deliver(self, task: Task, succeeded: bool, value: Any) -> bool:
        """See `Job.deliver`."""
        watch = self._watch
        if watch is not None:
            watch.note(task.size, succeeded)
        if succeeded:
            self._results[task.position : task.position + task.size] = value
        elif self._error is None:
            self._error = value
        self._left -= task.size
        if not self._left:
            self.told()  # before anybody who waits goes on
            results, self._results = self._results, []
            if self._error is None:
                self._finish(True, results)
            else:
                self._finish(False, self._error)
        return watch is not None

    def told(self) -> None:
        """See `Job.told`."""
        if self._watch is not None:
            self._watch.tell()
