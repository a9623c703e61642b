"""Messages over a kernel object that keeps packets apart."""

from __future__ import annotations

import errno
import os
import sys
from itertools import repeat
from time import monotonic

from procession._channels.descriptor_channel import FREE, TORN, UNDER_WAY, DescriptorChannel
from procession._contracts.channel import partial
from procession._ground.vectors import fill, read_more, write_all
from procession._ground.waiting import LONGEST_SLEEP, asker, poller_of, wait_writable
from procession._messages.blocks import SMALLEST_BLOCK, blocks
from procession.errors import BrokenConnectionError, MessageTooLongError
from procession.framing import (
    MOST_VIEWS,
    TAG_SIZE,
    WHOLE,
    WITH_LUGGAGE,
    batches,
    cut,
    pack_header,
    pack_tag,
    unpack_header,
    unpack_table,
    unpack_tag,
)

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import ClassVar, NoReturn

    from procession._contracts.channel import Buffer, Message

_join = b"".join
_read = os.read
_write = os.write
_WHOLE = WHOLE[0]
# What a closed end receives: EBADF.
_NOTHING = map(_read, repeat(-1), repeat(0))
# A wait of no more than so many seconds was none.
_AT_ONCE = 4e-6
_WITH_LUGGAGE = WITH_LUGGAGE[0]


