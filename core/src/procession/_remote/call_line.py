"""The line that calls to a manager and their answers go over, one at a time."""

from __future__ import annotations

from os import read, write
from struct import Struct

from procession._channels.stream_channel import StreamChannel
from procession._ground.waiting import asker
from procession._messages.blocks import blocks
from procession._messages.lookout import Lookout
from procession._remote.host_channel import HostChannel
from procession.errors import BrokenConnectionError, MessageTooLongError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession.connection import Connection

_length = Struct("!I")
_pack_length, _length_of = _length.pack, _length.unpack_from
_long_length = Struct("!Q")
_LONG = 0xFFFFFFFF
#: What is read at once, and the longest message that is copied behind its header.
_AT_ONCE = 64 << 10


class CallLine:
    """A connection, taken over, whose two sides take turns.

    The messages are the connection's own. But the other side sends nothing before it was
    answered, so that header and body can be read at once, and whoever uses the line has it to
    himself, so that no lock is needed: half of what a short call costs. After an exception
    the line is of no use any more: close it.
    """

    __slots__ = ("_at_once", "_channel", "_connection", "_has_come", "_look", "_reader", "_writer")

    def __init__(self, connection: Connection, channel: StreamChannel) -> None:
        """*channel* is the connection's."""
        self._connection = connection
        self._channel = channel
        self._reader = channel.reader
        self._writer = channel.writer
        self._has_come = asker(channel.reader)
        self._look = Lookout().look
        limit = connection.recv_limit
        # Of a message that is too long, less has come than was announced.
        self._at_once = _AT_ONCE if limit is None else min(_AT_ONCE, 4 + limit)

    def send(self, data: bytes) -> None:
        """Send one message. Raises `OSError`."""
        if len(data) > _AT_ONCE:
            self._connection.send_bytes(data)
            return
        whole = _pack_length(len(data)) + data
        try:
            sent = write(self._writer, whole)
        except BlockingIOError:  # there was no room for a while, and the channel looks why
            sent = 0
        if sent < len(whole):
            self._channel.write_all([memoryview(whole)[sent:]])

    def receive(self) -> bytes | memoryview:
        """Wait for one message. Raises `EOFError` at the end, and `OSError`."""
        self._look(self._has_come)
        try:
            data = read(self._reader, self._at_once)
        except BlockingIOError:  # it is a long call: the channel looks whether the other side lives
            self._channel.wait(None)
            data = read(self._reader, self._at_once)
        # A copy of something this short costs less than a view of it.
        body = data[4:]
        if body and _length_of(data) == (len(body),):
            return body
        if not data:
            raise EOFError("the other end was closed")
        return self._receive_rest(data)

    def _receive_rest(self, data: bytes) -> memoryview:
        """Receive a message of which *data* is the beginning."""
        data = self._complete(data, 4)
        length = int.from_bytes(data[:4], "big")
        start = 4
        if length == _LONG:
            data = self._complete(data, 12)
            (length,) = _long_length.unpack_from(data, 4)
            start = 12
        here = len(data) - start
        limit = self._connection.recv_limit
        try:
            self._channel.check_length(length, limit)
        except MessageTooLongError as error:
            self._connection._fail(error, limit is not None)
        if here > length:
            raise MessageTooLongError(
                f"bad message length: {length} bytes are announced, and {here} have come"
            )
        body = blocks.take(length)
        body[:here] = data[start:]
        self._channel.read_all(body[here:])
        return body

    def _complete(self, data: bytes, size: int) -> bytes:
        while len(data) < size:
            more = self._channel.read_some(_AT_ONCE)
            if not more:
                raise BrokenConnectionError("got end of file during message")
            data += more
        return data

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._connection.close()


class WholeLine(CallLine):
    """A line over a connection whose descriptor carries something else than its messages."""

    __slots__ = ()

    def send(self, data: bytes) -> None:
        """See `CallLine.send`."""
        self._connection.send_bytes(data)

    def receive(self) -> bytes | memoryview:
        """See `CallLine.receive`."""
        return self._connection.recv_bytes()


def call_line(connection: Connection) -> CallLine:
    """Return the line over *connection*, which it takes over."""
    channel = connection.channel
    assert isinstance(channel, StreamChannel)  # what listeners and clients make
    kind = CallLine if type(channel) in (StreamChannel, HostChannel) else WholeLine
    return kind(connection, channel)
