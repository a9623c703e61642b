"""Threads that wait for what a pool brings them."""

from __future__ import annotations

import time
from _thread import allocate_lock

from procession._ground.waiting import LONGEST_SLEEP

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from procession._pools.crew import Crew


class Waiters:
    """Those who wait for something that happens once, or again and again.

    Threads: any, and signal handlers: there is no lock that could be held. Who waits looks
    again after it has joined the waiters, and who changes something wakes them afterwards.
    Those who were woken leave by themselves: a `wake` that an exception ends can be made again.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: list[Any] = []  # slots of a deque would cost more than all the rest

    def wait(
        self, is_over: Callable[[], bool], timeout: float | None, crew: Crew | None = None
    ) -> bool:
        """Wait until *is_over*, for up to *timeout* seconds; return whether it is.

        Raises `RuntimeError` in a callback of *crew*.
        """
        if is_over():
            return True
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONGEST_SLEEP if until is None else until - time.monotonic()
            if left <= 0:
                return is_over()
            if crew is not None:
                crew.check_may_wait()
            lock = allocate_lock()
            lock.acquire()
            try:
                self._locks.append(lock)
                if not is_over():
                    lock.acquire(timeout=min(left, LONGEST_SLEEP))
            finally:
                if lock in self._locks:
                    self._locks.remove(lock)
            if is_over():
                return True

    def wake(self) -> None:
        """Let all who wait look again."""
        for lock in self._locks.copy():
            try:
                lock.release()
            except RuntimeError:
                continue  # it was woken, and has not run yet


class End:
    """Something that happens once. Threads: any, and signal handlers, unlike `threading.Event`."""

    __slots__ = ("_is_set", "_waiters")

    def __init__(self) -> None:
        self._waiters = Waiters()
        self._is_set = False

    def is_set(self) -> bool:
        """Return whether it has happened."""
        return self._is_set

    def set(self) -> None:
        """Let it have happened."""
        self._is_set = True
        self._waiters.wake()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it, up to *timeout* seconds (None: for ever); return whether it has."""
        return self._waiters.wait(self.is_set, timeout)
