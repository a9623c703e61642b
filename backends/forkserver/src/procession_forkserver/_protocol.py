# ruff: noqa: E402 - the type checkers must see the platform first
"""What the parent, the fork server and its children say to each other.

Two kinds of socket carry it, both pairs of packet sockets made by the parent and known
to nobody else:

* the *request socket*, one per server. First comes the preparation, as a pickle; then,
  for every child, one byte and the child's end of its own line.
* the *line*, one per child. The parent puts the parcel and the descriptors on it before
  the server is asked; the child answers with its process id and a pidfd of itself, once
  it exists; the server says the exit code when it has collected it.

Because the child itself answers, the parent knows for certain whether a server that was
killed had forked: no answer can come from a line whose every other holder is gone.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

assert sys.platform == "linux", "ask ForkServer.unavailable() first"

from _socket import (
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    SCM_RIGHTS,
    SOL_SOCKET,
    socket,
)

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence

#: The kernel takes at most 253 descriptors with one packet (SCM_MAX_FD).
DESCRIPTORS_PER_PACKET = 250

STARTED = b"s"
ENDED = b"e"
FAILED = b"f"

_COUNT = struct.Struct("!I")
_REPORT = struct.Struct("!cq")
REPORT_SIZE = _REPORT.size
_FD = struct.Struct("i")
_ANCILLARY = CMSG_SPACE(_FD.size * DESCRIPTORS_PER_PACKET)


class Ended(Exception):
    """Nobody is left at the other end."""


class NoRoom(OSError):
    """Descriptors came, and the table of open files has no room for them."""

    def __init__(self, data: bytes) -> None:
        super().__init__(errno.EMFILE, "too many open files: no room for those of a new process")
        #: What the packet said, apart from the descriptors.
        self.data = data


def send_descriptors(line: socket, descriptors: Sequence[int]) -> None:
    """Put *descriptors* on *line*, however many; they stay the caller's."""
    for start in range(0, max(1, len(descriptors)), DESCRIPTORS_PER_PACKET):
        batch = descriptors[start : start + DESCRIPTORS_PER_PACKET]
        send(line, _COUNT.pack(len(descriptors)), batch)


def receive_descriptors(line: socket) -> list[int]:
    """Take the descriptors of `send_descriptors` off *line*; the caller owns them."""
    data, descriptors = receive(line)
    (count,) = _COUNT.unpack(data)
    while len(descriptors) < count:
        descriptors += receive(line)[1]
    return descriptors


def send_report(line: socket, kind: bytes, number: int, descriptors: Sequence[int] = ()) -> None:
    """Report `STARTED` and the process id, `ENDED` and the exit code, or `FAILED` and errno."""
    send(line, _REPORT.pack(kind, number), descriptors)


def refuse(line: socket, number: int) -> None:
    """Report `FAILED` and errno *number*, as the last that is done with this end of *line*.

    What is on the line is taken off first: where something is left unread when an end is
    closed, the other end gets ECONNRESET, and not what was sent to it.
    """
    try:
        while line.recv(1, MSG_DONTWAIT):
            pass  # without room for descriptors: the kernel closes them
    except BlockingIOError:
        pass
    send_report(line, FAILED, number)


def receive_report(line: socket) -> tuple[bytes, int, list[int]]:
    """Receive a report: its kind, its number, and the descriptors that came with it."""
    data, descriptors = receive(line)
    return *parse_report(data), descriptors


def parse_report(data: bytes) -> tuple[bytes, int]:
    """Return the kind and the number of a report."""
    kind, number = _REPORT.unpack(data)
    return kind, number


def send(line: socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one packet. Raises `Ended` when nobody is left to receive it."""
    rights = struct.pack(f"{len(descriptors)}i", *descriptors)
    try:
        line.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, rights)] if descriptors else [])
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Ended from error


def receive(line: socket, size: int = 64) -> tuple[bytes, list[int]]:
    """Receive one packet of up to *size* bytes. Raises `Ended` at the end."""
    try:
        data, ancillary, flags, _ = line.recvmsg(size, _ANCILLARY, MSG_CMSG_CLOEXEC)
    except ConnectionResetError as error:
        raise Ended from error
    descriptors: list[int] = []
    for level, kind, rights in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            whole = len(rights) - len(rights) % _FD.size
            descriptors += struct.unpack(f"{whole // _FD.size}i", rights[:whole])
    if flags & MSG_CTRUNC:
        # The kernel drops what does not fit into the table of open files.
        for fd in descriptors:
            os.close(fd)
        raise NoRoom(data)
    if not data:
        raise Ended
    return data, descriptors
