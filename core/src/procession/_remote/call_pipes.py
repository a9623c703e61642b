"""Pipes for the calls to a manager on this host.

A short message through a Unix socket costs twice what it costs through a pipe, on both sides.
So a client that has connected gives the server the far ends of two pipes, by the socket, and
calls and answers go through those. Where that is impossible, the socket does as well.
"""

from __future__ import annotations

import os
import socket
import stat
import sys

from procession._channels.stream_channel import StreamChannel
from procession._ground.fork_gate import end_moment, moments
from procession._ground.sockets import BorrowedSocket, receive_descriptors
from procession._ground.waiting import wait_readable
from procession.connection import Connection

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    #: Of a file: its device and its number there.
    Identity: TypeAlias = "tuple[int, int]"

#: What carries the descriptors.
_CARRIER = b"\0"
_ENDS = 2
#: A message of no bytes: it wakes who waits for a call, and is none.
_NOTHING = b"\0\0\0\0"


def can_have_pipes(connection: Connection) -> bool:
    """Return whether pipes may take the place of *connection*: it is a Unix socket, on Linux."""
    return sys.platform == "linux" and type(connection.channel) is StreamChannel


def offer(connection: Connection, keep: Callable[[Connection], object]) -> Connection | None:
    """Make pipes, send their far ends through *connection*, and return what is over ours.

    None when there are no descriptors, which the other side hears of. *keep* is called with
    what is returned before anybody can fork: a child must close its copy, and has no other. Of
    the far ends it has none, or it would seem to us to be the server. Raises `OSError`.
    """
    with BorrowedSocket(connection.fileno()) as peer:
        for alone in moments():
            try:
                made = _make(connection) if alone else None
                if made is None:
                    peer.send(_CARRIER)
                    return None
                ours, theirs = made
                keep(ours)
                _give(peer, theirs)
                return ours
            finally:
                if alone:
                    end_moment()
    return None


def _make(like: Connection) -> tuple[Connection, Connection] | None:
    """Return two connections over pipes to each other; None if there are no descriptors.

    They receive what *like* does.
    """
    ends: list[int] = []
    try:
        for _ in range(_ENDS):
            ends += os.pipe()
    except OSError:
        for fd in ends:
            os.close(fd)
        return None
    return _over(ends[0], ends[3], like), _over(ends[2], ends[1], like)


def _give(peer: socket.socket, end: Connection) -> None:
    """Send *end* and close it here. Raises `OSError`."""
    channel = end.channel
    assert isinstance(channel, StreamChannel)
    try:
        if sys.platform == "win32":
            raise OSError("descriptors travel through Unix sockets only")
        socket.send_fds(peer, [_CARRIER], [channel.reader, channel.writer])
    finally:
        end.close()


def take(connection: Connection, keep: Callable[[Connection], object]) -> Connection | None:
    """Receive what `offer` sends; return the connection over it.

    None when there is nothing. *keep* as there, about children of the server. Raises `OSError`.
    """
    fd = connection.fileno()
    wait_readable(fd, None)  # nobody need wait with a fork until it comes
    with BorrowedSocket(fd) as peer:
        for alone in moments():
            try:
                _, fds = receive_descriptors(peer, len(_CARRIER), _ENDS)
                if alone and len(fds) == _ENDS:
                    through = _over(fds[0], fds[1], connection)
                    keep(through)
                    return through
                for fd in fds:
                    os.close(fd)
            finally:
                if alone:
                    end_moment()
    return None


def identify(connection: Connection) -> Identity:
    """Return what tells the file of *connection* from every other one."""
    return _identity(connection.fileno())


def _identity(fd: int) -> Identity:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def hang_up(connection: Connection, identity: Identity) -> None:
    """Wake the thread that waits for a call through *connection*: for it, the client has gone.

    It has to look why it was woken, as a pipe cannot be shut down. It may also close the
    connection just now, and its number be another file's: *identity*, from `identify`, says
    whether what we have is still the one that is meant.
    """
    try:
        own = os.dup(connection.fileno())
    except OSError:
        return  # it has ended meanwhile
    try:
        if _identity(own) == identity:
            _wake(own)
    except OSError:
        pass  # the client has gone meanwhile, or there is so much to read that nobody waits
    finally:
        os.close(own)


def _wake(fd: int) -> None:
    """Wake who waits until *fd*, a socket or the end of a pipe, can be read."""
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        with BorrowedSocket(fd) as peer:
            peer.shutdown(socket.SHUT_RDWR)
    elif sys.platform != "win32":
        # A way into the pipe that is read from, for as long as it takes to say so.
        way = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(way, _NOTHING)
        finally:
            os.close(way)


def is_pipes(connection: Connection) -> bool:
    """Return whether *connection* is over pipes."""
    channel = connection.channel
    return isinstance(channel, StreamChannel) and channel.reader != channel.writer


def _over(reader: int, writer: int, like: Connection) -> Connection:
    return Connection.over(StreamChannel((reader,), (writer,))).limit_like(like)
