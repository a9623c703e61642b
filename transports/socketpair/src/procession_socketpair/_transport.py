"""The transport `socketpair`."""

from __future__ import annotations

import sys
from typing import ClassVar

from procession.plugin import Channel, Mailbox, PacketMailbox, Transport, TransportFeatures

from ._channel import SocketPairChannel
from ._lane import SocketLane

#: More room lets reader and writer work at the same time.
_BUFFER_SIZE = 1 << 20
#: A packet must fit with what the kernel adds to it.
_SMALLEST_BUFFER = 2 * SocketPairChannel.longest_write


class SocketPair(Transport):
    """Messages travel through pairs of connected Unix sockets."""

    name: ClassVar[str] = "socketpair"
    features: ClassVar[TransportFeatures] = TransportFeatures(
        atomic_up_to=SocketPairChannel.longest_packet - 1
    )

    @classmethod
    def unavailable(cls) -> str | None:
        """See `Transport.unavailable`."""
        if sys.platform == "win32" or sys.platform == "darwin":
            return "Unix sockets that keep packets apart (SOCK_SEQPACKET)"
        return None

    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        """See `Transport.pair`."""
        if sys.platform == "win32":
            raise OSError("this platform has no Unix sockets")
        import socket

        first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with first, second:
            for end in (first, second):
                # The kernel gives as much of it as its limit allows.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_SIZE)
                given = end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
                if given < _SMALLEST_BUFFER:
                    raise OSError(
                        f"a socket's buffer is limited to {given} bytes, and {_SMALLEST_BUFFER} "
                        f"are needed: raise net.core.wmem_max, or choose another transport"
                    )
            one, other = first.detach(), second.detach()
        if duplex:
            return SocketPairChannel((one,), (one,)), SocketPairChannel((other,), (other,))
        return SocketPairChannel((one,), ()), SocketPairChannel((), (other,))

    def mailbox(self, *, maxsize: int = 0, joinable: bool = False) -> Mailbox:
        """See `Transport.mailbox`."""
        return PacketMailbox(SocketLane.create(), maxsize=maxsize, joinable=joinable)
