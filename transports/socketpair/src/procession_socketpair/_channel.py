"""One end of a connection over a pair of sockets that keep packets apart."""

from __future__ import annotations

import sys

from procession.plugin import PacketChannel

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import ClassVar


_INTEGER = 4


class SocketPairChannel(PacketChannel):
    """One end: a SOCK_SEQPACKET socket to receive from and to send to, or only one of both."""

    __slots__ = ()

    longest_packet: ClassVar[int] = 64 << 10
    #: It must fit into a socket's send buffer (208 KiB by default, and packets cost some on
    #: top); larger packets gain little.
    longest_write: ClassVar[int] = 128 << 10

    def wait_for_room(self, length: int, timeout: float | None = None, /) -> bool:
        """See `Channel.wait_for_room`.

        poll() calls a socket writable as long as three quarters of its buffer are free; a
        send waits only when nothing is.
        """
        if super().wait_for_room(length, 0) or _has_room(self.writer):
            return True
        return super().wait_for_room(length, timeout)


def _has_room(fd: int) -> bool:
    """Return whether the kernel still takes a packet, however long, without waiting."""
    if sys.platform == "win32":
        return False
    import fcntl
    import socket
    import termios

    waiting = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_INTEGER))
    own = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)
    try:
        size = own.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    finally:
        own.detach()
    return int.from_bytes(waiting, sys.byteorder) < size
