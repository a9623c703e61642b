"""The transport `pipe`."""

from __future__ import annotations

import os
import sys

from procession.plugin import Transport, TransportFeatures

from ._channel import PipeChannel
from ._lane import PipeLane

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import ClassVar

    from procession.plugin import Channel, Mailbox

#: Room for 64 packets: so many short messages can be sent before the sender has to wait.
_PACKETS_SIZE = 256 << 10
#: More room lets reader and writer work at the same time: twice the speed of the default.
_BULK_SIZE = 1 << 20


class Pipe(Transport):
    """Messages travel through kernel pipes, one for each direction."""

    name: ClassVar[str] = "pipe"
    features: ClassVar[TransportFeatures] = TransportFeatures(
        atomic_up_to=PipeChannel.longest_packet - 1
    )

    @classmethod
    def unavailable(cls) -> str | None:
        """See `Transport.unavailable`."""
        if sys.platform != "linux":
            return "pipes that keep packets apart (O_DIRECT), which only Linux has"
        return None

    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        """See `Transport.pair`."""
        readers, writers = _open_pipes()
        if not duplex:
            return PipeChannel(readers, ()), PipeChannel((), writers)
        try:
            back_readers, back_writers = _open_pipes()
        except OSError:
            for fd in (*readers, *writers):
                os.close(fd)
            raise
        return PipeChannel(readers, back_writers), PipeChannel(back_readers, writers)

    def mailbox(self, *, maxsize: int = 0, joinable: bool = False) -> Mailbox:
        """See `Transport.mailbox`."""
        # Not at the top: whoever makes no queue loads this transport, too.
        from procession.plugin import PacketMailbox

        return PacketMailbox(PipeLane.create(), maxsize=maxsize, joinable=joinable)


def _open_pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the reading and the writing ends of a packet pipe and an ordinary one.

    The caller owns all four.
    """
    if sys.platform != "linux":
        raise OSError("only Linux has packet pipes")
    reader, writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    try:
        bulk_reader, bulk_writer = os.pipe2(os.O_CLOEXEC)
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    _widen(writer, _PACKETS_SIZE)
    _widen(bulk_writer, _BULK_SIZE)
    return (reader, bulk_reader), (writer, bulk_writer)


def _widen(writer: int, size: int) -> None:
    """Give a pipe room for *size* bytes, if the user's quota of pipe memory allows it."""
    if sys.platform != "linux":
        raise OSError("only Linux lets the size of a pipe be changed")
    import fcntl

    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
    except OSError:
        # The quota is used up: the size it has will do, more slowly.
        pass
