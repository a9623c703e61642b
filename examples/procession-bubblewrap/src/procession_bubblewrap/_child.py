"""A child in a sandbox. There are two processes: bubblewrap's own, and the child below it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable

from procession.errors import ChildLostError
from procession.plugin import LOST_EXIT_CODE, Child, PidChild, wait_readable

#: The exit code of a child that never was one: bubblewrap has failed, and says why on stderr.
SANDBOX_FAILED = 125

_SIGKILL = 9
_HIGHEST_SIGNAL = 64
_LONGEST_SLEEP = 1.0
_LONGEST_STATUS = 1 << 16


class SandboxedChild(Child):
    """A child below *keeper*, the process of bubblewrap, which is this process's own child.

    Signals go to the child itself: bubblewrap would not pass them on. It ends when the child
    has ended, with the same exit code or 128 + signal, and so its end is the child's. *status*
    is the reading end of what it writes about the child; it is taken over, also by an error.
    *lifeline* is a descriptor that only children of this process have besides it.
    """

    _closed = True  # until there is something to close

    def __init__(self, keeper: int, status: int, lifeline: int) -> None:
        self._status = status
        self._lock = threading.Lock()
        self._exit_code: int | None = None
        try:
            self.pid, self._said = _first_words(keeper, status)
            try:
                self._keeper = PidChild(keeper)
            except BaseException:  # which has ended the keeper
                _kill(self.pid)
                raise
            self.sentinel = self._keeper.sentinel
            try:
                self._pidfd = _open_child(self.pid, keeper, (status, lifeline))
            except BaseException:
                _kill(self.pid)
                self._keeper.wait()
                self._keeper.close()
                raise
        except BaseException:
            os.close(status)
            raise
        self._closed = False

    def poll(self) -> int | None:
        """See `Child.poll`."""
        with self._lock:
            if self._exit_code is None:
                code = self._keeper.poll()
                self._exit_code = None if code is None else self._translate(code)
            return self._exit_code

    def _translate(self, code: int) -> int:
        """Return the child's exit code; *code* is that of bubblewrap."""
        if wait_readable(self._status, 0):
            self._said += os.read(self._status, _LONGEST_STATUS)
        for line in self._said.splitlines():
            found: int | None = json.loads(line).get("exit-code")
            if found is not None:
                return _decode(found)
        # It does not say so when the child has ended before its interpreter was started.
        if 128 < code <= 128 + _HIGHEST_SIGNAL:
            return _decode(code)
        if 0 <= code < LOST_EXIT_CODE:
            return SANDBOX_FAILED
        # Somebody has killed bubblewrap, or collected it. Nobody can wait for the child any more.
        self._send(_SIGKILL)
        return LOST_EXIT_CODE

    def signal(self, number: int, /) -> None:
        """See `Child.signal`."""
        with self._lock:
            if self._exit_code is None:
                self._send(number)

    def _send(self, number: int) -> None:
        if sys.platform != "linux" or self._pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return  # it has ended

    def close(self) -> None:
        """See `Child.close`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._keeper.close()
            os.close(self._status)
            if self._pidfd >= 0:
                os.close(self._pidfd)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():
            self.close()


def _decode(code: int) -> int:
    """Return an exit code as Python has it, of one as shells have it."""
    return 128 - code if 128 < code <= 128 + _HIGHEST_SIGNAL else code


def _first_words(keeper: int, status: int) -> tuple[int, bytes]:
    """Return the process id of the child, outside of the sandbox, and all that was said.

    It is the first thing that bubblewrap says. Raises `ChildLostError` when it has ended without
    a word; it is collected then.
    """
    if sys.platform == "win32":
        raise OSError("children cannot be collected by number on Windows")
    said = b""
    while b"\n" not in said:
        if wait_readable(status, _LONGEST_SLEEP):
            part = os.read(status, _LONGEST_STATUS)
            said += part
            if part:
                continue
        # Another child of ours may have a copy of the other end for a while: the end of the
        # stream is not to be relied on.
        pid, state = os.waitpid(keeper, os.WNOHANG)
        if pid == keeper:
            code = os.waitstatus_to_exitcode(state)
            _kill_unfinished(status)
            raise ChildLostError(
                f"bubblewrap has ended with exit code {code} before it had started anything; if it "
                f"has said why, that is on stderr"
            )
    return int(json.loads(said.splitlines()[0])["child-pid"]), said


def _kill_unfinished(status: int) -> None:
    """Kill what a bubblewrap that was killed has left: a copy that waits for it for ever.

    Until it becomes the child it has the same name, and both ends of the pipe *status*.
    """
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        try:
            with open(f"/proc/{pid}/comm") as file:
                if file.read() == "bwrap\n" and _holds_one_of(pid, (status,)):
                    os.kill(pid, _SIGKILL)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended meanwhile, or is somebody else's


def _open_child(pid: int, keeper: int, marks: tuple[int, ...]) -> int:
    """Return a pidfd of *pid*, the child of *keeper*; -1 when it has ended.

    When the keeper has been killed meanwhile, it is nobody's child that we know; then it is
    told from a stranger with the same number by one of *marks*, descriptors that it has, too.
    """
    if sys.platform != "linux":
        raise OSError("there are no pidfds on this platform")
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            parent = int(file.read().rpartition(b")")[2].split()[1])
        if parent == keeper or _holds_one_of(pid, marks):
            return pidfd
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass  # it has ended and was collected, or a stranger has its number
    except BaseException:
        os.close(pidfd)
        raise
    os.close(pidfd)
    return -1


def _holds_one_of(pid: int, pipes: tuple[int, ...]) -> bool:
    """Return whether process *pid* has one of our *pipes* open."""
    wanted = {os.readlink(f"/proc/self/fd/{fd}") for fd in pipes}
    folder = f"/proc/{pid}/fd"
    for fd in os.listdir(folder):
        try:
            if os.readlink(f"{folder}/{fd}") in wanted:
                return True
        except FileNotFoundError:
            continue  # closed meanwhile
    return False


def _kill(pid: int) -> None:
    """Kill a child that was started a moment ago, and that nobody has waited for."""
    try:
        os.kill(pid, _SIGKILL)
    except ProcessLookupError:
        return
