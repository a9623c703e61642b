"""One end of a connection over kernel pipes that keep packets apart."""

from __future__ import annotations

import fcntl
import mmap
import os
import sys

from procession.framing import batches, cut
from procession.plugin import PacketChannel, write_all

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence

_PAGE = mmap.PAGESIZE
#: Up to here a message is quicker in packets than by changing the mode twice (measured).
_SHORT = 32 << 10
#: How much is written at once: what a pipe holds.
_BATCH = 1 << 20


class PipeChannel(PacketChannel):
    """One end: a pipe to receive from, a pipe to send to, or one of the two.

    The writing ends have O_DIRECT: what is written at once is read at once. Packets are
    pages that are not filled, so a long message is written without O_DIRECT, and then
    the kernel fills pages and lets the reader have many of them at once. It would also
    fill the last page of a message up with the packet that follows, and glue the two
    together; so what is written in this way is a whole number of pages, and the last of
    them is a packet again. (A process killed on the way leaves a truncated message, and
    never a complete one after which packets are not kept apart.)
    """

    __slots__ = ()

    def write_rest(self, views: Sequence[memoryview], length: int, /) -> None:
        """See `PacketChannel.write_rest`."""
        writer = self.writer
        if length > _SHORT:
            odd, views = cut(views, length % _PAGE)
            write_all(writer, odd)
            pages, views = cut(views, length - length % _PAGE - _PAGE)
            keep_packets_apart(writer, False)
            for batch in batches(pages, _BATCH):
                write_all(writer, batch)
            keep_packets_apart(writer, True)
        for batch in batches(views, _BATCH):
            write_all(writer, batch)


def keep_packets_apart(writer: int, apart: bool) -> None:
    """Switch O_DIRECT of the writing end of a pipe on or off."""
    if sys.platform != "linux":
        raise OSError("only Linux has packet pipes")
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_WRONLY | (os.O_DIRECT if apart else 0))
