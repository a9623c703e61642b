"""One end of a connection over a pair of sockets that keep packets apart."""

from __future__ import annotations

from procession.plugin import PacketChannel

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import ClassVar


class SocketPairChannel(PacketChannel):
    """One end: a SOCK_SEQPACKET socket to receive from and to send to, or only one of both."""

    __slots__ = ()

    longest_packet: ClassVar[int] = 64 << 10
    #: It must fit into a socket's send buffer (208 KiB by default, and packets cost some on
    #: top); larger packets gain little.
    longest_write: ClassVar[int] = 128 << 10
