"""The transport `tcp`."""

from __future__ import annotations

import sys

from procession.plugin import Channel, Mailbox, PacketSocketLane, Transport, TransportFeatures

from ._channel import TcpChannel, other_hosts_may_come
from ._mailbox import TcpMailbox

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import ClassVar


class Tcp(Transport):
    """Messages travel through sockets: on one host Unix sockets, between hosts TCP and TLS.

    Ends and queues are made in one process, as with every transport. One that is sent to
    another host, through a connection that leads there, dials back to the process that
    has sent it, if ``PROCESSION_TCP_BIND`` says at which address that is to be.
    """

    name: ClassVar[str] = "tcp"
    features: ClassVar[TransportFeatures] = TransportFeatures(
        same_host=False, atomic_up_to=TcpChannel.longest_packet - 1
    )

    @classmethod
    def unavailable(cls) -> str | None:
        """See `Transport.unavailable`."""
        if sys.platform == "win32" or sys.platform == "darwin":
            return "Unix sockets that keep packets apart (SOCK_SEQPACKET)"
        return None

    @classmethod
    def details(cls) -> str:
        """See `Transport.details`."""
        bind = other_hosts_may_come()
        return "on this host only" if bind is None else f"other hosts reach this one at {bind}"

    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        """See `Transport.pair`."""
        return TcpChannel.pair(duplex=duplex)

    def mailbox(self, *, maxsize: int = 0, joinable: bool = False) -> Mailbox:
        """See `Transport.mailbox`."""
        return TcpMailbox(PacketSocketLane.create(), maxsize=maxsize, joinable=joinable)
