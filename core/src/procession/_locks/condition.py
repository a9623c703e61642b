"""`Condition`: waiting for a change that others announce."""

from __future__ import annotations

import time

from procession._locks.wait_line import FREE, WAITING, Seat, WaitLine
from procession.errors import OwnerDiedError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeVar

    from procession._locks.gong import Ear
    from procession.synchronize import Lock, RLock

    T = TypeVar("T")

_NOTIFIED: Final = 2

#: The most threads, of all processes together, that wait for one condition at once.
MOST_WAITERS: Final = 256

# How often a waiter looks whether somebody who was notified has died before it could act.
_LOOK_SECONDS = 0.25


class Condition:
    """A lock, and waiting, without it, until another one that holds it says that it may pay.

    A context makes it, around *lock*, which is an `RLock` of its own by default. As
    `threading.Condition` in every respect; and whoever is killed, at any instruction,
    swallows no notification that others wait for: what was meant for a process that has died
    before `wait` returned there goes to the next one that waits.

    Every way out of `wait`, exceptions included, is with the lock held. If a process has
    died holding the lock meanwhile, that exception is `OwnerDiedError`. The first
    KeyboardInterrupt waits for the lock for this reason; a second one does not.

    Threads: any. Fork: both processes have it.
    """

    def __init__(self, lock: Lock | RLock | None = None, *, ctx: object = None) -> None:
        if lock is None:
            from procession.synchronize import RLock

            lock = RLock()
        self._set_up(lock, WaitLine(MOST_WAITERS))

    def _set_up(self, lock: Lock | RLock, line: WaitLine) -> None:
        self.acquire = lock.acquire
        self.release = lock.release
        if not hasattr(lock, "_times_held"):
            raise TypeError(
                f"a condition needs a Lock or RLock of procession, not {type(lock).__name__}: "
                f"others do not tell who holds them"
            )
        self._lock = lock
        self._line = line

    def wait(self, timeout: float | None = None) -> bool:
        """Wait without the lock up to *timeout* seconds (None: for ever) for a notification.

        Returns whether there was one. The lock must be held, is released however often it
        was acquired, and held as before afterwards. Raises `AssertionError` when it was not
        held; `OwnerDiedError` when a process has died holding it.
        """
        times = self._lock._times_held()
        if not times:
            raise AssertionError("must acquire() condition before using wait()")
        deadline = None if timeout is None else time.monotonic() + timeout
        line, seat = self._line, Seat()
        try:
            with line.listen() as ear:
                line.guard.run(line.enlist, seat)
                try:
                    for _ in range(times):
                        self._lock.release()
                    self._sleep(seat, ear, deadline)
                finally:
                    self._hold_again(times)
            if line.state(seat) == _NOTIFIED:
                # Nobody else changes that of a process that lives: no guard is needed.
                line.leave(seat)
                return True
            return line.guard.run(self._leave, seat) == _NOTIFIED
        except BaseException:
            # A notification that we do not act upon is for another one.
            if seat.place >= 0 and line.guard.run(self._leave, seat) == _NOTIFIED:
                self._tell(1)
            raise

    def _sleep(self, seat: Seat, ear: Ear, deadline: float | None) -> None:
        """Wait until there is a notification or it is time."""
        line = self._line
        look_at = time.monotonic() + _LOOK_SECONDS
        while line.state(seat) == WAITING:
            now = time.monotonic()
            if now >= look_at:
                look_at = now + _LOOK_SECONDS
                if line.has(_NOTIFIED) and line.guard.run(self._inherit):
                    line.call()
            left = look_at - now
            if deadline is not None:
                left = min(left, deadline - now)
                if left <= 0:
                    # From now on, notifications are for others.
                    line.guard.run(self._give_up, seat)
                    return
            ear.wait(left)

    def _give_up(self, seat: Seat) -> None:
        if self._line.state(seat) == WAITING:
            self._line.leave(seat)

    def _leave(self, seat: Seat) -> int:
        return self._line.leave(seat) if seat.place >= 0 else FREE

    def _inherit(self) -> bool:
        """Hand on what the dead were told; return whether there was something."""
        line = self._line
        dead = [place for place in line.places(_NOTIFIED) if line.who(place).has_died()]
        for place in dead:
            # The next one first: killed in between, both have it, and one wakes for nothing.
            self._choose(1)
            line.tell(place, FREE)
        return bool(dead)

    def _hold_again(self, times: int) -> None:
        """Acquire the lock until it is held *times* times, then raise what came in between."""
        error: BaseException | None = None
        while self._lock._times_held() < times:
            try:
                self._lock.acquire()
            except OwnerDiedError as death:
                error = error or death
            except BaseException as interrupt:
                if error is not None and not isinstance(error, OwnerDiedError):
                    raise
                error = interrupt
        if error is not None:
            raise error

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Wait until *predicate* returns something true; return what it returned last.

        It is called with the lock held. Not for longer than *timeout* seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        result = predicate()
        while not result:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Wake *n* of those who wait, those first that have waited longest.

        The lock must be held; otherwise raises `AssertionError`.
        """
        self._check_held()
        self._tell(n)

    def notify_all(self) -> None:
        """Wake all who wait now. The lock must be held; otherwise raises `AssertionError`."""
        self._check_held()
        self._tell(MOST_WAITERS)

    def _check_held(self) -> None:
        if not self._lock._times_held():
            raise AssertionError("lock is not owned")

    def _tell(self, n: int) -> None:
        if self._line.guard.run(self._choose, n):
            self._line.call()

    def _choose(self, n: int) -> int:
        """Notify *n* living waiters, as far as there are so many; return how many."""
        line = self._line
        told = 0
        for place in line.places(WAITING):
            if told >= n:
                break
            if line.who(place).has_died():
                line.tell(place, FREE)
            else:
                line.tell(place, _NOTIFIED)
                told += 1
        return told

    def __enter__(self) -> bool:
        """Acquire the lock."""
        return self._lock.__enter__()

    def __exit__(self, *exception: object) -> None:
        """Release the lock."""
        self._lock.__exit__(*exception)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process of this host."""
        return _rebuild, (type(self), self._lock, self._line)

    def __repr__(self) -> str:
        """Return the lock, and how many wait."""
        waiting = len(self._line.guard.run(self._line.places, WAITING))
        return f"<{type(self).__name__}({self._lock!r}, {waiting})>"


def _rebuild(kind: type[Condition], lock: Lock | RLock, line: WaitLine) -> Condition:
    condition = kind.__new__(kind)
    condition._set_up(lock, line)
    return condition


# The public home: tracebacks print it and pickles refer to it.
Condition.__module__ = "procession.synchronize"
