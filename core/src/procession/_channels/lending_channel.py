"""One end of a connection that lends memory: large arrays are looked at where they lie."""

from __future__ import annotations

import os
import sys

from procession._channels.loan_desk import HEAD_BYTES, LoanDesk, new_file
from procession._contracts.channel import Channel
from procession._ground.file_lock import InterruptedLockError
from procession._mailboxes.shelves import LONGEST_BODY, AllLent, shelf_of, space_for, token_of
from procession._messages.lease_warning import warn_of_leases
from procession._messages.pickling import SHORTEST_BUFFER
from procession.errors import BusyConnectionError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, ParamSpec, Self, TypeVar

    from procession._contracts.channel import Buffer, Message
    from procession._ground.file_lock import FileLock
    from procession._ground.handoff import Handoff, Recipe, Takeover

    P = ParamSpec("P")
    T = TypeVar("T")


class LendingChannel(Channel):
    """A channel around another one, beside which large buffers lie on shelves.

    As soon as the receiver has asked for a lease, the buffers of a large message are copied to
    a shelf (see `_channels.loan_desk`), and what says where they lie goes through the channel. So
    everything that a channel promises is the inner one's to keep. What finds no shelf goes
    through the channel itself.

    Receiving needs a lock between processes. It is not held while nothing is there: who waits
    for a message waits outside. A signal handler that receives in the middle of receiving, or
    sends a large message in the middle of sending one, gets a `BusyConnectionError`. A handler
    that raises while a large message is copied out loses that message.

    Linux only. Owns the channel and the files.
    """

    __slots__ = ("__weakref__", "_in", "_inner", "_out")

    lends = True
    advice = (
        "ends that lend memory stay on their host: for another one, make the pipe without "
        "leases=True, over the transport tcp"
    )

    def __init__(self, inner: Channel, into: LoanDesk | None, out: LoanDesk | None) -> None:
        """Take over *inner*. *into* and *out* are the desks of the directions that it has."""
        self._inner = inner
        # None when it is closed, too: a desk goes with the last thread that is using it.
        self._in = into
        self._out = out

    @classmethod
    def pair(cls, first: Channel, second: Channel, budget: int = 0) -> tuple[Self, Self]:
        """Return two ends that lend, around those of a new pair; takes them over in any case.

        *budget*: how many bytes the leases of each direction may keep, 0 for the usual.
        Raises `OSError` when descriptors or memory have run out.
        """
        opened: list[int] = []

        def desks(wanted: bool) -> tuple[LoanDesk | None, LoanDesk | None]:
            """Return both ends' ways to the memory of one direction."""
            if not wanted:
                return None, None
            opened.append(new_file(budget))
            opened.append(os.dup(opened[0]))
            copy = first.copy
            return _desk_of(opened.pop(0), copy), _desk_of(opened.pop(0), copy)

        try:
            here, there = desks(first.readable)
            back_there, back_here = desks(second.readable)
            return cls(first, here, back_here), cls(second, back_there, there)
        except BaseException:
            for fd in opened:
                os.close(fd)
            first.close()
            second.close()
            raise

    # -- the inner channel's

    @property
    def readable(self) -> bool:  # type: ignore[override]
        """See `Channel.readable`."""
        return self._inner.readable

    @property
    def writable(self) -> bool:  # type: ignore[override]
        """See `Channel.writable`."""
        return self._inner.writable

    @property
    def closed(self) -> bool:  # type: ignore[override]
        """See `Channel.closed`."""
        return self._inner.closed

    @property
    def torn(self) -> bool:
        """See `Channel.torn`."""
        return self._inner.torn

    def wait(self, timeout: float | None = None, /) -> bool:
        """See `Channel.wait`."""
        return self._inner.wait(timeout)

    def wait_for_room(self, length: int, timeout: float | None = None, /) -> bool:
        """See `Channel.wait_for_room`."""
        return self._inner.wait_for_room(length, timeout)

    def asker(self) -> Callable[[], object] | None:
        """See `Channel.asker`."""
        return self._inner.asker()

    def fileno(self) -> int:
        """See `Channel.fileno`."""
        return self._inner.fileno()

    def holding(self) -> int:
        """See `Channel.holding`."""
        return self._inner.holding()

    # -- sending

    def send(self, body: Buffer, buffers: Sequence[Buffer] = (), /) -> None:
        """See `Channel.send`."""
        desk = self._out
        if not buffers or desk is None or not _suits_shelf(desk, body, buffers):
            self._inner.send(body, buffers)
            return
        try:
            _run(desk.sending, "sending", self._send_large, desk, body, buffers)
        except AllLent as lent:
            # Not in there: the warning may run any code, and may be made an error.
            desk.starved = True
            warn_of_leases(lent, "a connection", "recv(lease=True)", "send_empty")
            _run(desk.sending, "sending", self._send_large, desk, body, buffers)

    def _send_large(self, desk: LoanDesk, body: Buffer, buffers: Sequence[Buffer]) -> None:
        """Send a message that lies on a shelf, if there is one; the senders' lock is held."""
        shelf = desk.find(space_for([len(each) for each in buffers]))
        if shelf is None:
            self._inner.send(desk.next_head() + bytes(body), buffers)
            return
        token = desk.shelves.write(shelf, body, buffers)
        # Whatever is raised, nothing is taken back: what comes through next does that.
        self._inner.send(desk.next_head(shelf) + token)

    def reserve(self, size: int, /) -> memoryview | None:
        """See `Channel.reserve`."""
        desk = self._out
        return None if desk is None else _run(desk.sending, "sending", _reserve, desk, size)

    def send_reserved(self, body: Buffer, memory: memoryview, /) -> None:
        """See `Channel.send_reserved`."""
        desk = self._out
        if desk is None:
            self._inner.send(body, (memory,))  # which says that it is closed
            return
        _run(desk.sending, "sending", self._send_reserved, desk, body, memory)

    def _send_reserved(self, desk: LoanDesk, body: Buffer, memory: memoryview) -> None:
        exporter: Any = memory.obj
        shelf: int = exporter.shelf
        self._inner.send(desk.next_head(shelf) + token_of(shelf, body, [len(memory)]))

    # -- receiving

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
        """See `Channel.receive`."""
        return self._receive(into, limit, lease=False)

    def receive_leased(self, limit: int | None = None, /) -> Message:
        """See `Channel.receive_leased`."""
        desk = self._in
        if desk is not None:
            desk.ask()
        return self._receive(None, limit, lease=True)

    def _receive(self, into: memoryview | None, limit: int | None, *, lease: bool) -> Message:
        desk = self._in
        if desk is None:
            return self._inner.receive(into, limit)  # which says that it is closed
        while True:
            message = _run(desk.receiving, "receiving", self._take, desk, into, limit, lease)
            if message is not None:
                return message
            self._inner.wait(None)

    def _take(
        self, desk: LoanDesk, into: memoryview | None, limit: int | None, lease: bool
    ) -> Message | None:
        """Take a message, if one is there; the receivers' lock is held."""
        if not self._inner.wait(0):
            return None
        body, buffers = self._inner.receive(into, limit)
        number = desk.number_in(body[:HEAD_BYTES])
        if number is None:
            return body, buffers
        rest = body[HEAD_BYTES:]
        if buffers:
            desk.finish(number)
            return rest, buffers
        token = bytes(rest)
        desk.check(shelf_of(token), number)
        message = desk.shelves.read(token, lease=lease)
        desk.finish(number)
        return message

    # -- the end itself

    def close(self) -> None:
        """See `Channel.close`. What was lent stays with those who have it."""
        self._inner.close()
        self._in = self._out = None

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        desks = self._in, self._out
        inner = self._inner.export(handoff)  # first, as it knows whether it is closed
        given = (None if desk is None else handoff.give(desk.fd) for desk in desks)
        return type(self._inner), inner, *given

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        kind, inner_recipe, *tokens = recipe
        inner: Channel = kind.attach(inner_recipe, takeover)
        desks: list[LoanDesk | None] = []
        try:
            for token in tokens:
                desks.append(None if token is None else _desk_of(takeover.take(token), inner.copy))
            into, out = desks
            return cls(inner, into, out)
        except BaseException:
            inner.close()
            raise


