"""Forked processes for tests of what processes share, and waiting for what they do."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DEADLINE = 30.0


class Forked:
    """A forked process that runs one function and exits; killed at the end of `crew`."""

    pid: int
    code: int | None
    _pidfd: int

    def __init__(self, work: Callable[[], object]) -> None:
        if sys.platform != "linux":
            raise OSError("these helpers need fork and pidfds")
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                work()
                code = 0
            except BaseException:
                # Past sys.stderr, whose buffer would be lost with the process.
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        self._pidfd = os.pidfd_open(self.pid)
        self.code = None

    def kill(self) -> None:
        """Send SIGKILL and reap."""
        if self.code is None and sys.platform != "win32":
            os.kill(self.pid, signal.SIGKILL)
            self.join()

    def stopped(self) -> bool:
        """Return whether it has ended, without reaping."""
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def await_sleep(self) -> None:
        """Wait until it is blocked in the kernel. Raises `AssertionError` if it ends instead."""
        until(lambda: self.stopped() or sleeps(self.pid))
        assert not self.stopped(), f"process {self.pid} has ended instead of waiting"

    def join(self, timeout: float = DEADLINE) -> int:
        """Wait for the end, at most *timeout* seconds, and return the exit code."""
        if self.code is None:
            if not select.select([self._pidfd], [], [], timeout)[0]:
                raise TimeoutError(f"process {self.pid} is still running")
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._pidfd)
        return self.code


@contextmanager
def crew() -> Iterator[Callable[[Callable[[], object]], Forked]]:
    """Give a function that forks; what still runs at the end is killed."""
    members: list[Forked] = []

    def fork(work: Callable[[], object]) -> Forked:
        members.append(Forked(work))
        return members[-1]

    try:
        yield fork
    finally:
        for member in members:
            member.kill()


def until(condition: Callable[[], bool], timeout: float = DEADLINE) -> None:
    """Wait until *condition* holds, looking a thousand times a second."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the condition did not become true")
        select.select([], [], [], 0.001)


def sleeps(pid: int) -> bool:
    """Return whether the main thread of process *pid* is blocked in the kernel."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"S"
