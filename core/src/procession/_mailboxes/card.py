"""A card in a shared file: which kernel objects belong to it, for those who look from outside.

A process that waits sleeps on some descriptor, and ``/proc`` says which. What it is for is
written on the card of the object that it belongs to, once, when the object is made: nothing
has to be written when somebody sleeps.
"""

from __future__ import annotations

import os
import stat
import sys

#: Where the card lies in the file: in the page that holds the shared state, behind it.
OFFSET = 2048
SIZE = 1024
_MARK = b"procession card\n"


def write(fd: int, kind: str, **parts: str | int) -> None:
    """Write a card to *fd*: what *kind* of object it is, and its *parts* by their role.

    Nothing is written where there is no ``/proc``, or no descriptor left to read it with: the
    object works all the same.
    """
    if sys.platform != "linux":
        return
    lines = "".join(f"{role}={value}\n" for role, value in {"kind": kind, **parts}.items())
    os.pwrite(fd, _MARK + lines.encode(), OFFSET)


def read(page: bytes) -> dict[str, str]:
    """Return the parts on the card in *page*, the start of a file; empty when there is none."""
    card = page[OFFSET : OFFSET + SIZE]
    if not card.startswith(_MARK):
        return {}
    lines = card[len(_MARK) :].rstrip(b"\0").decode("ascii", "replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def counters(places: tuple[int, int, int] | None) -> str:
    """Return where a lane's counters are: the inode of the file and the places; "" for none."""
    if places is None:
        return ""
    fd, sent, received = places
    return f"{os.fstat(fd).st_ino} {sent} {received}"


def identity(fd: int | None) -> str:
    """Return what tells the kernel object of *fd* from all others; "" if nothing does."""
    if fd is None or sys.platform != "linux":
        return ""
    status = os.fstat(fd)
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode):
        return str(status.st_ino)
    # All eventfds share one inode; the number that tells them apart is in /proc only.
    try:
        info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return eventfd_id(os.read(info, 4096))
    finally:
        os.close(info)


def eventfd_id(info: bytes) -> str:
    """Return the number of an eventfd, from its page in ``fdinfo``; "" for another thing."""
    _, found, rest = info.partition(b"eventfd-id:")
    return "e" + rest.split(None, 1)[0].decode() if found else ""
