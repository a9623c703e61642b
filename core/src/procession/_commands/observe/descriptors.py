"""The descriptors of another process, as far as they tell something about procession."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING

import attrs

from procession._mailboxes.card import eventfd_id

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Descriptor", "borrow", "look", "open_again", "peers"]

_PIDFD_GETFD = 438  # the same on every architecture
_MEMORY = "/memfd:"
_DELETED = " (deleted)"


@attrs.frozen
class Descriptor:
    """One descriptor of a process."""

    number: int
    #: "pipe", "socket", "eventfd", "eventpoll", "pidfd" or "memory".
    kind: str
    #: What tells the object behind it from all others; "" where nothing does.
    identity: str
    #: The label of a file in memory.
    label: str
    #: What the kernel says about it in ``fdinfo``.
    info: bytes

    @property
    def reads(self) -> bool:
        """Whether it can be read from."""
        return self._access() != 1

    @property
    def writes(self) -> bool:
        """Whether it can be written to."""
        return self._access() != 0

    def _access(self) -> int:
        return int(self.field("flags") or "0", 8) & 3

    def field(self, name: str) -> str | None:
        """Return the first field *name* of the info."""
        return next(self.fields(name), None)

    def fields(self, name: str) -> Iterator[str]:
        """Yield all fields *name* of the info: an epoll has one for each target."""
        start = name + ":"
        for line in self.info.decode("ascii", "replace").splitlines():
            if line.startswith(start):
                yield line[len(start) :].strip()


def look(pid: int) -> dict[int, Descriptor]:
    """Return the descriptors of process *pid* that matter here, by number.

    Nothing is opened but their descriptions. Raises `PermissionError` for a process of
    another user, and `ProcessLookupError` or `FileNotFoundError` when it has ended.
    """
    found: dict[int, Descriptor] = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            descriptor = _look_at(pid, name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # closed meanwhile
        if descriptor is not None:
            found[descriptor.number] = descriptor
    return found


def _look_at(pid: int, name: str) -> Descriptor | None:
    path = f"/proc/{pid}/fd/{name}"
    link = os.readlink(path)
    label = identity = ""
    if link.startswith(("pipe:[", "socket:[")):
        kind, _, rest = link.partition(":[")
        identity = rest.rstrip("]")
    elif link.startswith("anon_inode:["):
        kind = link[len("anon_inode:[") :].rstrip("]")
        if kind not in ("eventfd", "eventpoll", "pidfd"):
            return None
    elif link.startswith("pidfd:") or link == "anon_inode:pidfd":
        kind = "pidfd"  # kernels that have a file system for them
    elif link.startswith(_MEMORY + "procession"):
        kind = "memory"
        label = link[len(_MEMORY) :].removesuffix(_DELETED)
        identity = str(os.stat(path).st_ino)
    else:
        return None
    with open(f"/proc/{pid}/fdinfo/{name}", "rb") as file:
        info = file.read()
    if kind == "eventfd":
        identity = eventfd_id(info)
    return Descriptor(int(name), kind, identity, label, info)


def open_again(pid: int, number: int) -> int:
    """Open the file behind a descriptor for reading; the caller closes what is returned.

    Only for files in memory, and for pipes of which every holder has both ends: there, one
    reader more for a moment is noticed by nobody.
    """
    if sys.platform != "linux":
        raise OSError("only Linux can do that")
    return os.open(f"/proc/{pid}/fd/{number}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def borrow(pid: int, number: int) -> int:
    """Return a duplicate of a descriptor of *pid*, for what cannot be opened: a socket.

    The same care is to be taken as with `open_again`. Raises `PermissionError` where
    tracing the process is not allowed.
    """
    if sys.platform != "linux":
        raise OSError("only Linux can do that")
    pidfd = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
        if fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return int(fd)
    finally:
        os.close(pidfd)


_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_DUMP = 0x301
_DONE, _ERROR = 3, 2
_ALL_STATES = 0xFFFFFFFF
_SHOW_PEER, _PEER = 4, 2
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBHIIIII")
_ANSWER = struct.Struct("=BBBBIII")
_ATTRIBUTE = struct.Struct("=HH")
_WORD = struct.Struct("=I")


def peers() -> dict[str, str]:
    """Return for each connected Unix socket of this network namespace its other end.

    Empty where the kernel does not tell.
    """
    if sys.platform != "linux":
        return {}
    found: dict[str, str] = {}
    body = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _SHOW_PEER, 0, 0)
    header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _DUMP, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as diag:
            diag.settimeout(1)
            diag.send(header + body)
            while True:
                for kind, payload in _messages(diag.recv(1 << 16)):
                    if kind in (_DONE, _ERROR):
                        return found
                    one, other = _ends(payload)
                    if other:
                        found[one] = other
    except OSError:
        return found  # a kernel without it, or a sandbox


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _ends(payload: bytes) -> tuple[str, str | None]:
    inode = _ANSWER.unpack_from(payload)[4]
    rest = payload[_ANSWER.size :]
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if kind == _PEER:
            return str(inode), str(_WORD.unpack_from(rest, _ATTRIBUTE.size)[0])
        if length < _ATTRIBUTE.size:
            break
        rest = rest[(length + 3) & ~3 :]
    return str(inode), None
