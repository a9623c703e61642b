"""One end of a connection that may be sent to another host."""

from __future__ import annotations

import os

from procession.errors import BrokenConnectionError
from procession.plugin import PacketSocketChannel

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

    from procession.plugin import Message

#: What begins a message that says that the way to the other host was cut.
_CUT = b"procession-tcp: cut\x00\x8f\x1c\xe7"


class TcpChannel(PacketSocketChannel):
    """One end: a SOCK_SEQPACKET socket to receive from and to send to, or only one of both.

    Also where the other end is on another host: a tunnel (see `_tunnel`) is at the other
    end of the socket then. So an end can be inherited, handed over and waited for as that of
    any other transport.
    """

    __slots__ = ()

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
        """See `Channel.receive`.

        Raises `BrokenConnectionError` when the way to the other host was cut.
        """
        message = super().receive(into, limit)
        buffers = message[1]
        if len(buffers) == 2 and not message[0] and buffers[0] == _CUT:
            raise BrokenConnectionError(bytes(buffers[1]).decode())
        return message

    def announce_cut(self, reason: str) -> None:
        """Let who has the other end raise `BrokenConnectionError` when he comes to this.

        No object has a pickle of no bytes, so that it is no message of anybody's.
        """
        self.send(b"", [_CUT, reason.encode()])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for a message to a running process: of another host, if one can reach us."""
        bind = other_hosts_may_come()
        if bind is None:
            return super().__reduce__()
        from ._dock import dock

        return dock.offer_end(self, bind)


def other_hosts_may_come() -> str | None:
    """Return the address at which other hosts reach this process, as it was set, or None."""
    return os.environ.get("PROCESSION_TCP_BIND") or None
