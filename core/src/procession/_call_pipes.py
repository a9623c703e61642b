"""Pipes for the calls to a manager on this host.

A short message through a Unix socket costs twice what it costs through a pipe, on both sides.
So a client that has connected gives the server the far ends of two pipes, by the socket, and
calls and answers go through those. Where that is impossible, the socket does as well.
"""

from __future__ import annotations

import os
import socket
import sys

from procession._sockets import BorrowedSocket, receive_descriptors
from procession._stream_channel import StreamChannel
from procession.connection import Connection

#: What carries the descriptors.
_CARRIER = b"\0"
_ENDS = 2
#: A message of no bytes: it wakes who waits for a call, and is none.
_NOTHING = b"\0\0\0\0"


def can_have_pipes(connection: Connection) -> bool:
    """Return whether pipes may take the place of *connection*: it is a Unix socket, on Linux."""
    return sys.platform == "linux" and type(connection.channel) is StreamChannel


def make() -> tuple[Connection, Connection] | None:
    """Return two connections over pipes to each other; None if there are no descriptors."""
    ends: list[int] = []
    try:
        for _ in range(_ENDS):
            ends += os.pipe()
    except OSError:
        for fd in ends:
            os.close(fd)
        return None
    return _over(ends[0], ends[3]), _over(ends[2], ends[1])


def give(connection: Connection, end: Connection) -> None:
    """Send *end*, one of `make`'s, through *connection*, and close it here. Raises `OSError`."""
    if sys.platform == "win32":
        raise OSError("descriptors travel through Unix sockets only")
    channel = end.channel
    assert isinstance(channel, StreamChannel)
    with BorrowedSocket(connection.fileno()) as peer:
        socket.send_fds(peer, [_CARRIER], [channel.reader, channel.writer])
    end.close()


def take(connection: Connection) -> Connection | None:
    """Receive what `give` sends; return the connection over it.

    None when there are no descriptors for it. Raises `OSError`.
    """
    if sys.platform == "win32":
        raise OSError("descriptors travel through Unix sockets only")
    with BorrowedSocket(connection.fileno()) as peer:
        _, fds = receive_descriptors(peer, len(_CARRIER), _ENDS)
    if len(fds) == _ENDS:
        return _over(*fds)
    for fd in fds:
        os.close(fd)
    return None


def hang_up(connection: Connection) -> None:
    """Wake the thread that waits for a call through *connection*: for it, the client has gone.

    It has to look why it was woken, as a pipe cannot be shut down.
    """
    try:
        if not is_pipes(connection):
            with BorrowedSocket(connection.fileno()) as peer:
                peer.shutdown(socket.SHUT_RDWR)
            return
        if sys.platform == "win32":
            return
        # A way into the pipe that we read from, for as long as it takes to say so.
        fd = os.open(f"/proc/self/fd/{connection.fileno()}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(fd, _NOTHING)
        finally:
            os.close(fd)
    except OSError:
        return  # it has ended meanwhile, or there is so much to read that it does not wait


def is_pipes(connection: Connection) -> bool:
    """Return whether *connection* is over pipes."""
    channel = connection.channel
    return isinstance(channel, StreamChannel) and channel.reader != channel.writer


def _over(reader: int, writer: int) -> Connection:
    return Connection.over(StreamChannel((reader,), (writer,)))
