"""What the copies of one end, or of one mailbox, have in common, and how it is found."""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING

from procession.testing.faults._flow import Flow
from procession.testing.faults._life import changed

if TYPE_CHECKING:
    from typing import Self, TypeAlias

    Identity: TypeAlias = "tuple[int, int]"

# By the file behind the descriptor that each copy has. A process that is not this one has the
# descriptor, too, if somebody gives it one, but finds nothing here.
_homes: dict[Identity, Home] = {}


class Home:
    """The state of an end or mailbox, and the pipe that stands for it.

    Every copy has a duplicate of the reading end: what select and its relatives wait on, and
    what is handed over. So the kernel counts the copies, those on their way included: when it
    has none, the writing end, which only this object has, says so.

    Everything is called with `changed` held.
    """

    def __init__(self, flow: Flow | None) -> None:
        self.flow = flow
        self.first, self._writer = os.pipe()
        self._key = _identity(self.first)
        self._is_readable = False
        self._is_open = True
        _homes[self._key] = self

    @classmethod
    def of(cls, fd: int) -> Self:
        """Return the one that *fd* belongs to; if there is none, close *fd* and raise TypeError."""
        found = _homes.get(_identity(fd))
        if not isinstance(found, cls):
            os.close(fd)
            raise TypeError(
                "what transport 'memory' makes stays in the process that has made it: use it with "
                "start method 'thread' only"
            )
        return found

    def is_open(self) -> bool:
        """Return whether somebody has a copy, or will have one that is on its way."""
        if self._is_open and sys.platform != "win32":
            poller = select.poll()
            poller.register(self._writer, 0)
            # Without a reader the kernel reports POLLERR, or POLLHUP, which need not be asked for.
            if poller.poll(0):
                self.abandon()
        return self._is_open

    def abandon(self) -> None:
        """Have everybody believe that nobody has a copy. Idempotent."""
        if self._is_open:
            self._is_open = False
            del _homes[self._key]
            os.close(self._writer)
            self.end()

    def end(self) -> None:
        """Have those who wait know that nobody has a copy any more."""
        changed.notify_all()

    def show(self, readable: bool, fd: int = -1) -> None:
        """Make the pipe readable or not; for the latter, *fd* is a copy's descriptor."""
        if readable and not self._is_readable and self.is_open():
            os.write(self._writer, b"!")
            self._is_readable = True
        elif not readable and self._is_readable and fd >= 0:
            os.read(fd, 1)
            self._is_readable = False

    def refresh(self, fd: int = -1) -> None:
        """Show what there is to be received."""
        raise NotImplementedError


def look_everywhere() -> None:
    """Do what has to be done after descriptors were closed that nobody had taken."""
    for home in homes():
        home.is_open()


def homes() -> list[Home]:
    """Return all that are open."""
    return list(_homes.values())


def _identity(fd: int) -> Identity:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
