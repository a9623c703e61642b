"""All descendants of a child, each known by a pidfd, so that no signal goes astray.

A process id may belong to somebody else by the time it is used, and a tree may grow while it
is listed. Against the first, every process is held by a pidfd that is opened before its place
in the tree is looked at a second time. Against the second, the tree is stopped (SIGSTOP) while
it is listed: who stands still forks nobody, and whose parent stands still is not reparented.

What cannot be found: a process whose line of parents was broken before, as by a daemon that
forked twice. Its kernel parent is the system's first process then, and nothing tells whose it
was.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from procession._ground.process_status import PARENT, STATE, status_of
from procession._ground.waiting import wait_readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from procession._contracts.child_handle import Child

# Linux numbers, written out because the names do not exist on every platform.
_SIGKILL, _SIGCONT, _SIGSTOP = 9, 18, 19
# How long to wait until a process that was sent SIGSTOP stands still. One that the kernel
# does not let go of (state D) may be in the middle of a fork, which SIGSTOP does not end; only
# one that is stuck there, as in a dead network file system, takes longer than the busiest
# machine needs to run it once.
_STOPPING_SECONDS = 5.0
_STOPPING_NAP = 0.0005
_STILL = "TtZXx"


class ProcessTree:
    """A child and its descendants.

    Linux only, elsewhere `NotImplementedError` is raised. Two threads must not use one
    object at once. `close` gives the pidfds back; the processes stay as they are.
    """

    def __init__(self, root: Child) -> None:
        self._members: dict[int, int] = {}
        if sys.platform != "linux":
            raise NotImplementedError(
                "process trees need /proc and pidfds, which only Linux has; without tree=True "
                "the child itself can be ended"
            )
        # The child is not collected behind our back if it still runs afterwards.
        try:
            pidfd = os.pidfd_open(root.pid)
        except ProcessLookupError:
            return
        if root.poll() is None:
            self._members[root.pid] = pidfd
        else:
            os.close(pidfd)

    def signal(self, number: int) -> None:
        """Send *number* to every member and every descendant of a member.

        The tree is stopped meanwhile, and goes on afterwards, with the signal pending. When
        it returns, everyone who was a descendant has got the signal, including those that
        were started while it was sent. Raises `PermissionError` when some process belongs to
        another user; all others have got the signal then.
        """
        try:
            self._stop()
        finally:
            refused = [pid for pid in self._members if not self._send(pid, number)]
            if number != _SIGKILL:
                for pid in self._members:
                    self._send(pid, _SIGCONT)
        if refused:
            raise PermissionError(f"not allowed to signal the processes {refused}")

    def look(self) -> bool:
        """Add descendants that are not members yet; return whether there were any."""
        found = False
        while self._look_once():
            found = True
        return found

    def wait(self, deadline: float) -> bool:
        """Wait until every member has ended; false when *deadline* (monotonic) passes first."""
        return all(
            wait_readable(pidfd, deadline - time.monotonic()) for pidfd in self._members.values()
        )

    def close(self) -> None:
        """Give back the pidfds. Idempotent."""
        while self._members:
            os.close(self._members.popitem()[1])

    def _stop(self) -> None:
        """Stop all members, and add all their descendants, until nobody is new."""
        stopped: set[int] = set()
        while True:
            self.look()
            new = self._members.keys() - stopped
            if not new:
                return
            for pid in new:
                self._send(pid, _SIGSTOP)
            stopped |= new
            deadline = time.monotonic() + _STOPPING_SECONDS
            while not all(map(self._stands_still, new)) and time.monotonic() < deadline:
                time.sleep(_STOPPING_NAP)

    def _stands_still(self, pid: int) -> bool:
        found = _stat(pid)
        return found is None or found[0] in _STILL or self._has_ended(pid)

    def _look_once(self) -> bool:
        found = False
        for pid, parent in _processes():
            if pid in self._members or parent not in self._members:
                continue
            try:
                pidfd = self._open(pid)
            except ProcessLookupError:
                continue
            again = _stat(pid)
            # In this order: after the second look both are seen to live, so that each number
            # still meant the process that it was taken for.
            if (
                again is not None
                and again[1] == parent
                and not wait_readable(pidfd, 0)
                and not self._has_ended(parent)
            ):
                self._members[pid] = pidfd
                found = True
            else:
                os.close(pidfd)
        return found

    @staticmethod
    def _open(pid: int) -> int:
        if sys.platform != "linux":
            raise NotImplementedError
        return os.pidfd_open(pid)

    def _has_ended(self, pid: int) -> bool:
        return wait_readable(self._members[pid], 0)

    def _send(self, pid: int, number: int) -> bool:
        """Send a signal to a member; return whether that is allowed."""
        if sys.platform != "linux":
            raise NotImplementedError
        try:
            signal.pidfd_send_signal(self._members[pid], number)
        except ProcessLookupError:
            return True  # it has ended meanwhile
        except PermissionError:
            return False
        return True


def signal_tree(root: Child, number: int) -> None:
    """Send signal *number* to *root* and all its descendants. See `ProcessTree.signal`."""
    tree = ProcessTree(root)
    try:
        tree.signal(number)
    finally:
        tree.close()


def _processes() -> Iterator[tuple[int, int]]:
    """Yield every process of the system and its parent."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            found = _stat(int(name))
            if found is not None:
                yield int(name), found[1]


def _stat(pid: int) -> tuple[str, int] | None:
    """Return the state and the parent of a process; None when it does not exist."""
    status = status_of(pid)
    return None if status is None else (status[STATE].decode(), int(status[PARENT]))
