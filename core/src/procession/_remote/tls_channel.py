"""One end of an encrypted connection to another host."""

from __future__ import annotations

import atexit
import errno
import os
from time import monotonic
from weakref import WeakSet

from procession._channels.descriptor_channel import FREE, TORN, UNDER_WAY
from procession._channels.stream_channel import LENGTH, LONG_LENGTH, pack_length
from procession._ground.after_fork import in_forked_children
from procession._ground.waiting import wait_writable
from procession._messages.blocks import blocks
from procession._messages.pickling import join
from procession._remote.host_channel import HostChannel
from procession.errors import BrokenConnectionError, MessageTooLongError, TlsError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn, Self

    from procession._contracts.channel import Buffer, Message
    from procession._ground.handoff import Handoff, Recipe, Takeover
    from procession._remote.tls_engine import TlsEngine

#: How much is encrypted, and how much received, at once: what fits into the caches.
_AT_ONCE = 256 << 10
#: How long closing waits until there is room for the last record, in seconds.
_GOODBYE_SECONDS = 5.0


class TlsChannel(HostChannel):
    """A channel over a TCP socket and a `TlsEngine`, both of which it takes over.

    Messages are framed as those of its base. Each begins with a record of its own, so
    that nothing of it was received before it is asked for.

    When the other side ends without having closed its end - a cut, or a killed process -
    that is a `BrokenConnectionError`, unlike a proper end.

    The state of the encryption lives in one process: a forked child can not use its copy
    (it is closed there), and the end can not be given to another process.
    """

    __slots__ = ("_engine", "_owner")

    def __init__(self, fd: int, engine: TlsEngine, silence: float) -> None:
        """*fd* does not block. *silence*: see the base, in seconds."""
        self._engine = engine
        self._owner = os.getpid()
        super().__init__((fd,), (fd,), silence)
        _remember(self)

    # -- sending -------------------------------------------------------------------------

    def send(self, body: Buffer, buffers: Sequence[Buffer] = (), /) -> None:
        """See `Channel.send`."""
        if buffers:
            body = join(body, buffers)
        header = pack_length(len(body))
        with self.send_lock:
            if self.sending:
                self.refuse("sending")
            self.check_usable()
            self.sending = UNDER_WAY
            try:
                view = memoryview(body)
                first = _AT_ONCE - len(header)
                self._write(self._engine.encrypt(header + view[:first]))
                for start in range(first, len(view), _AT_ONCE):
                    self._write(self._engine.encrypt(view[start : start + _AT_ONCE]))
            except BrokenPipeError:
                self.sending = FREE
                raise  # nobody will see what was written of it
            except BaseException:
                self.sending = TORN
                self.close()
                raise
            self.sending = FREE

    def _write(self, data: bytes) -> None:
        """Write all of *data*, which has been encrypted."""
        self.look()
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.writer, view) :]
            except BlockingIOError:
                self.wait_to_write()
            except ConnectionResetError as error:
                raise self._cut() from error  # what has come can still be received
            except OSError as error:
                self.explain(error)

    # -- receiving -----------------------------------------------------------------------

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
        """See `Channel.receive`."""
        with self.receive_lock:
            if self.receiving:
                self.refuse("receiving")
            # As long as nothing was taken, a signal handler may raise.
            self.wait(None)
            self.check_usable()
            self.receiving = UNDER_WAY
            try:
                message = self._receive(into, limit)
            except (EOFError, MessageTooLongError):
                self.receiving = FREE
                raise
            except BrokenConnectionError as error:
                self.receiving = FREE
                self._broken = error.args
                raise
            except TlsError as error:
                self.receiving = FREE
                self._broken = (str(error),)
                raise BrokenConnectionError(*self._broken) from error
            except BaseException:
                self.receiving = TORN
                self.close()
                raise
            self.receiving = FREE
            return message

    def _receive(self, into: memoryview | None, limit: int | None) -> Message:
        header = bytearray(LONG_LENGTH.size)
        self._fill(memoryview(header)[: LENGTH.size], "")
        (length,) = LENGTH.unpack_from(header)
        if length == -1:
            self._fill(memoryview(header), _IN_MESSAGE)
            (length,) = LONG_LENGTH.unpack_from(header)
        self.check_length(length, limit)
        if into is not None and length <= len(into):
            body = into[:length]
        else:
            body = blocks.take(length)
        self._fill(body, _IN_MESSAGE)
        return body, ()

    def _fill(self, view: memoryview, where: str) -> None:
        """Receive until *view* is full; *where*: how an error calls this place, if inside."""
        engine = self._engine
        while view:
            try:
                count = engine.decrypt_into(view)
            except EOFError:
                if where:
                    raise BrokenConnectionError(f"got end of file {where}") from None
                raise
            if count:
                view = view[count:]
                where = _IN_MESSAGE
            else:
                engine.feed(self._read(min(engine.wanted(len(view)), _AT_ONCE)))

    def _read(self, size: int) -> bytes:
        begun = monotonic()
        while True:
            try:
                return os.read(self.reader, size)
            except BlockingIOError:
                self.wait_for_rest(begun)
            except OSError as error:
                self.explain(error)

    def wait(self, timeout: float | None = None, /) -> bool:
        """See `HostChannel.wait`."""
        return self._engine.pending() or super().wait(timeout)

    # -- the other host ------------------------------------------------------------------

    def meet(self, fd: int) -> str:
        """See `HostChannel.meet`; no system call waits here."""
        return self._engine.peer

    def explain(self, error: OSError) -> NoReturn:
        """See `HostChannel.explain`."""
        if isinstance(error, ConnectionResetError):
            self._broken = (cut := self._cut()).args
            raise cut from error
        super().explain(error)

    def _cut(self) -> BrokenConnectionError:
        return BrokenConnectionError(
            errno.ECONNRESET,
            f"the connection to {self._peer} was cut: the process there has ended, or has closed "
            f"it without receiving everything, or its host has started anew; messages may be lost",
        )

    # -- the end itself ------------------------------------------------------------------

    def stop_receiving(self) -> None:
        """See `DescriptorChannel.stop_receiving`; the socket stays open for sending."""
        self.readable = False

    def close(self) -> None:
        """See `Channel.close`. Waits up to five seconds when there is no room to say goodbye."""
        # In a forked child, somebody may close his copy before it is lost.
        if (
            not self.closed
            and not self.torn
            and self._broken is None
            and self._owner == os.getpid()
        ):
            self._say_goodbye()
        super().close()

    def end_sending(self) -> None:
        """See `StreamChannel.end_sending`. Waits for room as `close` does."""
        if self._broken is None:
            self._say_goodbye()
            super().end_sending()

    def _say_goodbye(self) -> None:
        """Tell the other side that nothing follows, unless somebody is sending just now."""
        if not self.send_lock.acquire(blocking=False):
            return
        try:
            if self.sending:
                return
            view = memoryview(self._engine.say_goodbye())
            deadline = monotonic() + _GOODBYE_SECONDS
            while view and (left := deadline - monotonic()) > 0:
                try:
                    view = view[os.write(self.writer, view) :]
                except BlockingIOError:
                    wait_writable(self.writer, left)
        except OSError:
            pass  # nobody hears it any more
        finally:
            self.send_lock.release()

    def lose(self) -> None:
        """Close the copy of a forked child, without a word to the other side."""
        self._broken = (
            f"an encrypted connection cannot be used in a forked child: the one to {self._peer} "
            f"is its parent's; connect anew in the child",
        )
        self.close()

    def __reduce__(self) -> NoReturn:
        """Refuse: see the class."""
        raise TypeError(
            f"an encrypted connection cannot be given to another process: the one to {self._peer} "
            f"stays here; connect from the other process, or pass its messages on"
        )

    def export(self, handoff: Handoff, /) -> Recipe:
        """Refuse, like `__reduce__`."""
        self.__reduce__()

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """Refuse: there is no recipe for one."""
        raise TypeError("an encrypted connection cannot be taken over from another process")


_IN_MESSAGE = "during message"
_channels: WeakSet[TlsChannel] = WeakSet()
_watches_forks = False
_watches_exit = False


def _remember(channel: TlsChannel) -> None:
    """Have *channel* closed when the interpreter ends, and lost in forked children."""
    global _watches_exit, _watches_forks
    if not _watches_forks:
        _watches_forks = True
        in_forked_children(_lose_all)
    if not _watches_exit:
        _watches_exit = True
        atexit.register(_close_all)
    _channels.add(channel)


def _close_all() -> None:
    # An end that was never closed would look like a cut to the other side.
    for channel in list(_channels):
        channel.close()


def _lose_all() -> None:
    global _watches_exit
    _watches_exit = False  # a child begins without its parent's exit handlers
    for channel in list(_channels):
        channel.lose()
    _channels.clear()
