# ruff: noqa: E402 - the type checkers must see the platform first
"""A child of the fork server, seen from the process that asked for it."""

from __future__ import annotations

import os
import sys
from _thread import RLock

assert sys.platform == "linux", "ask ForkServer.unavailable() first"

from _signal import (  # type: ignore[import-not-found]  # `signal` would bring `enum`
    pidfd_send_signal,
)
from _socket import AF_UNIX, MSG_PEEK, SOCK_SEQPACKET, socket

from procession.plugin import LOST_EXIT_CODE, Child, wait_readable
from procession_forkserver import _protocol

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable

# How long a server that is alive may take to collect a child that has ended. It is idle,
# and collects at once unless it was stopped.
_COLLECTING_SECONDS = 5.0


class ServedChild(Child):
    """A child of the fork server.

    *line* is the descriptor of the socket on which the server reports the exit code,
    *pidfd* the child's; both are taken over. *server_is_alive* tells whether a report can
    still come.
    """

    # Nothing is held before __init__ has run to its end.
    _closed = True

    def __init__(
        self, pid: int, pidfd: int, line: int, server_is_alive: Callable[[], bool]
    ) -> None:
        self.pid = pid
        self.sentinel = pidfd
        # For life: a socket object made for one look would close the descriptor behind it
        # when a signal handler raises in between.
        self._line = socket(AF_UNIX, SOCK_SEQPACKET, 0, line)
        self._server_is_alive = server_is_alive
        self._lock = RLock()  # re-entrant: a signal handler may ask, too
        self._exit_code: int | None = None
        self._closed = False

    def poll(self) -> int | None:
        """See `Child.poll`."""
        with self._lock:
            if self._exit_code is None and wait_readable(self.sentinel, 0):
                self._exit_code = self._report()
            return self._exit_code

    def _report(self) -> int:
        """Return the exit code of a child that has ended; the lock is held."""
        alive = self._server_is_alive()
        if not wait_readable(self._line.fileno(), _COLLECTING_SECONDS if alive else 0):
            return LOST_EXIT_CODE
        # A report is one packet; nothing, once the other end has gone. It stays there: a
        # signal handler that asks between two lines learns the same.
        report = self._line.recv(_protocol.REPORT_SIZE, MSG_PEEK)
        return _protocol.parse_report(report)[1] if report else LOST_EXIT_CODE

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            # The modules are half gone, and the kernel closes everything anyway.
            if not self._closed:
                self._line.detach()  # or it would warn that nobody has closed it
            return
        # Without the lock, which nobody can have now but a thread that a fork has left behind.
        self._release()

    def signal(self, number: int, /) -> None:
        """See `Child.signal`."""
        with self._lock:
            if self._closed or self._exit_code is not None:
                return
            try:
                pidfd_send_signal(self.sentinel, number)
            except ProcessLookupError:
                return  # it has ended meanwhile

    def close(self) -> None:
        """See `Child.close`."""
        if self._closed:
            return
        with self._lock:
            self._release()

    def _release(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self.sentinel)
            self._line.close()
