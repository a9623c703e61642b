"""What transports over Unix sockets that keep packets apart (SOCK_SEQPACKET) are made of."""

from __future__ import annotations

import _socket  # `socket` would bring much more: `enum`, `collections`, `selectors`
import errno
import os
import struct
import sys

from procession._channels.packet_channel import PacketChannel
from procession._ground.waiting import wait_writable
from procession._mailboxes.packet_lane import PacketLane
from procession.framing import batches, cut

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar, Self

_INTEGER = 4
#: More room lets reader and writer work at the same time.
_BUFFER = 1 << 20
# The kernel doubles it, and counts at least 700 bytes for a packet of 511: so a lane holds
# fewer than the 512 packets that can be counted (it is about 200). Every kernel allows it.
_LANE_BUFFER = 1 << 17
# Shorter packets than that are not tried where the kernel has no memory for longer ones.
_SHORTEST_WRITE = 32 << 10
# What every socket takes; longer packets are for messages of several of them, as the receiver
# reads one while the next one is written.
_USUAL_WRITE = 128 << 10
_PACKETS = 8
# What the kernel says of a packet for which it has no memory in one piece, or not enough, or
# which the buffer of the socket could never hold.
_TOO_LONG = (errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM)
# A second, as a struct timeval.
_A_SECOND = struct.pack("@ll", 1, 0)


class PacketSocketChannel(PacketChannel):
    """One end: a SOCK_SEQPACKET socket to receive from and to send to, or only one of both."""

    __slots__ = ("_longest_write",)

    longest_packet: ClassVar[int] = 64 << 10
    #: Half as many packets are half as many processes to be woken. The kernel would take no
    #: more than it has in one piece, so that it is asked for less where it has not that.
    longest_write: ClassVar[int] = 512 << 10
    has_timeouts: ClassVar[bool] = True

    def __init__(self, readers: Sequence[int], writers: Sequence[int]) -> None:
        """See `DescriptorChannel`."""
        super().__init__(readers, writers)
        self._longest_write = self.longest_write

    @classmethod
    def pair(cls, *, duplex: bool = True) -> tuple[Self, Self]:
        """Make both ends of a connection. Raises what `packet_socket_pair` raises."""
        one, other = packet_socket_pair()
        if duplex:
            return cls((one,), (one,)), cls((other,), (other,))
        return cls((one,), ()), cls((), (other,))

    def write_bulk(self, views: list[memoryview]) -> None:
        """See `PacketChannel.write_bulk`."""
        left = sum(map(len, views))
        usual = max(_USUAL_WRITE, left // _PACKETS)
        while left:
            longest = min(usual, self._longest_write)
            for batch in batches(views, longest):
                if not self._write_packet(batch):
                    # Memory in so long pieces does not come back soon. Nobody has seen any of it.
                    self._longest_write = longest // 2
                    break
                written = sum(map(len, batch))
                left -= written
                views = cut(views, written)[1]

    def _write_packet(self, views: list[memoryview]) -> bool:
        """Write *views* as one packet; return False if it is too long, and may be shorter."""
        if sys.platform == "win32":
            raise OSError("this platform has no vectored writing")
        while True:
            try:
                os.writev(self.bulk_writer, views)
                return True
            except BlockingIOError:
                self._wait_again(self.bulk_writer, wait_writable)
            except OSError as error:
                # What a signal handler has raised came through a function of its own, and is
                # nothing that we know anything about.
                here = error.__traceback__
                ours = here is not None and here.tb_next is None
                if not ours or error.errno not in _TOO_LONG:
                    raise
                if self._longest_write <= _SHORTEST_WRITE:
                    raise
                return False

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
            needed = 2 * _USUAL_WRITE  # a packet, with what the kernel adds
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

    from procession._ground.sockets import BorrowedSocket

    waiting = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_INTEGER))
    with BorrowedSocket(fd) as own:
        size = own.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    return int.from_bytes(waiting, sys.byteorder) < size
