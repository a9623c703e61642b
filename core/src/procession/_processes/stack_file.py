"""Stacks on a signal, for `procession dump`, in programs that ask for it.

With ``PROCESSION_DUMP_SIGNAL=USR1`` every process of the program writes the Python stacks of
its threads to an anonymous file when it gets that signal. The file is found, and read, through
``/proc/PID/fd``; nothing is printed, and nothing is left when the process ends.
"""

from __future__ import annotations

import os
import signal
import sys

from procession._ground.anonymous_file import anonymous_file

PREFIX = "procession-stacks"

# The file must stay open as long as the handler is there. One process, one file.
_armed: int | None = None


def arm(name: str) -> None:
    """Have signal *name*, such as "USR1", write the stacks; also anew in a forked child.

    A name that is no signal is told on stderr: a variable must not end a program that did
    nothing wrong. Call it in the main thread or any other; it never blocks.
    """
    global _armed
    if sys.platform != "linux":
        return
    number = getattr(signal, f"SIG{name.upper().removeprefix('SIG')}", None)
    if not isinstance(number, signal.Signals) or number in (signal.SIGKILL, signal.SIGSTOP):
        print(
            f"procession: PROCESSION_DUMP_SIGNAL={name!r} is no signal that can be handled; "
            f"use USR1, for example",
            file=sys.stderr,
        )
        return
    import faulthandler

    # The label says the signal and the pid: a copy that was inherited is not this process's.
    fd = anonymous_file(f"{PREFIX}:{os.getpid()}:{int(number)}")
    faulthandler.register(number, file=fd, all_threads=True)
    before, _armed = _armed, fd
    if before is not None:
        os.close(before)
