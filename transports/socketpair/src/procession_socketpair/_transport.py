"""The transport `socketpair`."""

from __future__ import annotations

import sys

from procession.plugin import PacketSocketChannel, PacketSocketLane, Transport, TransportFeatures

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import ClassVar

    from procession.plugin import Channel, Mailbox


class SocketPair(Transport):
    """Messages travel through pairs of connected Unix sockets."""

    name: ClassVar[str] = "socketpair"
    features: ClassVar[TransportFeatures] = TransportFeatures(
        atomic_up_to=PacketSocketChannel.longest_packet - 1
    )

    @classmethod
    def unavailable(cls) -> str | None:
        """See `Transport.unavailable`."""
        if sys.platform == "win32" or sys.platform == "darwin":
            return "Unix sockets that keep packets apart (SOCK_SEQPACKET)"
        return None

    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        """See `Transport.pair`."""
        return PacketSocketChannel.pair(duplex=duplex)

    def mailbox(self, *, maxsize: int = 0, joinable: bool = False) -> Mailbox:
        """See `Transport.mailbox`."""
        # Not at the top: whoever makes no queue loads this transport, too.
        from procession.plugin import PacketMailbox

        return PacketMailbox(PacketSocketLane.create(), maxsize=maxsize, joinable=joinable)
