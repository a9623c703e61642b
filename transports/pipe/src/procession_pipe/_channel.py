"""One end of a connection over kernel pipes."""

from __future__ import annotations

from procession.plugin import PacketChannel

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import ClassVar


class PipeChannel(PacketChannel):
    """One end: two pipes to receive from, two pipes to send to, or only one of these pairs.

    The first of each pair is a packet pipe (its writing end has O_DIRECT): what is written
    at once is read at once, so that a short message is one system call on either side.
    The second is an ordinary one, through which the bulk of longer messages streams. One
    pipe cannot well be both: a packet takes a whole page and is read alone, and when the
    mode is changed in between, the kernel adds packets to the last page of a stream.
    """

    __slots__ = ()

    #: PIPE_BUF: what a pipe writes whole or not at all.
    longest_packet: ClassVar[int] = 4096
    #: What a pipe holds.
    longest_write: ClassVar[int] = 1 << 20
