"""What joins an end on this host to one on another: a socket here, and a connection there."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import threading

from procession.plugin import BorrowedSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from procession.plugin import Channel, StreamChannel

    from ._channel import TcpChannel

#: How long the end of the interpreter waits for what was sent to be on its way, in seconds.
_EXIT_SECONDS = 5.0


class Tunnel:
    """Two threads, one for each direction, that carry messages between two channels.

    *local* is connected to an end on this host, *remote* to a tunnel on another; both are
    taken over, and closed when both directions have ended.

    A message is carried whole or not at all. An end that is closed ends the other one,
    after everything that was sent. When the way between the hosts is cut, the end on this
    host says so.

    The state of an encrypted connection lives in one process, and so does a tunnel: it
    ends with this process, whoever has the end. What was sent before is on its way then,
    unless the process was killed. Fork: a child has no tunnels.
    """

    def __init__(self, local: TcpChannel, remote: StreamChannel) -> None:
        self._local = local
        self._remote = remote
        self._lock = threading.Lock()
        self._under_way = 2
        self._outward, self._inward = (
            threading.Thread(target=self._run, args=(carry,), name=name, daemon=True)
            for name, carry in (
                ("procession-tcp-out", self._carry_out),
                ("procession-tcp-in", self._carry_in),
            )
        )
        _remember(self)
        try:
            self._outward.start()
        except RuntimeError:  # no more threads
            self.abandon()
            raise
        try:
            self._inward.start()
        except RuntimeError:
            _shut(local, socket.SHUT_RDWR)  # ends the other one
            self._end()
            raise

    def _run(self, carry: Callable[[], None]) -> None:
        try:
            carry()
        except BaseException:
            # Memory has run out, say. Neither side may wait for what will not come.
            _shut(self._remote, socket.SHUT_RDWR)
            _shut(self._local, socket.SHUT_RDWR)
            raise
        finally:
            self._end()

    def _carry_out(self) -> None:
        while True:
            try:
                message = self._local.receive()
            except EOFError:
                self._remote.end_sending()
                return
            except OSError:
                # Somebody was killed in the middle of a message: that is no proper end.
                _shut(self._remote, socket.SHUT_RDWR)
                return
            try:
                self._remote.send(*message)
            except OSError:
                # Why, the other direction finds out. Here, nobody may send any more.
                _shut(self._local, socket.SHUT_RD)
                return

    def _carry_in(self) -> None:
        while True:
            try:
                message = self._remote.receive()
            except EOFError:
                _shut(self._local, socket.SHUT_RDWR)  # what was carried can still be received
                return
            except OSError as error:
                self._announce_cut(str(error))
                return
            try:
                self._local.send(*message)
            except OSError:
                # The end here was closed: nobody is to receive anything.
                _shut(self._remote, socket.SHUT_RDWR)
                return

    def _announce_cut(self, reason: str) -> None:
        try:
            self._local.announce_cut(reason)
        except OSError:
            pass  # nobody is there who would want to know
        _shut(self._local, socket.SHUT_RDWR)

    def _end(self) -> None:
        """Count a direction as ended; close all after both."""
        with self._lock:
            self._under_way -= 1
            if self._under_way:
                return
        self.abandon()

    def finish(self) -> None:
        """Wait until what was sent here is on its way, and end: the interpreter does."""
        with self._lock:
            if self._under_way:  # nobody closes it meanwhile
                _shut(self._local, socket.SHUT_RD)
        self._outward.join(_EXIT_SECONDS)

    def abandon(self) -> None:
        """Close everything: both directions have ended, or are another process's."""
        _tunnels.discard(self)
        self._local.close()
        self._remote.close()


def _shut(channel: Channel, how: int) -> None:
    """Shut a channel's socket down, which wakes who waits for it."""
    try:
        with BorrowedSocket(channel.fileno()) as peer:
            peer.shutdown(how)
    except OSError:
        pass  # it has been, or the other side has gone


_tunnels: set[Tunnel] = set()
_watches_forks = False
_watches_exit = False


def _remember(tunnel: Tunnel) -> None:
    """Have *tunnel* finished when the interpreter ends, and abandoned in forked children."""
    global _watches_exit, _watches_forks
    if not _watches_forks and sys.platform != "win32":
        _watches_forks = True
        os.register_at_fork(after_in_child=_abandon_all)
    if not _watches_exit:
        _watches_exit = True
        atexit.register(_finish_all)
    _tunnels.add(tunnel)


def _finish_all() -> None:
    for tunnel in list(_tunnels):
        tunnel.finish()


def _abandon_all() -> None:
    global _watches_exit
    _watches_exit = False  # a child begins without its parent's exit handlers
    for tunnel in list(_tunnels):
        tunnel.abandon()
