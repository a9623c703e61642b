"""What the kernel says about a process: the one place that reads ``/proc/PID/stat``."""

from __future__ import annotations

import os

#: Positions in what `status_of` returns.
STATE, PARENT, FLAGS, THREADS, STARTED, EXIT_STATUS = 0, 1, 6, 17, 19, 49

# How a process is shown that has ended and was not collected yet.
_ENDED = (b"Z", b"X", b"x")


def status_of(pid: int) -> list[bytes] | None:
    """Return the fields of process *pid* from its state on; None if there is no such process.

    None, too, where there is no ``/proc``. Raises `OSError` when nothing can be found out,
    for want of descriptors say: that a process is gone must not be concluded from it.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        # The name, in parentheses, may contain anything.
        return os.read(fd, 4096).rpartition(b")")[2].split()
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)


def has_ended(status: list[bytes]) -> bool:
    """Return whether the process of this *status* has ended and waits for being collected."""
    # One whose first thread has ended looks like that, too, while other threads run.
    return status[STATE] in _ENDED and int(status[THREADS]) <= 1


def start_of(pid: int) -> int:
    """Return when process *pid* started, in the kernel's ticks since boot; 0 without one.

    With the number it is what no other process has. Raises `OSError` as `status_of`.
    """
    status = status_of(pid)
    return int(status[STARTED]) if status else 0


def start_of_living(pid: int) -> int:
    """Return the same for a process that has not ended, collected or not; 0 otherwise."""
    status = status_of(pid)
    return 0 if status is None or has_ended(status) else int(status[STARTED])
