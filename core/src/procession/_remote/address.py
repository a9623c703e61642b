"""Addresses of listeners: their families, the ones we choose ourselves, and socket options."""

from __future__ import annotations

import os
import socket
import sys

from procession._ground.resource_errors import explain
from procession._ground.silence import ask_when_idle
from procession.errors import AuthenticationError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import TypeAlias

#: ``(host, port)``, with two more for IPv6; a path; or an abstract name, with a NUL in front.
Address: TypeAlias = "tuple[str, int] | tuple[str, int, int, int] | str | bytes"

_OWN = b"\0procession-"
_LONGEST_PATH = 107


def family_of(address: object) -> str:
    """Return the name of the family that *address* belongs to.

    Raises `TypeError` when it can be nobody's.
    """
    if isinstance(address, tuple):
        host = address[0] if address else ""
        return "AF_INET6" if len(address) == 4 or ":" in str(host) else "AF_INET"
    if isinstance(address, str) and address.startswith("\\\\"):
        return "AF_PIPE"
    if isinstance(address, str) or (isinstance(address, bytes) and address[:1] == b"\0"):
        return "AF_UNIX"
    raise TypeError(
        f"address type of {address!r} unrecognized: (host, port), a path, or an abstract name "
        f"that begins with a NUL is one"
    )


def open_socket(family: str) -> socket.socket:
    """Return a new stream socket. Raises `ValueError` for a family that is not there."""
    if family == "AF_PIPE":
        raise ValueError("Family AF_PIPE is not recognized.")
    if family not in ("AF_INET", "AF_INET6", "AF_UNIX") or not hasattr(socket, family):
        raise ValueError(
            f"unrecognized family {family!r}: it may be 'AF_INET', 'AF_INET6' or 'AF_UNIX'"
        )
    try:
        return socket.socket(getattr(socket, family), socket.SOCK_STREAM)
    except OSError as error:
        raise explain(error, "cannot have a socket") or error from None


def own_address(family: str) -> Address:
    """Return an address nobody uses, for a listener that was not given one.

    On Linux an abstract name: nothing to be left behind by a killed process. Elsewhere a
    path in a private directory, which `remove` removes.
    """
    if family == "AF_INET":
        return "localhost", 0
    if family == "AF_INET6":
        return "::1", 0
    if sys.platform == "linux":
        return _OWN + b"%d-%s" % (os.getpid(), os.urandom(16).hex().encode())
    import tempfile

    return os.path.join(tempfile.mkdtemp(prefix="procession-"), "listener")


def check_length(address: Address) -> None:
    """Raise `OSError` for a path that the kernel has no room for."""
    if isinstance(address, tuple):
        return
    length = len(os.fsencode(address))
    if length > _LONGEST_PATH:
        raise OSError(
            f"AF_UNIX path too long: it has {length} bytes and may have {_LONGEST_PATH}; use a "
            f"shorter one, or none, to have an address chosen"
        )


def path_of(address: Address) -> str | None:
    """Return the name in the file system that *address* is, or None."""
    if isinstance(address, tuple) or os.fsencode(address)[:1] in (b"", b"\0"):
        return None
    return os.fsdecode(address)


def remove(path: str, own: bool, creator: int) -> None:
    """Remove the name of a closed listener; with *own*, the directory made for it, too.

    Does nothing in another process than its *creator*: a forked one has a copy.
    """
    if os.getpid() != creator:
        return
    try:
        os.unlink(path)
        if own:
            os.rmdir(os.path.dirname(path))
    except FileNotFoundError:
        return  # somebody has tidied up before us


def check_user(peer: socket.socket, address: Address) -> None:
    """Turn away other users at an address that we have chosen ourselves.

    Anybody may connect to an abstract name, or take it when its owner has gone. As the
    standard library's private directory does, we keep to this user and root.
    """
    if sys.platform != "linux" or isinstance(address, tuple):
        return
    if not os.fsencode(address).startswith(_OWN):
        return
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    user = int.from_bytes(credentials[4:8], sys.byteorder)
    if user not in (0, os.geteuid()):
        raise AuthenticationError(
            f"a process of another user ({user}) is at the other end, and {address!r} is private"
        )


def tune(peer: socket.socket, silence: float) -> None:
    """Send at once, and find out in *silence* seconds that the host of an idle peer has vanished.

    What `procession._ground.silence` says about one that is not idle needs no option.
    """
    if is_of_hosts(peer):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask_when_idle(peer, silence)


def is_of_hosts(peer: socket.socket) -> bool:
    """Return whether the other side may be on another host: TCP, and not a Unix socket."""
    return peer.family in (socket.AF_INET, getattr(socket, "AF_INET6", None))
