"""The transport `memory`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar

from procession.plugin import Transport, TransportFeatures
from procession.testing.faults._channel import End, MemoryChannel
from procession.testing.faults._flow import Flow
from procession.testing.faults._life import changed
from procession.testing.faults._mailbox import MemoryMailbox

if TYPE_CHECKING:
    from procession.plugin import Channel, Mailbox


class Memory(Transport):
    """Carries messages in the memory of this process, and loses them as a script says."""

    name: ClassVar[str] = "memory"
    features: ClassVar[TransportFeatures] = TransportFeatures(shares_memory=True)

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why this transport cannot work here, or None."""
        return "it needs poll(), which Windows does not have" if sys.platform == "win32" else None

    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        """See `Transport.pair`."""
        with changed:
            first = End(Flow(mixes=False))
            try:
                second = End(Flow(mixes=False) if duplex else None)
            except BaseException:
                first.peer = first
                MemoryChannel(first, first.first, writable=False).close()
                raise
            first.peer, second.peer = second, first
            return (
                MemoryChannel(first, first.first, writable=duplex),
                MemoryChannel(second, second.first, writable=True),
            )

    def mailbox(self, *, maxsize: int = 0, joinable: bool = False) -> Mailbox:
        """See `Transport.mailbox`."""
        return MemoryMailbox.make(maxsize, joinable)