class PacketChannel(DescriptorChannel):
    """A channel whose short messages are one packet each, framed by `procession.framing`.

    A longer message begins with a packet, too, and the rest of it goes through the bulk
    descriptors: a stream of bytes, or the very socket that the packet went through. The
    first ones must keep packets of up to `longest_packet` bytes apart and write them whole
    or not at all. All of them must block, as long as nobody asks to `watch`. A subclass
    gives the numbers.
    """

    __slots__ = ("_asks_first", "_look_for_message", "_look_for_room", "_packets", "_poll")

    takes_companion = True
    #: The longest packet that a message begins with, at least `framing.SHORTEST_PACKET`.
    #: Every `receive` asks for as much memory, so that more than 64 KiB is too much.
    longest_packet: ClassVar[int]
    #: How many bytes of the rest are written at once. If the bulk descriptors keep packets
    #: apart, the longest one they take.
    longest_write: ClassVar[int]
    #: Whether the descriptors are sockets with timeouts of a second. Others stop blocking when
    #: somebody asks to `watch`, where the bulk has descriptors of its own.
    has_timeouts: ClassVar[bool] = False

    _look_for_message: Callable[[], object] | None
    _look_for_room: Callable[[], object] | None
    _poll: Callable[[float], object] | None

    def __init__(self, readers: Sequence[int], writers: Sequence[int]) -> None:
        """See `DescriptorChannel`."""
        super().__init__(readers, writers)
        self._look_for_message = self._look_for_room = None
        # Made once: to make what reads one packet takes longer than to use it.
        self._packets: Iterator[bytes] = map(
            _read, repeat(self.reader), repeat(self.longest_packet)
        )
        # Whether the last message had to be waited for where descriptors do not block. The next
        # one is asked for first then; an attempt in vain takes longer.
        self._asks_first = False
        self._poll = None

    def watch(self, receiving: Callable[[], object], sending: Callable[[], object], /) -> bool:
        """See `Channel.watch`. Without a need to wait, a packet is still one system call."""
        if not self.has_timeouts:
            if sys.platform == "win32" or self.closed:
                return False
            if self.reader == self.bulk_reader != -1 or self.writer == self.bulk_writer != -1:
                return False
            # Others who have this end have it so, too, and can wait as well as we.
            for fd in (self.reader, self.writer):
                if fd >= 0:
                    os.set_blocking(fd, False)
        self._look_for_message, self._look_for_room = receiving, sending
        return True

    def send(self, body: Buffer, buffers: Sequence[Buffer] = (), /) -> None:
        """See `Channel.send`."""
        if buffers or len(body) >= self.longest_packet:
            self._send_long(body, buffers)
            return
        packet = _join((body, WHOLE))
        with self.send_lock:
            if self.sending:
                self.refuse("sending")
            while True:
                try:
                    _write(self.writer, packet)
                    return
                except BlockingIOError:
                    self._wait_for_room()

    def sender(self, body: bytes, /) -> Callable[[], object]:
        """See `Channel.sender`; one step for a body that is sent as one packet."""
        if len(body) >= self.longest_packet:
            return partial(self.send, body)
        return partial(_write, self.writer, body + WHOLE)

    @property
    def carries(self) -> bool:
        """See `Channel.carries`."""
        return self.companion >= 0

    def accompany(self, companion: int, /) -> None:
        """See `Channel.accompany`."""
        self.companion = companion

    def _companion(self) -> int:
        if self.companion < 0:
            raise OSError(errno.EBADF, "there is nothing that descriptors could travel through")
        return self.companion

    def send_carrying(
        self, body: Buffer, buffers: Sequence[Buffer], descriptors: Sequence[int], /
    ) -> bool:
        """See `Channel.send_carrying`."""
        # The lock is re-entrant: nobody's message comes between the two.
        with self.send_lock:
            if self.sending:
                self.refuse("sending")
            if self.outlet is None:
                # Not before it is needed: most connections carry no descriptors.
                from procession._ground.companion import Outlet

                self.outlet = Outlet(self._companion())
            ticket = self.outlet.new_ticket()
            if not self.outlet.post(ticket, descriptors):
                return False
            tag = pack_tag(ticket, len(descriptors))
            if buffers or len(body) + TAG_SIZE >= self.longest_packet:
                self._send_long(body, buffers, tag)
                return True
            packet = _join((body, WHOLE, tag))
            while True:
                try:
                    _write(self.writer, packet)
                    return True
                except BlockingIOError:
                    self._wait_for_room()

    def _send_long(self, body: Buffer, buffers: Sequence[Buffer], tag: bytes = b"") -> None:
        rest = [memoryview(body)]
        if buffers:
            rest += map(memoryview, buffers)
            body_length, *lengths = map(len, rest)
            header, table = pack_header(body_length, lengths)
            room = self.longest_packet - len(header) - len(tag)
            here = [] if table else _pop_fitting(rest, room)
            packet = _join((*here, header, tag))
            if table:
                rest.insert(0, memoryview(table))
        else:
            packet, table = pack_header(len(body), ())
            packet += tag
        with self.send_lock:
            if self.sending:
                self.refuse("sending")
            self.sending = UNDER_WAY
            try:
                while True:
                    try:
                        _write(self.writer, packet)
                        break
                    except BlockingIOError:
                        self.sending = FREE  # nothing was written
                        self._wait_for_room()
                        self.sending = UNDER_WAY
                if rest:
                    self._write_rest(rest, bool(table))
            except (BrokenPipeError, ConnectionResetError):
                self.sending = FREE
                raise  # nobody will see the part; what the peer has sent can still be read
            except BaseException:
                if self.sending == FREE:
                    raise
                # A part may have been written, and the next message would be taken for the
                # rest of this one. (A signal handler may also have raised between the end
                # of a write and the moment when we could have known of it.)
                self.sending = TORN
                self.close()
                raise
            self.sending = FREE

    def _write_rest(self, rest: list[memoryview], has_table: bool) -> None:
        if has_table:
            # In packets of its own: they are read before there is room for what follows.
            self.write_bulk(rest[:1])
            del rest[0]
        self.write_bulk(rest)

    def write_bulk(self, views: list[memoryview]) -> None:
        """Write what is behind *views* to the bulk descriptor, in pieces of `longest_write`."""
        writer, longest, again = self.bulk_writer, self.longest_write, self._wait_again
        if len(views) == 1 and len(views[0]) <= longest:
            write_all(writer, views, again)
            return
        for batch in batches(views, longest):
            write_all(writer, batch, again)

    def asker(self) -> Callable[[], object]:
        """See `Channel.asker`."""
        return asker(self.reader)

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
        """See `Channel.receive`."""
        with self.receive_lock:
            if self.receiving:
                self.refuse("receiving")
            # The loop of one round calls `_read` from C. After a call of our own a signal
            # handler could run, and raise, before anybody knew what had been read.
            while True:
                if self._asks_first:
                    self._wait_for_message()
                try:
                    for packet in self._packets:  # noqa: B007 - used below
                        break
                    break
                except BlockingIOError:
                    self._wait_again(self.reader, self._ask_first, self._look_for_message)
                except ConnectionResetError:
                    # The peer closed without reading everything that we had sent. A socket
                    # says so once, and before it gives what the peer had sent to us.
                    continue
            if packet and packet[-1] != _WHOLE:
                self.receiving = UNDER_WAY
                # No call up to here: this is the first place where a handler could run.
                try:
                    message = self._receive_long(packet, into, limit)
                except MessageTooLongError:
                    self.receiving = FREE
                    raise
                except BaseException:
                    if not self.receiving:
                        raise  # it was a message of one packet
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
        if packet[-1] == _WITH_LUGGAGE:
            return self._receive_luggage(packet, into, limit)
        length, count, lengths, here = unpack_header(packet)
        if limit is not None and length > limit:
            self._refuse(length, limit)
        if not count and length < SMALLEST_BLOCK and into is None:
            return self._receive_body(packet[:here], length), ()
        if lengths is None:
            table = bytearray(8 * count)
            fill(self.bulk_reader, [memoryview(table)], self._wait_again)
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
        fill(self.bulk_reader, rest, self._wait_again)
        return parts[0], parts[1:]

    def _receive_luggage(
        self, packet: bytes, into: memoryview | None, limit: int | None
    ) -> Message:
        """Receive the rest of a message whose first packet has a tag."""
        from procession._messages.luggage import Luggage

        if packet[-TAG_SIZE - 1 : -TAG_SIZE] == WHOLE:
            self.receiving = FREE  # whatever is raised from here on
        packet, ticket, count = unpack_tag(packet)
        if self.inlet is None:
            from procession._ground.companion import Inlet

            self.inlet = Inlet(self._companion())
        luggage = Luggage((), *self.inlet.collect(ticket, count))
        if packet[-1] != _WHOLE:
            body, buffers = self._receive_long(packet, into, limit)
            return body, luggage.beside(buffers)
        length = len(packet) - 1
        if limit is not None and length > limit:
            self._refuse(length, limit)
        if into is None or length > len(into):
            return packet[:-1], luggage
        body = into[:length]
        body[:] = packet[:-1]
        return body, luggage

    def _receive_body(self, start: bytes, length: int) -> bytes:
        """Return a body of some length: as bytes, since that is what most want of it."""
        body = start
        pieces = []
        while len(body) < length:
            pieces.append(body)
            length -= len(body)
            body = read_more(self.bulk_reader, length, self._wait_again)
            if not body:
                raise BrokenConnectionError("got end of file during message")
        if not pieces[1:]:
            return start + body if start else body
        pieces.append(body)
        return _join(pieces)

    def _wait_for_room(self) -> None:
        self._wait_again(self.writer, wait_writable, self._look_for_room)

    def _wait_again(
        self, fd: int, wait: Callable[[int, float], bool], look: Callable[[], object] | None = None
    ) -> None:
        """Wait with *wait*, for a second at most, for what *fd* could not do; *look* if in vain.

        A descriptor that blocks has waited itself, and will again. (poll() would not do, as it
        calls a socket writable only when much of its buffer is free.)
        """
        if sys.platform != "win32" and not os.get_blocking(fd) and wait(fd, LONGEST_SLEEP):
            return
        if look is not None:
            look()

    def _ask_first(self, fd: int, timeout: float) -> bool:
        """Have the next attempt to receive begin with a wait."""
        self._asks_first = True
        return True

    def _wait_for_message(self) -> None:
        """Wait for a message, for a second at most, and look if that was in vain."""
        # Nobody else has it meanwhile, not even a signal handler.
        poll, self._poll = self._poll, None
        if poll is None:
            poll = poller_of(self.reader)
        begun = monotonic()
        if poll(LONGEST_SLEEP * 1000):
            self._asks_first = monotonic() - begun > _AT_ONCE
        elif self._look_for_message is not None:
            self._look_for_message()
        self._poll = poll

    def close(self) -> None:
        """See `Channel.close`."""
        self._packets = _NOTHING
        self._asks_first = False
        self._poll = None
        super().close()

    def stop_receiving(self) -> None:
        """See `DescriptorChannel.stop_receiving`."""
        self._packets = _NOTHING
        self._asks_first = False
        self._poll = None
        super().stop_receiving()

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
