"""A started process, seen from the process that started it."""

from __future__ import annotations

import os
import sys
import time
from _thread import RLock
from abc import ABC, abstractmethod

from procession._ground.waiting import wait_readable

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
        No zombie of a child is left when it has answered a number.
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
        self._is_reaped = False
        self._lock = RLock()  # re-entrant: a signal handler may ask, too
        self.sentinel = _open_pidfd(pid) if sentinel is None else sentinel
        self._closed = False

    def poll(self) -> int | None:
        """See `Child.poll`."""
        with self._lock:
            self._collect()
            return self._exit_code

    def _collect(self) -> None:
        """Learn the exit code if the child has ended, and reap it; the lock is held.

        In this order: a signal handler that asks between two lines learns the same, and
        after one that raises there the next one who asks reaps it.
        """
        if self._is_reaped:
            return
        try:
            if self._exit_code is None:
                code = _exit_code_of(self.pid)
                if code is None:
                    return
                self._exit_code = code
            _reap(self.pid)
            self._is_reaped = True
        except ChildProcessError:
            # Reaped by a handler, or by somebody else (a wait for any child, an ignored
            # SIGCHLD). The sentinel still knows whether it has ended, only the code is gone.
            if self._exit_code is None and wait_readable(self.sentinel, 0):
                self._exit_code = LOST_EXIT_CODE
            self._is_reaped = self._exit_code is not None

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        # Without the lock, which nobody can have now but a thread that a fork has left behind.
        self._release()

    def signal(self, number: int, /) -> None:
        """See `Child.signal`."""
        # Under the lock nobody reaps, so the pid stays the child's, if only as a zombie.
        with self._lock:
            self._collect()
            if self._exit_code is None:
                os.kill(self.pid, number)

    def close(self) -> None:
        """See `Child.close`."""
        if self._closed:
            return
        with self._lock:
            self._release()

    def abandon(self) -> None:
        """Do what `close` does, in a forked copy of the process that started the child.

        The lock may be held by a thread that the copy has not.
        """
        self._release()

    def _release(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self.sentinel)


def _exit_code_of(pid: int) -> int | None:
    """Return the exit code of the child *pid* if it has ended. It has yet to be reaped.

    Raises `ChildProcessError` if it was.
    """
    if sys.platform == "win32":
        raise OSError("children cannot be collected by number on Windows")
    if sys.platform == "linux":
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended == pid else None


def _reap(pid: int) -> None:
    """Free the number of the child *pid*, which has ended."""
    if sys.platform == "linux":  # on others it is free already
        os.waitpid(pid, os.WNOHANG)


_has_pidfd: bool | None = None


def has_pidfd() -> bool:
    """Return whether this kernel has pidfds that can be polled."""
    global _has_pidfd
    if _has_pidfd is None:
        _has_pidfd = _try_pidfd()
    return _has_pidfd


def _try_pidfd() -> bool:
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _open_pidfd(pid: int) -> int:
    """Return a pidfd of the child *pid*; kill and collect it when there is none to be had.

    A child that has ended and was collected at once (by the kernel, as SIGCHLD is ignored, or by
    somebody who waits for any child) has none any more, but what is readable for good.
    """
    if sys.platform != "linux":
        raise OSError("this platform has no pidfds; give a sentinel")
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        reader, writer = os.pipe()
        os.close(writer)
        return reader
    except OSError:
        try:
            os.kill(pid, _SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # as above
        raise
