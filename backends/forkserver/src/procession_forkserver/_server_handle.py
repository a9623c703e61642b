# ruff: noqa: E402 - the type checkers must see the platform first
"""The fork server, seen from the process that started it."""

from __future__ import annotations

import os
import sys

assert sys.platform == "linux", "ask ForkServer.unavailable() first"

from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socket, socketpair

from procession.plugin import PidChild, anonymous_file, helper_command, spawn_interpreter
from procession_forkserver import _protocol

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self

_MODULE = "procession_forkserver._server"
_SIGKILL = 9


def packet_pair() -> tuple[socket, socket]:
    """Return two connected packet sockets, not inheritable; the caller owns both."""
    ends = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    for end in ends:
        end.settimeout(None)  # a start takes as long as it takes, whatever the program's default
    return ends


def _who_we_are() -> tuple[object, ...]:
    return os.getresuid(), os.getresgid(), os.getgroups()


class ServerHandle:
    """A running fork server.

    Threads: any. A forked copy of this process calls `abandon` and nothing else.
    """

    def __init__(self, process: PidChild, requests: socket) -> None:
        self._process = process
        self._requests = requests
        self._imported: frozenset[str] = frozenset()
        self._owner = _who_we_are()

    @classmethod
    def start(cls, preparation: Mapping[str, Any], lifeline: int) -> Self:
        """Start a server that does *preparation* before it serves, and ends with *lifeline*."""
        requests, servers_end = packet_pair()
        try:
            pid = spawn_interpreter(
                lambda numbers: helper_command(_MODULE, numbers), (servers_end.fileno(),)
            )
        except BaseException:
            requests.close()
            raise
        finally:
            servers_end.close()
        server = cls(PidChild(pid), requests)
        from _pickle import dumps  # there already, without what it would bring; see the server

        file = anonymous_file("procession-preparation", dumps(dict(preparation)))
        try:
            _protocol.send(requests, b"p", (file, lifeline))
        except _protocol.Ended:
            pass  # it has ended already; the first request finds out
        finally:
            os.close(file)
        return server

    def request(self, line: int, modules: frozenset[str]) -> None:
        """Ask for a child on *line*. Raises `_protocol.Ended` when the server has gone.

        The server first imports those of *modules* that it was not told of before, so that
        its children find them there.
        """
        new = modules - self._imported
        _protocol.send(self._requests, b" ".join([b"f", *(name.encode() for name in new)]), (line,))
        self._imported |= new

    def is_ours(self) -> bool:
        """Return whether this process still has the rights that the server has from it.

        A child of a server of more rights than its parent's would have them, too.
        """
        return self._owner == _who_we_are()

    def is_alive(self) -> bool:
        """Return whether the server has not ended."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the server and collect it; its children go on. Idempotent."""
        self._requests.close()
        # It ends by itself at the end of its requests, unless it is still importing,
        # or stopped. There is nothing in it that could be lost.
        try:
            self._process.signal(_SIGKILL)
        except PermissionError:
            pass  # it is another user's by now
        self._process.wait()
        self._process.close()

    def abandon(self) -> None:
        """Close what a forked copy of the parent inherited; the server is not touched."""
        self._requests.close()
        self._process.abandon()
