"""A started process, seen from the process that started it."""

from __future__ import annotations

import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from functools import cache

from procession._waiting import wait_readable

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable

#: The exit code of a child whose real one nobody can know any more: somebody else
#: collected it, or the helper that should have reported it was killed. The standard
#: library answers the same number.
LOST_EXIT_CODE = 255

# Written out because the signal module costs a child more than a quarter of its own start.
_SIGKILL = 9


class Child(ABC):
    """A started process, seen from its parent.

    Threads: every method may be called from any thread. Fork: a forked copy of the
    parent inherits the object but is nobody's parent; core never uses it there.
    """

    #: The child's process id.
    pid: int
    #: A descriptor that becomes readable when the child has ended, and stays so.
    #: It is owned by this object, and closed by `close`.
    sentinel: int

    @abstractmethod
    def poll(self) -> int | None:
        """Return the exit code, the negative signal number, or None while it runs.

        Never blocks. Once it has answered a number it answers that number for ever.
        """

    @abstractmethod
    def signal(self, number: int, /) -> None:
        """Send signal *number*; that the child has ended meanwhile is no error.

        Never reaches another process that got the same process id.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what this object holds, not the child: never kills. Idempotent.

        Happens by itself when the object is collected.
        """

    def wait(self, timeout: float | None = None, /) -> int | None:
        """Wait up to *timeout* seconds (None: for ever) for the end; answer as `poll`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            code = self.poll()
            if code is not None:
                return code
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            wait_readable(self.sentinel, left)


class PidChild(Child):
    """A direct child of this process, known by its process id.

    Give it the *pid* right after the fork or spawn, before anybody can have waited
    for it. The sentinel is a pidfd where the kernel has them (Linux 5.3); elsewhere
    hand in *sentinel*, the reading end of a pipe whose writing end only the child
    holds; it is taken over.

    Raises `OSError` when descriptors have run out. The child, which nobody could wait
    for, is killed and collected then.
    """

    # Nothing is held before __init__ has run to its end.
    _closed = True

    def __init__(self, pid: int, sentinel: int | None = None) -> None:
        self.pid = pid
        self._exit_code: int | None = None
        self._lock = threading.Lock()
        self.sentinel = _open_pidfd(pid) if sentinel is None else sentinel
        self._closed = False

    def poll(self) -> int | None:
        """See `Child.poll`."""
        with self._lock:
            if self._exit_code is None:
                self._exit_code = self._collect()
            return self._exit_code

    def _collect(self) -> int | None:
        """Reap the child if it has ended; the lock is held."""
        if sys.platform == "win32":
            raise OSError("children cannot be collected by number on Windows")
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            # Reaped by somebody else (a wait for any child, an ignored SIGCHLD). The
            # sentinel still knows whether it has ended, only the code is gone.
            return LOST_EXIT_CODE if wait_readable(self.sentinel, 0) else None
        return os.waitstatus_to_exitcode(status) if pid == self.pid else None

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        self.close()

    def signal(self, number: int, /) -> None:
        """See `Child.signal`."""
        # Under the lock nobody reaps, so the pid stays the child's, if only as a zombie.
        with self._lock:
            if self._exit_code is None:
                self._exit_code = self._collect()
            if self._exit_code is None:
                os.kill(self.pid, number)

    def close(self) -> None:
        """See `Child.close`."""
        if self._closed:
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.sentinel)


@cache
def has_pidfd() -> bool:
    """Return whether this kernel has pidfds that can be polled."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _open_pidfd(pid: int) -> int:
    """Return a pidfd of the child *pid*; kill and collect it when there is none to be had."""
    if sys.platform != "linux":
        raise OSError("this platform has no pidfds; give a sentinel")
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, _SIGKILL)
        os.waitpid(pid, 0)
        raise
