"""Sockets that belong to somebody else, and descriptors that come through them."""

from __future__ import annotations

import os
import socket
import sys
from struct import Struct

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Self

_FD = Struct("i")
# An object of a socket takes over the program's default timeout (`socket.setdefaulttimeout`),
# and has the kernel's socket, which others use as well, block no more. It keeps its hands off
# one that is said not to block.
_TYPE = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)


class BorrowedSocket(socket.socket):
    """An object for the socket *fd*, for as long as a ``with`` block takes.

    It neither closes the socket nor changes whether it blocks, which whoever else uses it
    relies on: a call waits if the socket does. Threads: one.
    """

    def __init__(self, fd: int) -> None:
        """Raises `OSError` if *fd* is no socket."""
        super().__init__(type=_TYPE, fileno=fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.detach()

    def __del__(self) -> None:
        # Also when a signal handler has raised before the block was entered.
        self.detach()


def receive_descriptors(peer: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Receive up to *size* bytes and the descriptors with them, *most* of them at most.

    No program that is started meanwhile inherits them; the caller owns them. There are fewer
    than were sent when this process has no room for more. Raises `OSError`.
    """
    if sys.platform == "win32":
        raise OSError("descriptors travel through Unix sockets only")
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, ancillary, _, _ = peer.recvmsg(size, socket.CMSG_SPACE(most * _FD.size), flags)
    descriptors: list[int] = []
    for level, kind, rights in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(rights) - len(rights) % _FD.size
            descriptors += (fd for (fd,) in _FD.iter_unpack(rights[:whole]))
    if not flags:
        for fd in descriptors:
            os.set_inheritable(fd, False)
    return data, descriptors
