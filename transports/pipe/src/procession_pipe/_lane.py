"""A lane on a packet pipe."""

from __future__ import annotations

import os
import sys

from procession.plugin import PacketLane

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Self

# One page, one packet: 256 of them, fewer than what can be counted.
_SIZE = 1 << 20


class PipeLane(PacketLane):
    """Packets in a pipe with O_DIRECT, of which every process holds both ends.

    It holds 256 packets, or 16 (or only 2) when the user's quota of pipe memory is
    used up. A packet has at most PIPE_BUF bytes.
    """

    __slots__ = ()

    longest = 4096

    @classmethod
    def create(cls) -> Self:
        """Make a new pipe. Raises `OSError` when descriptors have run out."""
        if sys.platform != "linux":
            raise OSError("only Linux has packet pipes")
        import fcntl

        reader, writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _SIZE)
        except OSError:
            pass  # over the quota: it stays as small as it is, and the mailbox has its log
        return cls(reader, writer)
