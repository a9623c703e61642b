"""Threads that wait for what a pool brings them."""

from __future__ import annotations

import threading
import time
from _thread import allocate_lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from procession._pool_crew import Crew


class Waiters:
    """Those who wait for something that happens once, or again and again.

    Threads: any, and signal handlers: there is no lock that could be held. Who waits looks
    again after it has joined the waiters, and who changes something wakes them afterwards.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: list[Any] = []  # slots of a deque would cost more than all the rest

    def wait(self, is_over: Callable[[], bool], timeout: float | None, crew: Crew) -> bool:
        """Wait until *is_over*, for up to *timeout* seconds; return whether it is."""
        if is_over():
            return True
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = -1.0 if until is None else until - time.monotonic()
            if until is not None and left <= 0:
                return is_over()
            crew.check_may_wait()
            lock = allocate_lock()
            lock.acquire()
            self._locks.append(lock)
            try:
                if not is_over():
                    lock.acquire(timeout=min(left, threading.TIMEOUT_MAX))
            finally:
                if lock in self._locks:  # nobody has woken us
                    self._forget(lock)
            if is_over():
                return True

    def _forget(self, lock: Any) -> None:
        try:
            self._locks.remove(lock)
        except (ValueError, IndexError):
            return  # somebody wakes us just now

    def wake(self) -> None:
        """Let all who wait look again."""
        locks = self._locks
        while locks:
            try:
                lock = locks.pop(0)
            except IndexError:
                return  # another thread wakes them as well
            lock.release()
