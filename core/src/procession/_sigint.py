"""What Ctrl-C means in a child: the policies, and putting one into force.

A terminal sends SIGINT to every process of the program at once. `QUIET`, the default, raises
KeyboardInterrupt in the child, so that its ``finally`` clauses and handlers run, but leaves it
to the parent to print a traceback. `RAISE` prints one for every child, as multiprocessing
does. `IGNORE` leaves the whole matter to the parent.
"""

from __future__ import annotations

import sys

QUIET = "quiet"
RAISE = "raise"
IGNORE = "ignore"
POLICIES = (QUIET, RAISE, IGNORE)


def check(policy: str) -> str:
    """Return *policy*. Raises `ValueError` when there is none of that name."""
    if policy not in POLICIES:
        raise ValueError(f"sigint must be one of {', '.join(POLICIES)}, not {policy!r}")
    return policy


def apply(policy: str) -> None:
    """Put *policy* into force in this process, in its main thread.

    `QUIET` and `RAISE` leave the handler alone: a program that was started with SIGINT
    ignored, as by nohup, keeps ignoring it in its children, and libraries such as asyncio
    look for the interpreter's own handler.
    """
    if policy == IGNORE:
        # The signal module itself would cost a child the import of `enum`.
        from _signal import SIG_IGN, SIGINT, signal  # type: ignore[import-not-found]

        signal(SIGINT, SIG_IGN)


def unblock() -> None:
    """Let SIGINT through, which `spawn_interpreter` holds back while a process is young.

    What has come meanwhile is raised here as KeyboardInterrupt, unless it is ignored.
    """
    if sys.platform != "win32":
        from _signal import SIG_UNBLOCK, SIGINT, pthread_sigmask

        pthread_sigmask(SIG_UNBLOCK, (SIGINT,))
