"""The transport `socketpair`."""

from __future__ import annotations

import sys
from typing import ClassVar

from procession.plugin import (
    Channel,
    Mailbox,
    PacketMailbox,
    PacketSocketChannel,
    PacketSocketLane,
    Transport,
    TransportFeatures,
)


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
        return PacketMailbox(PacketSocketLane.create(), maxsize=maxsize, joinable=joinable)
