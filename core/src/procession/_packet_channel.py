"""Messages over a kernel object that keeps packets apart."""

from __future__ import annotations

import os

from procession._blocks import SMALLEST_BLOCK, blocks
from procession._channel import partial
from procession._descriptor_channel import FREE, TORN, UNDER_WAY, DescriptorChannel
from procession._vectors import fill, read_more, write_all
from procession.errors import BrokenConnectionError, MessageTooLongError
from procession.framing import (
    MOST_VIEWS,
    WHOLE,
    batches,
    cut,
    pack_header,
    unpack_header,
    unpack_table,
)

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import ClassVar, NoReturn

    from procession._channel import Buffer, Message

_join = b"".join
_read = os.read
_write = os.write
_WHOLE = WHOLE[0]


class PacketChannel(DescriptorChannel):
    """A channel whose short messages are one packet each, framed by `procession.framing`.

    A longer message begins with a packet, too, and the rest of it goes through the bulk
    descriptors: a stream of bytes, or the very socket that the packet went through. All
    of them must block, and the first ones must keep packets of up to `longest_packet`
    bytes apart and write them whole or not at all. A subclass gives the two numbers.
    """

    __slots__ = ()

    #: The longest packet that a message begins with, at least `framing.SHORTEST_PACKET`.
    #: Every `receive` asks for as much memory, so that more than 64 KiB is too much.
    longest_packet: ClassVar[int]
    #: How many bytes of the rest are written at once. If the bulk descriptors keep packets
    #: apart, the longest one they take.
    longest_write: ClassVar[int]

    def send(self, body: Buffer, buffers: Sequence[Buffer] = (), /) -> None:
        """See `Channel.send`."""
        if buffers or len(body) >= self.longest_packet:
            self._send_long(body, buffers)
            return
        packet = _join((body, WHOLE))
        with self.send_lock:
            if self.sending:
                self.refuse("sending")
            _write(self.writer, packet)

    def sender(self, body: bytes, /) -> Callable[[], object]:
        """See `Channel.sender`; one step for a body that is sent as one packet."""
        if len(body) >= self.longest_packet:
            return partial(self.send, body)
        return partial(_write, self.writer, body + WHOLE)

    def _send_long(self, body: Buffer, buffers: Sequence[Buffer]) -> None:
        rest = [memoryview(body)]
        if buffers:
            rest += map(memoryview, buffers)
            body_length, *lengths = map(len, rest)
            header, table = pack_header(body_length, lengths)
            here = [] if table else _pop_fitting(rest, self.longest_packet - len(header))
            packet = _join((*here, header))
            if table:
                rest.insert(0, memoryview(table))
        else:
            packet, table = pack_header(len(body), ())
        with self.send_lock:
            if self.sending:
                self.refuse("sending")
            self.sending = UNDER_WAY
            try:
                _write(self.writer, packet)
                if rest:
                    self._write_rest(rest, bool(table))
            except (BrokenPipeError, ConnectionResetError):
                self.sending = FREE
                raise  # nobody will see the part; what the peer has sent can still be read
            except BaseException:
                # A part may have been written, and the next message would be taken for the
                # rest of this one. (A signal handler may also have raised between the end
                # of a write and the moment when we could have known of it.)
                self.sending = TORN
                self.close()
                raise
            self.sending = FREE

    def _write_rest(self, rest: list[memoryview], has_table: bool) -> None:
        writer = self.bulk_writer
        longest = self.longest_write
        if len(rest) == 1 and len(rest[0]) <= longest:
            write_all(writer, rest)
            return
        if has_table:
            # In packets of its own: they are read before there is room for what follows.
            for batch in batches(rest[:1], longest):
                write_all(writer, batch)
            del rest[0]
        for batch in batches(rest, longest):
            write_all(writer, batch)

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
        """See `Channel.receive`."""
        with self.receive_lock:
            if self.receiving:
                self.refuse("receiving")
            # The loop of one round calls `_read` from C. After a call of our own a signal
            # handler could run, and raise, before anybody knew what had been read.
            try:
                for packet in map(_read, (self.reader,), (self.longest_packet,)):  # noqa: B007 - used below
                    break
            except ConnectionResetError:
                # The peer closed without reading everything that we had sent. A socket
                # says so once, and before it gives what the peer had sent to us.
                for packet in map(_read, (self.reader,), (self.longest_packet,)):  # noqa: B007 - used below
                    break
            if packet and packet[-1] != _WHOLE:
                self.receiving = UNDER_WAY
                # No call up to here: this is the first place where a handler could run.
                try:
                    message = self._receive_long(packet, into, limit)
                except MessageTooLongError:
                    self.receiving = FREE
                    raise
                except BaseException:
                    # What is left of the message would be taken for the next one.
                    self.receiving = TORN
                    self.close()
                    raise
                self.receiving = FREE
                return message
            if not packet:
                raise EOFError("the other end was closed")
            if limit is not None and len(packet) > limit + 1:
                self._refuse(len(packet) - 1, limit)
        if into is None or len(packet) > len(into) + 1:
            return packet[:-1], ()
        body = into[: len(packet) - 1]
        body[:] = packet[:-1]
        return body, ()

    def _receive_long(self, packet: bytes, into: memoryview | None, limit: int | None) -> Message:
        length, count, lengths, here = unpack_header(packet)
        if limit is not None and length > limit:
            self._refuse(length, limit)
        if not count and length < SMALLEST_BLOCK and into is None:
            return self._receive_body(packet[:here], length), ()
        if lengths is None:
            table = bytearray(8 * count)
            fill(self.bulk_reader, [memoryview(table)])
            lengths = unpack_table(table, length)
        if into is not None and not lengths and length <= len(into):
            parts = whole = [into[:length]]
        else:
            parts, whole = _destinations([length, *lengths])
        here_parts, rest = cut(whole, here)
        start = 0
        for part in here_parts:
            part[:] = packet[start : start + len(part)]
            start += len(part)
        fill(self.bulk_reader, rest)
        return parts[0], parts[1:]

    def _receive_body(self, start: bytes, length: int) -> bytes:
        """Return a body of some length: as bytes, since that is what most want of it."""
        body = start
        pieces = []
        while len(body) < length:
            pieces.append(body)
            length -= len(body)
            body = read_more(self.bulk_reader, length)
            if not body:
                raise BrokenConnectionError("got end of file during message")
        if not pieces[1:]:
            return start + body if start else body
        pieces.append(body)
        return _join(pieces)

    def _refuse(self, length: int, limit: int) -> NoReturn:
        self.stop_receiving()
        raise MessageTooLongError(
            f"bad message length: {length} bytes have come and at most {limit} were asked for; "
            f"nothing more can be received here"
        )


def _pop_fitting(parts: list[memoryview], room: int) -> list[memoryview]:
    """Take those of *parts* that fit into *room* bytes whole, from the first on."""
    here = []
    while parts and len(parts[0]) <= room:
        room -= len(parts[0])
        here.append(parts.pop(0))
    return here


def _destinations(lengths: Sequence[int]) -> tuple[list[memoryview], list[memoryview]]:
    """Return memory for each of *lengths* bytes, and all of it in few enough views to fill."""
    if len(lengths) <= MOST_VIEWS:
        parts = [blocks.take(length) for length in lengths]
        return parts, parts
    # So many buffers are short, and go together.
    whole = blocks.take(sum(lengths))
    parts = []
    start = 0
    for length in lengths:
        parts.append(whole[start : start + length])
        start += length
    return parts, [whole]
