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
    if not _ask_kernel(lifeline):
        import _thread

        _thread.start_new_thread(_wait_and_end, (lifeline,))
    if os.getppid() != parent:
        # Not at the top: most children need neither this module nor `select`.
        from procession._waiting import wait_readable

        if wait_readable(lifeline, 0):
            _end()


def _ask_kernel(lifeline: int) -> bool:
    """Let the kernel send SIGKILL to this process; return whether it will."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        # Whom to signal is a property of the open file description, and that of *lifeline*
        # is shared with all the siblings: this process needs one of its own.
        own = os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(own, fcntl.F_SETSIG, _SIGKILL)
        # From here on the end of the last writer counts; an earlier one the caller sees.
        fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    except OSError:
        os.close(own)
        return False
    return True  # never closed: the signal is sent for as long as it is open


def _wait_and_end(lifeline: int) -> None:
    from procession._waiting import wait_readable

    wait_readable(lifeline, None)
    _end()


def _end() -> None:
    os.kill(os.getpid(), _SIGKILL)
