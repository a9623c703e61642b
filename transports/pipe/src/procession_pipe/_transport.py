"""The transport `pipe`."""

from __future__ import annotations

import os
import sys
from typing import ClassVar

from procession.plugin import Channel, Mailbox, PacketMailbox, Transport, TransportFeatures

from ._channel import PipeChannel
from ._lane import PipeLane

#: More room lets reader and writer work at the same time: twice the speed of the default.
_PIPE_SIZE = 1 << 20


class Pipe(Transport):
    """Messages travel through kernel pipes, one for each direction."""

    name: ClassVar[str] = "pipe"
    features: ClassVar[TransportFeatures] = TransportFeatures(atomic_up_to=4095)

    @classmethod
    def unavailable(cls) -> str | None:
        """See `Transport.unavailable`."""
        if sys.platform != "linux":
            return "pipes that keep packets apart (O_DIRECT), which only Linux has"
        return None

    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        """See `Transport.pair`."""
        reader, writer = _open_packet_pipe()
        if not duplex:
            return PipeChannel(reader, -1), PipeChannel(-1, writer)
        try:
            back_reader, back_writer = _open_packet_pipe()
        except OSError:
            os.close(reader)
            os.close(writer)
            raise
        return PipeChannel(reader, back_writer), PipeChannel(back_reader, writer)

    def mailbox(self, *, maxsize: int = 0, joinable: bool = False) -> Mailbox:
        """See `Transport.mailbox`."""
        return PacketMailbox(PipeLane.create(), maxsize=maxsize, joinable=joinable)


def _open_packet_pipe() -> tuple[int, int]:
    """Return the reading and the writing end of a new pipe; the caller owns both."""
    if sys.platform != "linux":
        raise OSError("only Linux has packet pipes")
    import fcntl

    reader, writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        # The user's quota of pipe memory is used up: the size it has will do, more slowly.
        pass
    return reader, writer
