"""Whether a pool takes tasks, and why it does not any more."""

from __future__ import annotations

import os
from _thread import RLock

from procession._pools import forks
from procession.errors import BrokenPoolError, TaskCancelledError

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from procession._pools.stream import Feeder


class Entrance:
    """The one way into a pool, of processes or of threads, and the streams that stand in it.

    Threads: any, and signal handlers: the lock is re-entrant.
    """

    def __init__(self) -> None:
        forks.watch()
        self._pid = os.getpid()
        self._generation = forks.generation
        #: Between what is submitted last and the closing.
        self.lock = RLock()
        #: Why the pool has stopped by itself, if it has.
        self.broken: BrokenPoolError | None = None
        self.closing = False
        self.terminating = False
        self.feeders: set[Feeder] = set()

    def is_mine(self) -> bool:
        """Return whether this is the process that the pool belongs to."""
        return self._generation == forks.generation

    def check(self) -> None:
        """Raise `BrokenPoolError`, or `ValueError` when the pool takes no tasks for others."""
        if self.broken is not None and self.is_mine():
            raise self._broken_again(self.broken)
        self.check_ends()

    def check_ends(self) -> None:
        """Raise `ValueError` when the pool is another process's, or was told to end."""
        if not self.is_mine():
            raise ValueError(
                f"Pool not running in this process: it belongs to process {self._pid}, and "
                f"this is process {os.getpid()}; make a pool of its own here"
            )
        if self.closing or self.terminating:
            raise ValueError("Pool not running")

    def renew_lock(self) -> None:
        """Have a free lock: in a forked child nobody is left to release the old one."""
        self.lock = RLock()

    # -- ending

    @property
    def is_shut(self) -> bool:
        """Whether what is not done will not be done any more."""
        return self.terminating or self.broken is not None

    def stop(self) -> None:
        """Have nothing done any more; the streams end."""
        self.terminating = True
        self.stop_feeders()

    def give_up(self, error: BrokenPoolError, cause: BaseException | None = None) -> None:
        """Stop because of *error*, unless there was a reason before."""
        if self.broken is None:
            error.__cause__ = cause
            self.broken = error
        self.stop_feeders()

    def why_not(self, what: str) -> BaseException:
        """Return what becomes of *what*, a task say, that will not be done."""
        if self.broken is not None:
            return self._broken_again(self.broken)
        return TaskCancelledError(f"{what} was not done: the pool was terminated")

    def _broken_again(self, broken: BrokenPoolError) -> BrokenPoolError:
        """Return why the pool has stopped, for one more who asks."""
        again = BrokenPoolError(str(broken), failure=broken.failure)
        again.__cause__ = broken.__cause__
        return again

    # -- streams

    def admit(self, feeder: Feeder) -> None:
        """Let a stream in. Raises what `check` does."""
        with self.lock:
            self.check()
            self.feeders.add(feeder)
        if self.is_shut:  # since the check: who shuts it may not have seen this one
            self.stop_feeders()

    def lift(self) -> None:
        """Have all input of streams done, however little of their results was taken."""
        for feeder in self.feeders.copy():
            feeder.lift()

    def stop_feeders(self) -> None:
        """Have no more input given; it is missing for good. Idempotent."""
        for feeder in self.feeders.copy():
            feeder.stop(self.why_not(feeder.describe()))
