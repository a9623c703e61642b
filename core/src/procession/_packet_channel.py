"""Messages over a kernel object that keeps packets apart."""

from __future__ import annotations

import os
from abc import abstractmethod

from procession._blocks import blocks
from procession._descriptor_channel import DescriptorChannel
from procession._vectors import fill
from procession.errors import MessageTooLongError
from procession.framing import (
    FIRST_PACKET,
    MOST_VIEWS,
    WHOLE,
    cut,
    pack_header,
    unpack_header,
    unpack_table,
)

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from procession._channel import Buffer, Message

_join = b"".join
_read = os.read
_write = os.write
_WHOLE = WHOLE[0]


class PacketChannel(DescriptorChannel):
    """A channel whose short messages are one packet each, framed by `procession.framing`.

    The descriptors must block, keep packets of at least `FIRST_PACKET` bytes apart, and
    write these whole or not at all. A subclass gives `write_rest`.
    """

    __slots__ = ()

    @abstractmethod
    def write_rest(self, views: Sequence[memoryview], length: int, /) -> None:
        """Write the *length* bytes behind *views*, in packets or not.

        Called with the lock for sending held. Whatever follows must begin a packet of
        its own again. After an exception this end is closed.
        """

    def send(self, body: Buffer, buffers: Sequence[Buffer] = (), /) -> None:
        """See `Channel.send`."""
        if buffers or len(body) >= FIRST_PACKET:
            self._send_long(body, buffers)
            return
        packet = _join((body, WHOLE))
        with self.send_lock:
            if self.sending:
                self.busy("sending")
            _write(self.writer, packet)

    def _send_long(self, body: Buffer, buffers: Sequence[Buffer]) -> None:
        parts = [memoryview(body), *map(memoryview, buffers)]
        length = sum(map(len, parts))
        header, table = pack_header(len(body), [len(buffer) for buffer in buffers])
        room = 0 if table else FIRST_PACKET - len(header)
        here, rest = cut(parts, room)
        packet = _join((*here, header))
        with self.send_lock:
            if self.sending:
                self.busy("sending")
            # A packet is written whole or not at all: nothing to undo when this raises.
            _write(self.writer, packet)
            if not rest:
                return
            self.sending = True
            try:
                if table:
                    self.write_rest([memoryview(table)], len(table))
                self.write_rest(rest, length - min(room, length))
            except BaseException:
                self.close()
                raise
            finally:
                self.sending = False

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
        """See `Channel.receive`."""
        with self.receive_lock:
            if self.receiving:
                self.busy("receiving")
            try:
                packet = _read(self.reader, FIRST_PACKET)
            except ConnectionResetError:
                # The peer closed without reading everything that we had sent. A socket
                # says so once, and before it gives what the peer had sent to us.
                packet = _read(self.reader, FIRST_PACKET)
            if not packet:
                raise EOFError("the other end was closed")
            if packet[-1] != _WHOLE:
                return self._receive_long(packet, into, limit)
            if limit is not None and len(packet) > limit + 1:
                self._refuse(len(packet) - 1, limit)
        if into is None or len(packet) > len(into) + 1:
            return packet[:-1], ()
        body = into[: len(packet) - 1]
        body[:] = packet[:-1]
        return body, ()

    def _receive_long(self, packet: bytes, into: memoryview | None, limit: int | None) -> Message:
        self.receiving = True
        try:
            header = unpack_header(packet)
            if limit is not None and header.body_length > limit:
                self._refuse(header.body_length, limit)
            lengths = header.buffer_lengths
            if lengths is None:
                table = bytearray(8 * header.buffer_count)
                fill(self.reader, [memoryview(table)])
                lengths = unpack_table(table, header.body_length)
            if into is not None and not lengths and header.body_length <= len(into):
                parts = whole = [into[: header.body_length]]
            else:
                parts, whole = _destinations([header.body_length, *lengths])
            here, rest = cut(whole, header.data_here)
            start = 0
            for part in here:
                part[:] = packet[start : start + len(part)]
                start += len(part)
            fill(self.reader, rest)
        except MessageTooLongError:
            raise
        except BaseException:
            # What is left of the message would be taken for the next one.
            self.close()
            raise
        finally:
            self.receiving = False
        return parts[0], parts[1:]

    def _refuse(self, length: int, limit: int) -> NoReturn:
        self.stop_receiving()
        raise MessageTooLongError(
            f"bad message length: {length} bytes have come and at most {limit} were asked for; "
            f"nothing more can be received here"
        )


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
