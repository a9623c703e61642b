"""A lane on a pair of Unix sockets."""

from __future__ import annotations

import sys

from procession.plugin import PacketLane

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Self

# The kernel doubles it, and counts at least 700 bytes for a packet of 511: so a lane holds
# fewer than the 512 packets that can be counted (it is about 200). Every kernel allows it.
_BUFFER = 1 << 17


class SocketLane(PacketLane):
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
        import socket

        reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with reader, writer:
            reader.setblocking(False)
            writer.setblocking(False)
            writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            return cls(reader.detach(), writer.detach())
