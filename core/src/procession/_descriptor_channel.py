"""What all channels over descriptors have in common: owning, waiting, closing, locking."""

from __future__ import annotations

import errno
import os
from _thread import RLock
from _weakref import ref

from procession._channel import Channel
from procession._waiting import wait_readable
from procession.errors import BusyConnectionError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import NoReturn, Self

    from procession._handoff import Handoff, Recipe, Takeover


class DescriptorChannel(Channel):
    """A channel over one descriptor to receive from and one to send to.

    They may be the same descriptor (a socket) or two (two pipes), or one of them -1 for
    an end that only sends or only receives. The channel takes them over. A subclass
    gives `send` and `receive`, each of which holds its own lock all the way.

    The locks are re-entrant because a signal handler may use the very channel that the
    code it has interrupted is using. Between packets that is fine; in the middle of a
    longer message it is refused with `BusyConnectionError` (see `busy`).
    """

    __slots__ = (
        "__weakref__",
        "closed",
        "readable",
        "reader",
        "receive_lock",
        "receiving",
        "send_lock",
        "sending",
        "writable",
        "writer",
    )

    #: The descriptor to receive from, or -1.
    reader: int
    #: The descriptor to send to, or -1.
    writer: int
    #: Whether this end is in the middle of sending, or receiving, a longer message.
    sending: bool
    receiving: bool

    def __init__(self, reader: int, writer: int) -> None:
        self.closed = False
        self.reader = reader
        self.writer = writer
        self.readable = reader >= 0
        self.writable = writer >= 0
        self.renew_locks()
        _open[id(self)] = ref(self)

    def renew_locks(self) -> None:
        """Start with free locks: in a forked child nobody is left to release the old."""
        self.send_lock = RLock()
        self.receive_lock = RLock()
        self.sending = False
        self.receiving = False

    def wait(self, timeout: float | None = None, /) -> bool:
        """See `Channel.wait`."""
        if self.reader < 0:
            raise OSError(errno.EBADF, "handle is closed")
        return wait_readable(self.reader, timeout)

    def fileno(self) -> int:
        """Return the descriptor that is received from; of a write-only end, the other."""
        fd = self.reader if self.reader >= 0 else self.writer
        if fd < 0:
            raise OSError(errno.EBADF, "handle is closed")
        return fd

    def close(self) -> None:
        """See `Channel.close`."""
        if self.closed:
            return
        self.closed = True
        _open.pop(id(self), None)
        descriptors = {self.reader, self.writer}
        self.reader = self.writer = -1
        for fd in descriptors:
            if fd >= 0:
                os.close(fd)

    def stop_receiving(self) -> None:
        """Make this end write-only; close it, if that is not even that."""
        if not self.writable:
            self.close()
            return
        fd, self.reader = self.reader, -1
        self.readable = False
        if fd >= 0 and fd != self.writer:
            os.close(fd)

    def busy(self, doing: str) -> NoReturn:
        """Refuse what a signal handler asks for in the middle of a message."""
        raise BusyConnectionError(
            f"cannot be used here: a signal handler has interrupted this thread while it was "
            f"{doing} a longer message through this very connection"
        )

    def __del__(self) -> None:
        self.close()

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        if self.closed:
            raise OSError(errno.EBADF, "handle is closed")
        reader = handoff.give(self.reader) if self.reader >= 0 else None
        if self.writer == self.reader:
            return (reader, True)
        return (reader, handoff.give(self.writer) if self.writer >= 0 else None)

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        reader_token, writer_token = recipe
        reader = -1 if reader_token is None else takeover.take(reader_token)
        if writer_token is True:
            return cls(reader, reader)
        return cls(reader, -1 if writer_token is None else takeover.take(writer_token))


_open: dict[int, ref[DescriptorChannel]] = {}


def _renew_all_locks() -> None:
    for reference in list(_open.values()):
        channel = reference()
        if channel is not None:
            channel.renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all_locks)
