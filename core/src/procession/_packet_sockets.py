"""What transports over Unix sockets that keep packets apart (SOCK_SEQPACKET) are made of."""

from __future__ import annotations

import _socket  # `socket` would bring much more: `enum`, `collections`, `selectors`
import struct
import sys

from procession._packet_channel import PacketChannel
from procession._packet_lane import PacketLane

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import ClassVar, Self

_INTEGER = 4
#: More room lets reader and writer work at the same time.
_BUFFER = 1 << 20
# The kernel doubles it, and counts at least 700 bytes for a packet of 511: so a lane holds
# fewer than the 512 packets that can be counted (it is about 200). Every kernel allows it.
_LANE_BUFFER = 1 << 17
# A second, as a struct timeval.
_A_SECOND = struct.pack("@ll", 1, 0)


class PacketSocketChannel(PacketChannel):
    """One end: a SOCK_SEQPACKET socket to receive from and to send to, or only one of both."""

    __slots__ = ()

    longest_packet: ClassVar[int] = 64 << 10
    #: It must fit into a socket's send buffer (208 KiB by default, and packets cost some on
    #: top); larger packets gain little.
    longest_write: ClassVar[int] = 128 << 10
    has_timeouts: ClassVar[bool] = True

    @classmethod
    def pair(cls, *, duplex: bool = True) -> tuple[Self, Self]:
        """Make both ends of a connection. Raises what `packet_socket_pair` raises."""
        one, other = packet_socket_pair()
        if duplex:
            return cls((one,), (one,)), cls((other,), (other,))
        return cls((one,), ()), cls((), (other,))

    def wait_for_room(self, length: int, timeout: float | None = None, /) -> bool:
        """See `Channel.wait_for_room`.

        poll() calls a socket writable as long as three quarters of its buffer are free; a
        send waits only when nothing is.
        """
        if super().wait_for_room(length, 0) or _has_room(self.writer):
            return True
        return super().wait_for_room(length, timeout)


class PacketSocketLane(PacketLane):
    """Packets in a SOCK_SEQPACKET pair, of which every process holds both ends.

    Larger packets than a pipe's stay whole; the buffer is divided among the packets
    that wait, so that few large ones fill it.
    """

    __slots__ = ()

    longest = 32 << 10

    @classmethod
    def create(cls) -> Self:
        """Make a new pair. Raises `OSError` when descriptors have run out."""
        if sys.platform == "win32":
            raise OSError("this platform has no Unix sockets")
        reader, writer = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            reader.setblocking(False)
            writer.setblocking(False)
            writer.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _LANE_BUFFER)
            return cls(reader.detach(), writer.detach())
        finally:
            reader.close()  # nothing happens to what was detached
            writer.close()


def packet_socket_pair() -> tuple[int, int]:
    """Return two connected sockets that keep packets apart; the caller owns both.

    No operation of theirs waits for more than a second: then it raises `BlockingIOError`.

    Raises `OSError` when descriptors have run out, and where the system limits the memory
    of sockets too tightly.
    """
    if sys.platform == "win32":
        raise OSError("this platform has no Unix sockets")
    first, second = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        for end in (first, second):
            end.setblocking(True)  # whatever the program's default timeout is
            end.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _A_SECOND)
            end.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, _A_SECOND)
            # The kernel gives as much of it as its limit allows.
            end.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _BUFFER)
            given = end.getsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF)
            needed = 2 * PacketSocketChannel.longest_write  # a packet, with what the kernel adds
            if given < needed:
                raise OSError(
                    f"a socket's buffer is limited to {given} bytes, and {needed} are needed: "
                    f"raise net.core.wmem_max, or choose another transport"
                )
        return first.detach(), second.detach()
    finally:
        first.close()  # nothing happens to what was detached
        second.close()


def _has_room(fd: int) -> bool:
    """Return whether the kernel still takes a packet, however long, without waiting."""
    if sys.platform == "win32":
        return False
    import fcntl
    import socket
    import termios

    from procession._sockets import BorrowedSocket

    waiting = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_INTEGER))
    with BorrowedSocket(fd) as own:
        size = own.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    return int.from_bytes(waiting, sys.byteorder) < size
