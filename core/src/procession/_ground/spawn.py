"""Starting a fresh interpreter that inherits certain descriptors and no others."""

from __future__ import annotations

import os
import sys

from procession._ground.anonymous_file import above_standard

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def spawn_interpreter(
    command: Callable[[Sequence[int]], list[str]],
    descriptors: Sequence[int],
    environment: Mapping[str, str] | None = None,
) -> int:
    """Start a program that inherits duplicates of *descriptors*; return its process id.

    *command* is called with the numbers under which the program will see them, and
    returns its command line. The descriptors stay the caller's. The program gets the
    working directory and the standard streams of this process, and *environment* or, for
    None, the variables of this process. SIGINT is blocked in it, so that Ctrl-C does not hit
    an interpreter that is still being set up: what is sent meanwhile is pending.
    `procession.child.run_parcel` unblocks it; a helper program does so itself, when it is
    ready, or calls `run_parcel` in its children.

    Costs the same in a process of any size (nothing of its memory is copied) and is safe
    in one with threads. Raises `OSError` when the program cannot be started.
    """
    if sys.platform == "win32":
        raise OSError("there is no posix_spawn on Windows")
    from _signal import (  # type: ignore[import-not-found]  # `signal` would bring `enum`
        SIG_BLOCK,
        SIGINT,
        pthread_sigmask,
    )

    numbers: list[int] = []
    moved: list[int] = []
    try:
        for fd in descriptors:
            if fd <= 2:
                # In a program with a closed standard stream. The child's own standard
                # streams are at these numbers.
                fd = above_standard(os.dup(fd))
                moved.append(fd)
            numbers.append(fd)
        arguments = command(numbers)
        # Duplicating a descriptor to its own number makes it inheritable in the child
        # alone (POSIX; glibc 2.29, musl).
        actions = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in dict.fromkeys(numbers)]
        blocked = {*pthread_sigmask(SIG_BLOCK, ()), SIGINT}
        variables = os.environ if environment is None else environment
        return os.posix_spawn(
            arguments[0], arguments, variables, file_actions=actions, setsigmask=blocked
        )
    finally:
        for fd in moved:
            os.close(fd)
