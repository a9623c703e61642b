# ruff: noqa: E402 - the type checkers must see the platform first
"""The parent's side: keeps one fork server running and asks it for children."""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock

assert sys.platform == "linux", "ask ForkServer.unavailable() first"

from procession.errors import ProcessError
from procession.plugin import anonymous_file
from procession_forkserver import _protocol
from procession_forkserver._served_child import ServedChild
from procession_forkserver._server_handle import ServerHandle, packet_pair

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from procession.plugin import Child, LaunchPlan

_SIGKILL = 9
# A server that was killed is replaced; one that cannot even start is not tried for ever.
_TRIES = 3


class Client:
    """Keeps one fork server running, from the first start on.

    Threads: any. A forked copy of the process calls `abandon` and nothing else.
    """

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._server: ServerHandle | None = None

    def launch(self, plan: LaunchPlan, /) -> Child:
        """Start the process of *plan*. See `StartMethod.launch`."""
        parcel = plan.pack(environ=True)
        # Not `parcel.open`, which adds modules for an interpreter that has none yet.
        file = anonymous_file("procession-parcel", parcel.data)
        try:
            for _ in range(_TRIES):
                server = self._running_server(plan)
                child = _ask(server, parcel.modules, (file, *parcel.descriptors))
                if child is not None:
                    return child
                self._discard(server)
        finally:
            os.close(file)
        raise ProcessError(
            f"the fork server ended {_TRIES} times before it could start {plan.name}; "
            f"its stderr says why, or use the start method 'spawn'"
        )

    def _running_server(self, plan: LaunchPlan) -> ServerHandle:
        with self._lock:
            if self._server is not None and not self._server.is_ours():
                server, self._server = self._server, None
                server.close()
            if self._server is None:
                self._server = ServerHandle.start(
                    {
                        "path": [_absolute(entry) for entry in sys.path],
                        "argv": list(getattr(sys, "argv", ())),
                        "main": plan.main_module,
                        "compiled": plan.compiled_main,
                        "modules": plan.preload,
                    },
                    plan.lifeline,
                )
            return self._server

    def _discard(self, server: ServerHandle) -> None:
        with self._lock:
            if self._server is server:
                self._server = None
        server.close()

    def collect(self) -> None:
        """Collect the server, if it was killed; the next start brings another."""
        server = self._server
        if server is not None:
            server.is_alive()

    def close(self) -> None:
        """End the server; its children go on. Idempotent."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.close()

    def abandon(self) -> None:
        """Close what a forked copy of the parent inherited."""
        self._lock = allocate_lock()
        server, self._server = self._server, None
        if server is not None:
            server.abandon()


def _absolute(entry: str) -> str:
    try:
        return os.path.abspath(entry)
    except FileNotFoundError:
        return entry  # the current directory was removed


def _ask(
    server: ServerHandle, modules: frozenset[str], descriptors: tuple[int, ...]
) -> Child | None:
    """Ask *server* for a child; None when it ended before it had forked."""
    line, childs_end = packet_pair()
    try:
        try:
            try:
                _protocol.send_descriptors(line, descriptors)
                server.request(childs_end.fileno(), modules)
            finally:
                childs_end.close()
            kind, number, pidfds = _protocol.receive_report(line)
        except _protocol.Ended:
            line.close()
            return None
        if kind == _protocol.ENDED:
            raise ProcessError(
                f"the fork server's new child ended before it could begin (exit code {number}): "
                f"nothing of the process has run, and it may be started again"
            )
        if kind == _protocol.FAILED:
            raise OSError(number, f"the fork server could not fork: {os.strerror(number)}")
        return ServedChild(number, pidfds[0], line.detach(), server.is_alive)
    except _protocol.NoRoom as error:
        # The child exists, but could not be watched.
        os.kill(_protocol.parse_report(error.data)[1], _SIGKILL)
        line.close()
        raise
    except BaseException:
        line.close()
        raise
