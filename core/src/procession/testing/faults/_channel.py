"""One end of a pair of which the messages stay in memory."""

from __future__ import annotations

import errno
import os
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from procession.errors import BusyConnectionError, MessageTooLongError
from procession.plugin import Channel
from procession.testing.faults._flow import LOOK_SECONDS, Flow, Item
from procession.testing.faults._home import Home
from procession.testing.faults._life import SIGKILL, Killed, changed, current

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from procession.plugin import Buffer, Handoff, Message, Recipe, Takeover


#: A longer message goes only as its receiver takes it, as through a pipe that holds so much.
LONGEST_AHEAD = 1 << 16


class End(Home):
    """One end, whoever has it open. *flow* is what comes to it, None if nothing can."""

    peer: End

    def __init__(self, flow: Flow | None) -> None:
        super().__init__(flow)
        self.is_lost = False

    def is_at_end(self) -> bool:
        """Return whether everything was received and no more will come."""
        assert self.flow is not None
        return not self.flow.items and (self.is_lost or not self.peer.is_open())

    def refresh(self, fd: int = -1) -> None:
        """Show what there is to be received."""
        if self.flow is not None:
            self.show(self.flow.has_arrived() or self.is_at_end(), fd)

    def end(self) -> None:
        """See `Home.end`."""
        self.peer.refresh()
        super().end()

    def lose(self) -> None:
        """Lose the connection, in both directions; what has been sent can be received."""
        for end in (self, self.peer):
            end.is_lost = True
            end.refresh()
        changed.notify_all()


class MemoryChannel(Channel):
    """One end, as one process has it open. *fd* is taken over.

    Sending waits only in a message longer than `LONGEST_AHEAD`, until it is received; what
    interrupts that leaves a truncated one. Threads: any. Fork: a forked copy of the
    process has copies of the messages, which nobody sees; use start method `thread`.
    """

    closed = True  # until there is something to close

    def __init__(self, end: End, fd: int, *, writable: bool) -> None:
        self._end = end
        self._fd = fd
        self._life = current()
        self.readable = end.flow is not None
        self.writable = writable
        self._torn = False
        #: The long message that is on its way, and the thread that is in the middle of it.
        self._going: tuple[Item, int] | None = None
        self.closed = False
        self._life.hold(self)

    @property
    def torn(self) -> bool:
        """See `Channel.torn`."""
        return self._torn

    def send(self, body: Buffer, buffers: Sequence[Buffer] = (), /) -> None:
        """See `Channel.send`."""
        with changed:
            life, peer = self._life, self._end.peer
            self._check_may_send()
            assert peer.flow is not None
            cut, seconds = peer.flow.number(life)
            item = Item(life, body, buffers, seconds)
            killed_at = life.death_in_message()
            if killed_at is not None:
                self._send_part(item, killed_at)
                life.end(-SIGKILL)
                raise Killed
            if cut is not None:
                self._send_part(item, cut.at_byte)
                self._end.lose()
                raise BrokenPipeError(errno.EPIPE, "the connection was lost")
            self._deliver(item)
            if len(item) > LONGEST_AHEAD:
                self._see_off(item)
            life.count_message()

    def _check_may_send(self) -> None:
        self._check_open()
        self._life.check_alive()
        if not self.writable:
            raise OSError(errno.EBADF, "this end only receives")
        if self._going is not None and self._going[1] == threading.get_ident():
            raise BusyConnectionError(
                "a signal handler cannot send through the connection that it has interrupted in "
                "the middle of a message"
            )
        self._check_peer()

    def _check_peer(self) -> None:
        if self._end.is_lost or not self._end.peer.is_open():
            raise BrokenPipeError(errno.EPIPE, "the other end is gone")

    def _see_off(self, item: Item) -> None:
        """Wait until *item* is received, or nobody can receive it, or send it, any more."""
        while self._going is not None:  # another thread's, which comes before this one
            changed.wait(LOOK_SECONDS)
        self._going = item, threading.get_ident()
        try:
            while not item.is_taken:
                self._check_open()
                self._life.check_alive()
                self._check_peer()
                changed.wait(LOOK_SECONDS)
        except OSError:
            raise
        except BaseException:
            # Most likely a handler has raised in the middle of the wait.
            if not item.is_taken:
                self._torn = True
                self.close()
            raise
        finally:
            self._going = None
            changed.notify_all()

    def _send_part(self, item: Item, length: int) -> None:
        """Send *length* bytes of *item*, which may be none, or all that there are."""
        item.is_whole = length >= len(item)
        if length:
            self._deliver(item)

    def _deliver(self, item: Item) -> None:
        peer = self._end.peer
        assert peer.flow is not None
        peer.flow.items.append(item)
        peer.refresh()
        changed.notify_all()

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
        """See `Channel.receive`."""
        with changed:
            self._check_readable()
            self._wait(None)
            flow = self._end.flow
            assert flow is not None
            if not flow.items:
                raise EOFError
            item = flow.take()
            self._end.refresh(self._fd)
            if not item.is_whole:
                self._end.lose()  # nothing can follow a part of a message
                raise OSError("got end of file during message")
            if limit is not None and len(item.body) > limit:
                self._refuse(item, limit)
            self._life.count_message()
            return item.message(into)

    def _refuse(self, item: Item, limit: int) -> NoReturn:
        self.readable = False
        if not self.writable:
            self.close()
        raise MessageTooLongError(
            f"bad message length: {len(item.body)} bytes have come and at most {limit} were "
            f"asked for"
        )

    def wait(self, timeout: float | None = None, /) -> bool:
        """See `Channel.wait`."""
        with changed:
            self._check_readable()
            return self._wait(timeout)

    def _check_readable(self) -> None:
        self._check_open()
        if not self.readable:
            raise OSError(errno.EBADF, "nothing can be received at this end")

    def _wait(self, timeout: float | None) -> bool:
        flow = self._end.flow
        assert flow is not None
        found = flow.wait(timeout, self._life, self._is_over)
        self._check_open()
        self._end.refresh(self._fd)
        return bool(found)

    def _is_over(self) -> bool:
        return self.closed or self._end.is_at_end()

    def _check_open(self) -> None:
        if self.closed:
            self._life.check_alive()
            raise OSError(errno.EBADF, "this end was closed")

    @property
    def flow(self) -> Flow | None:
        """What comes to this end; None if nothing can."""
        return self._end.flow

    def fileno(self) -> int:
        """See `Channel.fileno`."""
        return self._fd

    def close(self) -> None:
        """See `Channel.close`."""
        with changed:
            if self.closed:
                return
            self.closed = True
            if self._going is not None and not self._going[0].is_taken:
                self._going[0].is_whole = False
            os.close(self._fd)
            self._end.is_open()  # to notice if this was the last copy
            changed.notify_all()  # this end's own waits

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        self._check_open()
        return handoff.give(self._fd), self.writable

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> MemoryChannel:
        """See `Exportable.attach`."""
        token, writable = recipe
        with changed:  # so that nobody kills it in between
            fd = takeover.take(token)
            return cls(End.of(fd), fd, writable=writable)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():
            self.close()
