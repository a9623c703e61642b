"""Messages over a stream of bytes, as multiprocessing's own connections frame them."""

from __future__ import annotations

import os
from struct import Struct

from procession._channels.descriptor_channel import FREE, TORN, UNDER_WAY, DescriptorChannel
from procession._ground import vectors
from procession._messages.blocks import blocks
from procession._messages.pickling import join
from procession.errors import BrokenConnectionError, MessageTooLongError
from procession.framing import LONGEST_MESSAGE

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence

    from procession._contracts.channel import Buffer, Message

_read = os.read
#: What announces a message: its length, or -1 for a longer one, which comes next.
LENGTH = Struct("!i")
_SIZE = LENGTH.size
LONG_LENGTH = Struct("!Q")
_LONG = LENGTH.pack(-1)
_LONGEST_SHORT = 0x7FFFFFFF
#: Up to here, header and body are copied together to be written at once.
_SHORT_ENOUGH_TO_COPY = 16 << 10


def pack_length(length: int) -> bytes:
    """Return what announces a message of *length* bytes."""
    if length <= _LONGEST_SHORT:
        return LENGTH.pack(length)
    return _LONG + LONG_LENGTH.pack(length)


class StreamChannel(DescriptorChannel):
    """A channel over descriptors that carry a stream of bytes: pipes, stream sockets.

    The peer may be a `multiprocessing.connection.Connection`: a message is its length,
    4 bytes, big-endian and signed (-1 for a length of 8 bytes that comes next), and its
    bytes. Buffers have no place in this, so a message that has some is made one pickle.
    """

    __slots__ = ()

    #: What may happen in the middle of a message after which this end stays open.
    survivable: tuple[type[Exception], ...] = (MessageTooLongError,)

    def send(self, body: Buffer, buffers: Sequence[Buffer] = (), /) -> None:
        """See `Channel.send`."""
        if buffers:
            body = join(body, buffers)
        header = pack_length(len(body))
        parts = [memoryview(header), memoryview(body)]
        if len(body) <= _SHORT_ENOUGH_TO_COPY:
            parts = [memoryview(b"".join(parts))]
        with self.send_lock:
            if self.sending:
                self.refuse("sending")
            self.sending = UNDER_WAY
            try:
                self.write_all(parts)
            except (BrokenPipeError, ConnectionResetError):
                self.sending = FREE
                raise  # nobody will see what was written of it
            except BaseException:
                # A part of it may have been written.
                self.sending = TORN
                self.close()
                raise
            self.sending = FREE

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
        """See `Channel.receive`."""
        with self.receive_lock:
            if self.receiving:
                self.refuse("receiving")
            # Called from C for the reason given in `PacketChannel.receive`.
            try:
                for start in map(_read, (self.reader,), (_SIZE,)):  # noqa: B007 - used below
                    break
            except ConnectionResetError:
                # The peer closed without reading everything that we had sent. A Unix socket
                # says so once, and before it gives what the peer had sent to us.
                for start in map(_read, (self.reader,), (_SIZE,)):  # noqa: B007 - used below
                    break
            if start:
                self.receiving = UNDER_WAY
                try:
                    message = self._receive_rest(start, into, limit)
                except self.survivable:
                    self.receiving = FREE
                    raise
                except BaseException:
                    # What is left of the message would be taken for the next one.
                    self.receiving = TORN
                    self.close()
                    raise
                self.receiving = FREE
                return message
            raise EOFError("the other end was closed")

    def _receive_rest(self, start: bytes, into: memoryview | None, limit: int | None) -> Message:
        (length,) = LENGTH.unpack(self._complete(start, _SIZE))
        if length == -1:
            (length,) = LONG_LENGTH.unpack(self._complete(b"", LONG_LENGTH.size))
        self.check_length(length, limit)
        if into is not None and length <= len(into):
            body = into[:length]
        else:
            body = blocks.take(length)
        self.read_all(body)
        return body, ()

    def check_length(self, length: int, limit: int | None) -> None:
        """Raise `MessageTooLongError` for a message of *length* bytes that nobody wants.

        That is one longer than *limit* or than any memory. Nothing can be received then.
        """
        if not 0 <= length <= LONGEST_MESSAGE or (limit is not None and length > limit):
            self.stop_receiving()
            raise MessageTooLongError(
                f"bad message length: {length} bytes are announced"
                + ("" if limit is None else f" and at most {limit} were asked for")
            )

    def read_some(self, size: int) -> bytes:
        """Return up to *size* bytes of a message that has begun; none at the end."""
        return vectors.read_more(self.reader, size)

    def read_all(self, view: memoryview) -> None:
        """Fill *view* with what comes next of a message."""
        vectors.fill(self.reader, [view])

    def write_all(self, parts: Sequence[memoryview]) -> None:
        """Write all of *parts*."""
        vectors.write_all(self.writer, parts)

    def end_sending(self) -> None:
        """Let the other side see the end after what was sent; receiving goes on.

        Only of a channel over a socket. Nothing can be sent any more. Never raises for a
        broken peer.
        """
        from socket import SHUT_WR

        from procession._ground.sockets import BorrowedSocket

        try:
            with BorrowedSocket(self.writer) as peer:
                peer.shutdown(SHUT_WR)
        except OSError:
            pass  # the other side has gone

    def _complete(self, start: bytes, size: int) -> bytes:
        while len(start) < size:
            more = self.read_some(size - len(start))
            if not more:
                raise BrokenConnectionError("got end of file during message")
            start += more
        return start
