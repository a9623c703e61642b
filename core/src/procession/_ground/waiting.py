"""Waiting until descriptors are readable, or writable."""

from __future__ import annotations

import select
import sys
from time import monotonic

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: The longest single sleep, in seconds. A signal that comes in the moment before a system call,
#: after the interpreter has looked for the last time, does not end it: who waits for long has to
#: look again. (It is also why poll() need not be asked for more than the 24 days that it can.)
LONGEST_SLEEP = 1.0

_READABLE, _WRITABLE = 1, 4  # POLLIN and POLLOUT, which Windows does not have


def wait_readable(fd: int, timeout: float | None) -> bool:
    """Wait until *fd* is readable or at its end; None waits for ever (seconds).

    A negative *timeout* is 0. Goes on after a signal handler has run. Raises
    `ValueError` for a negative *fd*.
    """
    return _is_ready(fd, _READABLE, timeout)


def wait_writable(fd: int, timeout: float | None) -> bool:
    """Wait like `wait_readable` until *fd* takes something, or nobody reads what it takes."""
    return _is_ready(fd, _WRITABLE, timeout)


def _is_ready(fd: int, event: int, timeout: float | None) -> bool:
    if timeout is None or not 0 <= timeout <= LONGEST_SLEEP or sys.platform == "win32":
        return bool(_wait((fd,), event, timeout))
    poller = select.poll()
    poller.register(fd, event)
    return bool(poller.poll(timeout * 1000))


def wait_for_any(fds: Iterable[int], timeout: float | None) -> set[int]:
    """Wait like `wait_readable` for any of *fds*, and return those that are ready."""
    return _wait(fds, _READABLE, timeout)


def asker(fd: int) -> Callable[[], object]:
    """Return what says, by a true value, whether *fd* is readable or at its end: at once.

    For one thread at a time. It lets go of the GIL each time that it is called.
    """
    poll = poller_of(fd)
    return lambda: poll(0)


def poller_of(fd: int) -> Callable[[float], object]:
    """Return what waits, so many milliseconds, and says as `asker` does whether *fd* is readable.

    For one thread at a time.
    """
    if sys.platform == "win32":
        raise OSError("asking descriptors needs poll(), which Windows does not have")
    poller = select.poll()
    poller.register(fd, _READABLE)
    return poller.poll


def _wait(fds: Iterable[int], event: int, timeout: float | None) -> set[int]:
    if sys.platform == "win32":
        raise OSError("waiting for descriptors needs poll(), which Windows does not have")
    poller = select.poll()
    for fd in fds:
        poller.register(fd, event)
    left = LONGEST_SLEEP if timeout is None else timeout
    if left >= LONGEST_SLEEP:
        until = None if timeout is None else monotonic() + timeout
        while left >= LONGEST_SLEEP:
            ready = poller.poll(LONGEST_SLEEP * 1000)
            if ready:
                return {fd for fd, _ in ready}
            if until is not None:
                left = until - monotonic()
    # poll() takes milliseconds and rounds up, so that it never spins at the end.
    return {fd for fd, _ in poller.poll(max(0.0, left) * 1000)}
