"""What all channels over descriptors have in common: owning, waiting, closing, locking."""

from __future__ import annotations

import errno
import os
import sys
from _thread import RLock
from _weakref import ref

from procession._contracts.channel import Channel
from procession._ground.after_fork import in_forked_children
from procession._ground.waiting import wait_readable, wait_writable
from procession.errors import BusyConnectionError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn, Self

    from procession._ground.companion import Inlet, Outlet
    from procession._ground.handoff import Handoff, Recipe, Takeover

#: In no message, or between the packets of short ones.
FREE = 0
#: In the middle of a message of several parts.
UNDER_WAY = 1
#: In the middle of a message that will never be completed.
TORN = 2

_NONE = {-1}


class DescriptorChannel(Channel):
    """A channel over descriptors to receive from and descriptors to send to.

    There is one of each, or a second one for the bulk of long messages; the first is the
    one to wait for. Both directions may have the same (a socket); none is given for the
    direction that an end does not have. The channel takes them over. A subclass gives
    `send` and `receive`, each of which holds its own lock all the way.

    The locks are re-entrant because a signal handler may use the very channel that the
    code it has interrupted is using. Between packets that is fine; in the middle of a
    longer message it is refused with `BusyConnectionError`. A handler that raises there
    leaves the channel torn: what comes next is not the beginning of a message, so it is
    closed. Handlers raise anywhere, also where the channel is about to be closed, so being
    torn is a state of its own: whoever uses the channel next closes it.
    """

    __slots__ = (
        "__weakref__",
        "bulk_reader",
        "bulk_writer",
        "closed",
        "companion",
        "inlet",
        "outlet",
        "readable",
        "reader",
        "receive_lock",
        "receiving",
        "send_lock",
        "sending",
        "writable",
        "writer",
    )

    #: The descriptors to receive from, or -1.
    reader: int
    bulk_reader: int
    #: The descriptors to send to, or -1.
    writer: int
    bulk_writer: int
    #: The socket through which descriptors travel, or -1, and both sides of it, once used.
    companion: int
    inlet: Inlet | None
    outlet: Outlet | None
    #: Whether this end is in the middle of sending, or receiving, a longer message: FREE,
    #: UNDER_WAY, or TORN.
    sending: int
    receiving: int

    def __init__(self, readers: Sequence[int], writers: Sequence[int]) -> None:
        self.closed = False
        self.companion = -1
        self.inlet = self.outlet = None
        self.readable = bool(readers)
        self.writable = bool(writers)
        self.reader = readers[0] if readers else -1
        self.bulk_reader = readers[-1] if readers else -1
        self.writer = writers[0] if writers else -1
        self.bulk_writer = writers[-1] if writers else -1
        self.sending = self.receiving = FREE
        self.renew_locks()
        if not _open:
            _watch_forks()
        _open[id(self)] = ref(self)

    def renew_locks(self) -> None:
        """Start with free locks: in a forked child nobody is left to release the old."""
        self.send_lock = RLock()
        self.receive_lock = RLock()
        if not self.torn:
            self.sending = self.receiving = FREE

    @property
    def torn(self) -> bool:
        """See `Channel.torn`."""
        return TORN in (self.sending, self.receiving)

    def wait(self, timeout: float | None = None, /) -> bool:
        """See `Channel.wait`."""
        if self.torn:
            self.refuse("receiving")
        if self.reader < 0:
            raise OSError(errno.EBADF, "handle is closed")
        return wait_readable(self.reader, timeout)

    def wait_for_room(self, length: int, timeout: float | None = None, /) -> bool:
        """See `Channel.wait_for_room`: as soon as the kernel takes anything."""
        if self.writer < 0:
            raise OSError(errno.EBADF, "handle is closed")
        return wait_writable(self.writer, timeout)

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
        fds = {self.reader, self.bulk_reader, self.writer, self.bulk_writer, self.companion} - _NONE
        closing = map(os.close, fds)
        # A signal handler could raise after this or that call, but not between here and the
        # end of the next one: `any` closes them all, since `close` returns None.
        self.closed = True
        self.reader = self.bulk_reader = self.writer = self.bulk_writer = self.companion = -1
        any(closing)
        _open.pop(id(self), None)
        # Only now: a handler that raises here leaves nothing open but what goes with this object.
        for side in (self.inlet, self.outlet):
            if side is not None:
                side.close()

    def stop_receiving(self) -> None:
        """Make this end write-only; close it, if that is not even that."""
        if not self.writable:
            self.close()
            return
        closing = map(
            os.close, {self.reader, self.bulk_reader} - {self.writer, self.bulk_writer, -1}
        )
        self.readable = False
        self.reader = self.bulk_reader = -1
        any(closing)

    def refuse(self, doing: str) -> NoReturn:
        """Refuse to go on between the parts of a message, with `BusyConnectionError`.

        Raises `OSError` (EBADF) when it is torn, after having closed it.
        """
        if self.torn:
            self.close()
            raise OSError(errno.EBADF, "handle is closed")
        raise BusyConnectionError(
            f"cannot be used here: a signal handler has interrupted this thread while it was "
            f"{doing} a longer message through this very connection"
        )

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        self.close()

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        if self.closed:
            raise OSError(errno.EBADF, "handle is closed")
        readers = _distinct(self.reader, self.bulk_reader)
        writers = _distinct(self.writer, self.bulk_writer)
        given = tuple(map(handoff.give, readers))
        others = None if writers == readers else tuple(map(handoff.give, writers))
        if self.companion < 0:
            return given, others
        return given, others, handoff.give(self.companion)

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        reader_tokens, writer_tokens, *companion = recipe
        taken: list[int] = []
        try:
            for token in (*companion, *reader_tokens, *(writer_tokens or ())):
                taken.append(takeover.take(token))
            tokens = len(companion) + len(reader_tokens)
            readers = tuple(taken[len(companion) : tokens])
            writers = readers if writer_tokens is None else tuple(taken[tokens:])
            self = cls(readers, writers)
            if companion:
                self.companion = taken[0]
            return self
        except BaseException:
            for fd in taken:
                os.close(fd)
            raise


def _distinct(fd: int, bulk_fd: int) -> tuple[int, ...]:
    if fd < 0:
        return ()
    return (fd,) if fd == bulk_fd else (fd, bulk_fd)


_open: dict[int, ref[DescriptorChannel]] = {}
_watches_forks = False


def _watch_forks() -> None:
    global _watches_forks
    if not _watches_forks:
        _watches_forks = True
        in_forked_children(_renew_all_locks)


def _renew_all_locks() -> None:
    for reference in list(_open.values()):
        channel = reference()
        if channel is not None:
            channel.renew_locks()
