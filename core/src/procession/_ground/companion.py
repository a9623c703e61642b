"""The companion of a channel: a socket beside it, through which descriptors travel.

What a channel is made of (pipes, shared memory, sockets that are read without looking for
descriptors) carries bytes only. Before a message to which descriptors belong, they are sent
through the companion, in a packet with a *ticket*, a random number; the message says which
ticket is its own. The kernel keeps them meanwhile, and lets go of them when they are taken or
when nobody is left who could take them: neither end has to do anything about it.
"""

from __future__ import annotations

import _socket  # `socket` would bring much more
import errno
import os
import sys
from struct import pack, unpack

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence

#: How many bytes a ticket has.
TICKET = 8
#: The most descriptors of one message; the kernel passes at most 253 at once.
MOST_DESCRIPTORS = 64
#: How many parcels that belong to none of the messages so far are kept: those of other processes
#: that were faster with their descriptors than with the message, each has one at most, and of
#: those that were killed in between.
_MOST_STRAY = 64
_INTEGER = 4
_DESCRIPTORS_LOST = "another process has taken them, which receives through this end, too"
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.EBADF)
_NO_ROOM = "this process has too many open files"
_SPACE = 0
_NOT_HERE = "only Linux has channels with companions"
if sys.platform == "linux":
    _SPACE = _socket.CMSG_SPACE(MOST_DESCRIPTORS * _INTEGER)


class _Borrowed(_socket.socket):
    """An object for the socket *fd*, which it neither closes nor changes."""

    def __init__(self, fd: int) -> None:
        if sys.platform != "linux":
            raise OSError(_NOT_HERE)
        # One that is said not to block is not made so either.
        super().__init__(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK, 0, fd)

    def __del__(self) -> None:
        self.detach()


def companions() -> tuple[int, int]:
    """Return the companions of two ends; the caller owns both. Raises `OSError`."""
    if sys.platform != "linux":
        raise OSError(_NOT_HERE)
    first, second = _socket.socketpair(
        _socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK
    )
    return first.detach(), second.detach()


class Outlet:
    """Where descriptors leave: the companion *fd*, which stays the channel's. Threads: any."""

    __slots__ = ("_end",)

    def __init__(self, fd: int) -> None:
        self._end = _Borrowed(fd)

    def new_ticket(self) -> bytes:
        """Return the ticket for one message."""
        return os.urandom(TICKET)

    def post(self, ticket: bytes, descriptors: Sequence[int]) -> bool:
        """Send *descriptors* to the other end, under *ticket*; return whether they were.

        Not where there is no room for them: nobody has taken the last some hundred, or the user
        has as many on the way as the system allows. Never blocks. Raises `OSError` when nobody
        is left at the other end, or this one is closed.
        """
        if sys.platform != "linux":
            return False
        rights = (
            (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack(f"{len(descriptors)}i", *descriptors)),
        )
        try:
            self._end.sendmsg((ticket,), rights, _socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno in _GONE:
                raise
            return False
        return True

    def close(self) -> None:
        """Let go of the socket."""
        self._end.detach()


class Inlet:
    """Where descriptors arrive: the companion *fd*, which stays the channel's.

    Threads: one at a time. Fork: the child has copies of what was found and not asked for yet.
    """

    __slots__ = ("_end", "_strays")

    def __init__(self, fd: int) -> None:
        self._end = _Borrowed(fd)
        # What was found in the companion and belongs to other messages, by ticket.
        self._strays: dict[bytes, list[int]] = {}

    def collect(self, ticket: bytes, count: int) -> tuple[list[int], str]:
        """Return the *count* descriptors of *ticket*, for the caller to own, or why there are none.

        They were sent before the message that says so, so that nothing is waited for.
        """
        found = self._strays.pop(ticket, None)
        while found is None:
            try:
                taken, descriptors = self._take()
            except OSError:
                return [], _DESCRIPTORS_LOST
            if taken == ticket:
                found = descriptors
            elif taken:
                self._keep(taken, descriptors)
            else:
                return [], _DESCRIPTORS_LOST
        if len(found) != count:
            # The kernel drops those that this process has no room for.
            close_all(found)
            return [], _NO_ROOM
        return found, ""

    def _take(self) -> tuple[bytes, list[int]]:
        """Return the next ticket and its descriptors, which no program inherits."""
        if sys.platform != "linux":
            raise OSError(_NOT_HERE)
        ticket, ancillary, _, _ = self._end.recvmsg(TICKET, _SPACE, _socket.MSG_CMSG_CLOEXEC)
        found: list[int] = []
        for level, kind, rights in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                count = len(rights) // _INTEGER
                found += unpack(f"{count}i", rights[: count * _INTEGER])
        return ticket, found

    def _keep(self, ticket: bytes, descriptors: list[int]) -> None:
        """Keep what belongs to another message, and none of the oldest."""
        self._strays[ticket] = descriptors
        while len(self._strays) > _MOST_STRAY:
            close_all(self._strays.pop(next(iter(self._strays))))

    def close(self) -> None:
        """Let go of the socket, and close what was found in it and belongs to nobody."""
        self._end.detach()
        strays, self._strays = self._strays, {}
        for descriptors in strays.values():
            close_all(descriptors)

    def __del__(self) -> None:
        """Close it with the channel, which may be dropped."""
        self.close()


def close_all(descriptors: Sequence[int]) -> None:
    """Close *descriptors*."""
    for fd in descriptors:
        os.close(fd)
