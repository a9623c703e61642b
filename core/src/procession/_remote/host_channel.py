"""One end of a connection to another host, which may vanish without a word."""

from __future__ import annotations

import errno
import os
import sys
from time import monotonic

from procession._channels.stream_channel import StreamChannel
from procession._choosing.limits import SILENCE_SECONDS
from procession._ground.silence import LOOK_SECONDS, Silence, wake_up_to_look
from procession._ground.sockets import BorrowedSocket
from procession._ground.waiting import wait_readable, wait_writable
from procession.errors import BrokenConnectionError, MessageTooLongError
from procession.framing import cut

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from typing import NoReturn, Self

    from procession._contracts.channel import Message
    from procession._ground.handoff import Handoff, Recipe, Takeover

#: What the kernel says when the other host, or the way to it, is gone.
GONE = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET}


class HostChannel(StreamChannel):
    """A channel over a TCP socket, which notices that the other side owes something too long.

    That is an acknowledgement (see `procession._ground.silence`), or the rest of a message that it
    has begun. After *silence* seconds of that the connection is broken, for good: whatever
    is done with it raises the same `BrokenConnectionError`.

    The kernel wakes a system call that waits after `LOOK_SECONDS`, so that nothing is added
    to those that need not wait; who else uses the descriptor has to expect that, too. From then
    on we wait until the descriptor is ready, and look as often, so that it does no harm when
    somebody else has the socket block no more.
    """

    __slots__ = ("_broken", "_peer", "silence")

    #: After the second one, every further use raises the same again.
    survivable = (MessageTooLongError, BrokenConnectionError)

    def __init__(
        self, readers: Sequence[int], writers: Sequence[int], silence: float = SILENCE_SECONDS
    ) -> None:
        """Both have the same socket, connected and tuned. *silence*: see the class, in seconds."""
        self.silence = Silence(silence)
        #: What has ended the connection before its time: the arguments of the error, which
        #: itself would keep a traceback, and so the memory for a message, alive.
        self._broken: tuple[object, ...] | None = None
        super().__init__(readers, writers)
        self._peer = self.meet(self.holding())

    # -- receiving -----------------------------------------------------------------------

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
        """See `Channel.receive`."""
        while True:
            self.check_usable()
            try:
                return super().receive(into, limit)
            except BlockingIOError:
                self.look()
                self.wait(None)  # nothing has begun to come
            except BrokenConnectionError as error:
                self._broken = error.args
                raise
            except OSError as error:
                self.explain(error)

    def read_some(self, size: int) -> bytes:
        """See `StreamChannel.read_some`."""
        begun = monotonic()
        while True:
            try:
                return super().read_some(size)
            except BlockingIOError:
                self.wait_for_rest(begun)
            except OSError as error:
                self.explain(error)

    def read_all(self, view: memoryview) -> None:
        """See `StreamChannel.read_all`."""
        if sys.platform == "win32":
            raise OSError("this platform has no vectored reading")
        begun = monotonic()
        while view:
            try:
                count = os.readv(self.reader, [view])
            except BlockingIOError:
                self.wait_for_rest(begun)
                continue
            except ConnectionResetError:
                continue  # said once, and then it is the end
            except OSError as error:
                self.explain(error)
            if not count:
                raise BrokenConnectionError("got end of file during message")
            view = view[count:]
            if view:
                begun = monotonic()

    def wait(self, timeout: float | None = None, /) -> bool:
        """See `Channel.wait`; raises `BrokenConnectionError` when the other host has vanished."""
        if self._broken is not None:
            return True
        if self.torn or self.reader < 0:
            return super().wait(timeout)  # refuses
        fd = self.reader
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            left = LOOK_SECONDS
            if deadline is not None:
                left = min(left, deadline - monotonic())
            if wait_readable(fd, left):
                return True
            if left < LOOK_SECONDS:
                return False
            self.look()

    # -- sending -------------------------------------------------------------------------

    def write_all(self, parts: Sequence[memoryview]) -> None:
        """See `StreamChannel.write_all`."""
        if sys.platform == "win32":
            raise OSError("this platform has no vectored writing")
        self.check_usable()
        while parts:
            try:
                parts = cut(parts, os.writev(self.writer, parts))[1]
            except BlockingIOError:
                self.wait_to_write()
            except (BrokenPipeError, ConnectionResetError):
                raise
            except OSError as error:
                self.explain(error)

    # -- the other host ------------------------------------------------------------------

    def meet(self, fd: int) -> str:
        """Get the new socket *fd* ready; return what errors call the other side."""
        with BorrowedSocket(fd) as peer:
            wake_up_to_look(peer)
            return _address(peer)

    def check_usable(self) -> None:
        """Raise `BrokenConnectionError` if it is broken, and `OSError` (EBADF) if closed."""
        broken = self._broken
        if broken is not None:
            raise BrokenConnectionError(*broken)
        if self.closed:
            raise OSError(errno.EBADF, "handle is closed")

    def look(self) -> None:
        """Raise `BrokenConnectionError` when the other host has owed an answer for too long."""
        self.check_usable()
        if self.silence.is_over(self.holding(), monotonic()):
            self.vanished(errno.ETIMEDOUT, None)

    def look_for_rest(self, begun: float) -> None:
        """Look as `look` does, and for the rest of a message.

        *begun* is when something of that has come last, by `time.monotonic`.
        """
        self.look()
        if monotonic() - begun >= self.silence.limit:
            raise BrokenConnectionError(
                errno.ETIMEDOUT,
                f"{self._peer} has begun a message and not gone on with it for "
                f"{self.silence.limit:g} seconds",
            )

    def wait_for_rest(self, begun: float) -> None:
        """Wait until something of the rest of a message has come; see `look_for_rest`."""
        fd = self.reader
        self.look_for_rest(begun)
        while not wait_readable(fd, LOOK_SECONDS):
            self.look_for_rest(begun)

    def wait_to_write(self) -> None:
        """Wait until there is room for something, and look meanwhile."""
        fd = self.writer
        self.look()
        while not wait_writable(fd, LOOK_SECONDS):
            self.look()

    def explain(self, error: OSError) -> NoReturn:
        """Raise what *error* of a system call means. Called while handling it."""
        if error.errno in GONE:
            self.vanished(error.errno, error)
        raise error

    def vanished(self, code: int, cause: OSError | None) -> NoReturn:
        """Raise, now and from now on, that the other host has vanished."""
        self._broken = (
            code,
            f"the host at {self._peer} has vanished, or the network to it is cut: it has not "
            f"answered for {self.silence.limit:g} seconds; messages may be lost",
        )
        raise BrokenConnectionError(*self._broken) from cause

    # -- the end itself ------------------------------------------------------------------

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        return super().export(handoff), self.silence.limit

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        ends, limit = recipe
        self = super().attach(ends, takeover)
        self.silence = Silence(limit)
        return self


def _address(peer: socket.socket) -> str:
    """Return the address of the other side of *peer* as errors have it."""
    try:
        host, port = peer.getpeername()[:2]
    except OSError:
        return "a host that has gone meanwhile"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