def _desk_of(fd: int, copy: Callable[[Buffer, Buffer], object] | None) -> LoanDesk:
    """Return the desk of the file *fd*, which is taken over in any case."""
    try:
        return LoanDesk(fd, copy)
    except BaseException:
        os.close(fd)
        raise


def _suits_shelf(desk: LoanDesk, body: Buffer, buffers: Sequence[Buffer]) -> bool:
    """Return whether a message is to lie on a shelf, if there is a free one."""
    return desk.asked and len(body) <= LONGEST_BODY and sum(map(len, buffers)) >= SHORTEST_BUFFER


def _reserve(desk: LoanDesk, size: int) -> memoryview | None:
    """Return memory of *size* bytes to fill, or None; the senders' lock is held."""
    try:
        shelf = desk.find(size)
        return None if shelf is None else desk.shelves.lend(shelf, size)
    except (AllLent, OSError):
        return None


def _run(
    lock: FileLock, doing: str, critical: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call *critical* with *lock* held. Raises `BusyConnectionError` in a signal handler."""
    try:
        return lock.run(critical, *args, **kwargs)
    except InterruptedLockError:
        raise BusyConnectionError(
            f"cannot be used here: a signal handler has interrupted this thread while it was "
            f"{doing} through this very connection"
        ) from None


def obstacle() -> str | None:
    """Return why connections cannot lend here, as a noun phrase, or None."""
    if sys.platform != "linux":
        return "locks that go with the memory they are about, which only Linux has"
    return None
