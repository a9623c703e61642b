"""One end of a connection that may be sent to another host."""

from __future__ import annotations

import os
import sys

from procession.errors import BrokenConnectionError
from procession.plugin import PacketChannel

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from procession.plugin import Message

_INTEGER = 4
#: What begins a message that says that the way to the other host was cut.
_CUT = b"procession-tcp: cut\x00\x8f\x1c\xe7"
#: More room lets reader and writer work at the same time.
_BUFFER_SIZE = 1 << 20


class TcpChannel(PacketChannel):
    """One end: a SOCK_SEQPACKET socket to receive from and to send to, or only one of both.

    Also where the other end is on another host: a tunnel (see `_tunnel`) is at the other
    end of the socket then. So an end can be inherited, handed over and waited for as that of
    any other transport.
    """

    __slots__ = ()

    longest_packet: ClassVar[int] = 64 << 10
    #: It must fit into a socket's send buffer (208 KiB by default, and packets cost some on
    #: top); larger packets gain little.
    longest_write: ClassVar[int] = 128 << 10

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

    def wait_for_room(self, length: int, timeout: float | None = None, /) -> bool:
        """See `Channel.wait_for_room`.

        poll() calls a socket writable as long as three quarters of its buffer are free; a
        send waits only when nothing is.
        """
        if super().wait_for_room(length, 0) or _has_room(self.writer):
            return True
        return super().wait_for_room(length, timeout)

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


def socket_pair() -> tuple[int, int]:
    """Return two connected sockets that keep packets apart; the caller owns both.

    Raises `OSError` when descriptors have run out.
    """
    if sys.platform == "win32":
        raise OSError("this platform has no Unix sockets")
    import socket

    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with first, second:
        for end in (first, second):
            # The kernel gives as much of it as its limit allows.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_SIZE)
            given = end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            if given < 2 * TcpChannel.longest_write:  # a packet, with what the kernel adds
                raise OSError(
                    f"a socket's buffer is limited to {given} bytes, and "
                    f"{2 * TcpChannel.longest_write} are needed: raise net.core.wmem_max"
                )
        return first.detach(), second.detach()


def _has_room(fd: int) -> bool:
    """Return whether the kernel still takes a packet, however long, without waiting."""
    if sys.platform == "win32":
        return False
    import fcntl
    import socket
    import termios

    waiting = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_INTEGER))
    own = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)
    try:
        size = own.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    finally:
        own.detach()
    return int.from_bytes(waiting, sys.byteorder) < size
