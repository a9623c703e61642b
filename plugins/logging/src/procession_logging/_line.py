# ruff: noqa: E402 - the type checkers must see the platform first
"""The line between a process and its relay: whole packets, from many writers to one reader.

A pair of packet sockets. What is on it lies in the kernel: it is bounded, no process can
tear a packet by dying, and what a killed process has sent is read nevertheless. Its end comes
by itself when nobody is left who could write.
"""

from __future__ import annotations

import os
import select
import sys
import time

assert sys.platform == "linux", "the hooks look first"

from _socket import (  # `socket` would bring `enum` and more into every child
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    SCM_RIGHTS,
    SO_SNDBUF,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
    socketpair,
)

from procession.plugin import Exportable, anonymous_file

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Self

    from procession.plugin import Handoff, Recipe, Takeover

# The kernel takes about 200 KB at once; a few packets of this size are to have room.
_LARGEST = 1 << 15
_INT = 4
# What the kernel counts for the smallest packet, at the least.
_SMALLEST = 512
# The first byte of a packet: the data follow, or they are in the file that came with it.
_DATA, _FILE = b"d", b"f"


class Line(Exportable):
    """The writing end. Threads: any. Fork: both processes have it. Closed when collected."""

    __slots__ = ("_socket",)

    def __init__(self, end: socket) -> None:
        self._socket = end
        end.setblocking(False)

    def __del__(self) -> None:
        self.close()

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        return (handoff.give(self._socket.fileno()),)

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        (token,) = recipe
        return cls(socket(AF_UNIX, SOCK_SEQPACKET, 0, takeover.take(token)))

    def send(self, data: bytes, patience: float) -> bool:
        """Send one packet; return False if there was no room for it for *patience* seconds.

        Raises `BrokenPipeError` or `ConnectionResetError` when nobody will read it, and
        another `OSError` when the system is short of something.
        """
        file = -1
        if len(data) > _LARGEST:
            file = anonymous_file("procession-logging", data)
        try:
            deadline = time.monotonic() + patience
            while not self._try(data, file):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                poll = select.poll()
                poll.register(self._socket.fileno(), select.POLLOUT)
                poll.poll(left * 1000)
            return True
        finally:
            if file >= 0:
                os.close(file)

    def _try(self, data: bytes, file: int) -> bool:
        try:
            if file < 0:
                self._socket.send(_DATA + data)
            else:
                rights = file.to_bytes(_INT, "little")
                self._socket.sendmsg([_FILE], [(SOL_SOCKET, SCM_RIGHTS, rights)])
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close this end. Idempotent."""
        self._socket.close()


class Outlet:
    """The reading end. Threads: one at a time. Closed when collected."""

    __slots__ = ("_socket",)

    def __init__(self, end: socket) -> None:
        self._socket = end
        end.setblocking(False)

    def __del__(self) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor to wait on; -1 when this end is closed."""
        return self._socket.fileno()

    @property
    def capacity(self) -> int:
        """The number of packets that the line can hold, at the most."""
        return self._socket.getsockopt(SOL_SOCKET, SO_SNDBUF) // _SMALLEST + 1

    def receive(self) -> bytes | None:
        """Return the data of the next packet, None when nothing is there now.

        Raises `EOFError` at the end of the line or when it was closed, and `OSError` when there
        is no descriptor free for the file that came: what was in it is lost.
        """
        if self._socket.fileno() < 0:
            raise EOFError
        try:
            packet, ancillary, _, _ = self._socket.recvmsg(
                _LARGEST + 1, CMSG_SPACE(_INT), MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except ConnectionResetError:
            raise EOFError from None
        if packet[:1] == _DATA:
            return packet[1:]
        if not packet:
            raise EOFError
        if not ancillary:
            raise OSError("too many open files")
        return _contents(int.from_bytes(ancillary[0][2][:_INT], "little"))

    def close(self) -> None:
        """Close this end. Idempotent."""
        self._socket.close()


def _contents(fd: int) -> bytes:
    # Whoever wrote it has moved the position, which is the file's, back to the start.
    with open(fd, "rb") as file:
        return file.read()


def line() -> tuple[Outlet, Line]:
    """Return the ends of a new line. Raises `OSError` when there are no descriptors left."""
    reading, writing = socketpair(AF_UNIX, SOCK_SEQPACKET)
    return Outlet(reading), Line(writing)
