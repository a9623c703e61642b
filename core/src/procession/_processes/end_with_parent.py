"""Ending this process when its parent has died, at once and whatever it is doing.

The kernel does it: it sends SIGKILL to this process when the last writing end of the
parent's lifeline is closed. No thread waits, nothing is polled, and code that never returns
to the interpreter is ended, too.

PR_SET_PDEATHSIG, which is often used for this, follows the *thread* that started the child:
it kills the children of a thread that merely ends. It also cannot see past a fork server,
and needs ctypes.
"""

from __future__ import annotations

import os
import sys
from os import getpid, getppid

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable

# Written out because the signal module costs a child more than a quarter of its own start.
_SIGKILL = 9


def end_with_parent(lifeline: int, parent: int | None = None) -> None:
    """From now on, end this process by SIGKILL as soon as *lifeline* is readable.

    *lifeline* is the reading end of the parent's; it stays the caller's and must stay open.
    *parent* is the parent's pid, if this is a direct child: that is quicker to look up.
    If the parent has died already, this does not return. Holds until the end of the process
    or an ``exec``; a process that is forked from this one is not affected.

    Costs some 10 microseconds and one descriptor. Where the kernel cannot do it (it is not
    Linux, or ``/proc`` is missing), a thread waits instead, which code that holds the
    interpreter's lock can delay.
    """
    Tie(lifeline).bind(parent)


class Tie:
    """The end of a process with its parent, made ready: only whom to end is missing.

    A parent may make it before it forks the child, which binds itself; the parent closes its own
    afterwards. Threads: one. Never raises: what the kernel cannot do, a thread does.
    """

    __slots__ = ("_command", "_control", "_fd", "_lifeline")

    # What tells the kernel whom to end.
    _control: Callable[[int, int, int], object]
    _command: int

    def __init__(self, lifeline: int) -> None:
        """Make it, of the *lifeline* that `end_with_parent` is given."""
        self._lifeline = lifeline
        self._fd = -1
        if sys.platform == "linux":
            import fcntl

            self._control, self._command = fcntl.fcntl, fcntl.F_SETOWN
            self._fd = _open_armed(lifeline)

    def bind(self, parent: int | None = None) -> None:
        """From now on, end this process as `end_with_parent` does; *parent* is as there."""
        try:
            if self._fd < 0:
                self._have_a_thread()
            else:
                # Never closed: the signal is sent for as long as it is open.
                self._control(self._fd, self._command, getpid())
        except OSError:
            self.close()
            self._have_a_thread()
        # The parent may have ended before there was anybody to end.
        if getppid() != parent:
            # Not at the top: most children need neither this module nor `select`.
            from procession._ground.waiting import wait_readable

            if wait_readable(self._lifeline, 0):
                _end()

    def _have_a_thread(self) -> None:
        import _thread

        _thread.start_new_thread(_wait_and_end, (self._lifeline,))

    def close(self) -> None:
        """Give it back; in the parent, or if nobody was bound. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _open_armed(lifeline: int) -> int:
    """Return a descriptor whose end is signalled to its owner, once it has one; or -1."""
    if sys.platform != "linux":
        return -1
    import fcntl

    try:
        # Whom to signal is a property of the open file description, and that of *lifeline*
        # is shared with all the siblings: each process needs one of its own.
        own = os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return -1
    try:
        fcntl.fcntl(own, fcntl.F_SETSIG, _SIGKILL)
        fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    except OSError:
        os.close(own)
        return -1
    return own


def _wait_and_end(lifeline: int) -> None:
    from procession._ground.waiting import wait_readable

    wait_readable(lifeline, None)
    _end()


def _end() -> None:
    os.kill(os.getpid(), _SIGKILL)
