"""The queues of a program, read without taking part in them."""

from __future__ import annotations

import os
import struct
import sys
from typing import TYPE_CHECKING

import attrs

from procession._commands.observe.descriptors import borrow, open_again
from procession._mailboxes import card
from procession._mailboxes.mailbox_state import DROPPED, OPEN, SIZE, parse
from procession._mailboxes.packet_padding import count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from procession._commands.observe.descriptors import Descriptor

__all__ = ["LABEL", "QueueView", "read"]

#: The label of the file of a mailbox.
LABEL = "procession-mailbox"

_INTEGER = struct.Struct("i")
# The words of a mailbox on a pair: how many were put and taken, and whether it is shut.
_PAIR = struct.Struct("=6Q")
_COUNTER = struct.Struct("=I")
_COUNTERS_WRAP = 1 << 32
# Two readings that agree are one that no commit has torn.
_TRIES = 5


@attrs.define
class QueueView:
    """A queue, as it was at one moment."""

    #: What tells it from all others of this system.
    identity: str
    #: A name for people: its number within the program.
    name: str
    #: How many items it has; None when this cannot be seen.
    size: int | None
    #: How many it may have, 0 for no limit.
    maxsize: int
    #: Whether it was shut down.
    shut: bool
    #: The pids of those who have it.
    holders: list[int]
    #: The kernel objects that it is made of, by their role.
    parts: dict[str, str]


def read(pid: int, file: Descriptor, descriptors: Mapping[int, Descriptor]) -> QueueView | None:
    """Return the queue of *file*, one of the *descriptors* of process *pid*.

    None when it was closed meanwhile, or is none that this version knows.
    """
    page = _page(pid, file)
    parts = card.read(page)
    if not parts:
        return None
    size: int | None = None
    shut = False
    if parts["kind"] == "packets":
        ledger = parse(page)
        if parts.get("counters"):
            pending = _counted(pid, parts["counters"], descriptors)
        else:
            pending = _pending(pid, parts.get("lane", ""), descriptors)
        shut = ledger.shut != OPEN
        if ledger.shut == DROPPED:
            size = 0
        elif pending is not None:
            size = pending + ledger.logged
    elif parts["kind"] == "pair":
        put, _, taken, _, _, closed = _PAIR.unpack_from(page)
        size, shut = max(0, put - taken), bool(closed)
    maxsize = int(parts.get("maxsize", "0"))
    return QueueView(file.identity, "", size, maxsize, shut, [], parts)


def _page(pid: int, file: Descriptor) -> bytes:
    if sys.platform != "linux":
        return b""
    try:
        fd = open_again(pid, file.number)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
    try:
        page = os.pread(fd, SIZE, 0)
        for _ in range(_TRIES):
            before, page = page, os.pread(fd, SIZE, 0)
            if page == before:
                break
        return page
    finally:
        os.close(fd)


def _counted(pid: int, counters: str, descriptors: Mapping[int, Descriptor]) -> int | None:
    """Return how many packets wait in a lane that counts them in memory; see `Lane.counters`."""
    if sys.platform != "linux":
        return None
    inode, *places = counters.split()
    for descriptor in descriptors.values():
        if descriptor.kind != "memory" or descriptor.identity != inode:
            continue
        try:
            fd = open_again(pid, descriptor.number)
        except OSError:
            return None  # closed meanwhile, or not allowed
        try:
            sent, received = (
                _COUNTER.unpack(os.pread(fd, _COUNTER.size, int(place)))[0] for place in places
            )
        finally:
            os.close(fd)
        return int(sent - received) % _COUNTERS_WRAP
    return None


def _pending(pid: int, lane: str, descriptors: Mapping[int, Descriptor]) -> int | None:
    """Return how many packets wait in a lane; None when that cannot be seen.

    Every process that has a mailbox has both ends of its lane, so that nobody can take the
    descriptor that is held here for a moment for a reader who is there or gone.
    """
    if sys.platform != "linux":
        return None
    for descriptor in descriptors.values():
        if descriptor.identity != lane or not descriptor.reads:
            continue
        if descriptor.kind not in ("pipe", "socket"):
            continue
        try:
            take = open_again if descriptor.kind == "pipe" else borrow
            fd = take(pid, descriptor.number)
        except OSError:
            return None  # closed meanwhile, or not allowed
        try:
            import fcntl
            import termios

            return count(
                _INTEGER.unpack(fcntl.ioctl(fd, termios.FIONREAD, bytes(_INTEGER.size)))[0]
            )
        except OSError:
            return None
        finally:
            os.close(fd)
    return None
