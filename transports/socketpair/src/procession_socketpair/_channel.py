"""One end of a connection over a pair of sockets that keep packets apart."""

from __future__ import annotations

from procession.framing import batches
from procession.plugin import PacketChannel, write_all

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence

#: How much of a long message is one packet. It must fit into a socket's send buffer (208
#: KiB by default, and packets cost some on top); larger ones than this gain little.
LONGEST_PACKET = 128 << 10


class SocketPairChannel(PacketChannel):
    """One end: a SOCK_SEQPACKET socket to receive from and to send to, or only one of both."""

    __slots__ = ()

    def write_rest(self, views: Sequence[memoryview], length: int, /) -> None:
        """See `PacketChannel.write_rest`."""
        for batch in batches(views, LONGEST_PACKET):
            write_all(self.writer, batch)
