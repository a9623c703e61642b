"""The pure-Python twin of the compiled end; see `_twin_calls`."""

from __future__ import annotations

import select
import sys
import time

from procession.errors import BrokenConnectionError, MessageTooLongError

from ._layout import ALIGNMENT, LONGEST_MESSAGE, MOST_BUFFERS, RECORD, RECORD_MARK
from ._twin_half import (
    ARMED,
    HEAD,
    MARK,
    PIECE,
    STOPPED,
    TAIL,
    WANTED,
    WATCHED,
    Half,
    is_in_the_middle,
    part_up_to,
    silence,
)
from ._twin_send import TwinSending

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession.plugin import Buffer, Message

# As in `csrc`: up to where a body is received as bytes, and up to where each buffer
# into memory of its own.
_LONGEST_BYTES = 256 << 10
_MOST_VIEWS = 512


class TwinEnd(TwinSending):
    """One end of a connection; takes over the descriptors if it can be made.

    Like the compiled `End`, with which it shares its methods and what they promise.
    """

    __slots__ = ()

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
        """See `procession.plugin.Channel.receive`."""
        half = self._receiving()
        with half.lock:
            if half.busy:
                self._refuse_busy("receiving")
            half.since = 0.0
            while True:
                if half.has_data():
                    message = self._exclusively(half, None, self._receive_whole, into, limit)
                    if message is not None:
                        return message
                self._await_data(half)

    def _receive_whole(
        self, half: Half, into: memoryview | None, limit: int | None
    ) -> Message | None:
        """Return the next message, with its luggage, or None as `_receive_next`."""
        message = self._receive_next(half, into, limit)
        if message is None or message[0] or not message[1] or self._luggage is None:
            return message
        return self._call_out(self._luggage, message[1])

    def _receive_next(
        self, half: Half, into: memoryview | None, limit: int | None
    ) -> Message | None:
        """Return the next message, or None if another process was faster."""
        position = half.longs[HEAD]
        if is_in_the_middle(position):
            self.close()
            raise BrokenConnectionError("got end of file during message")
        available = half.longs[TAIL] - position
        if not available:
            return None
        if not half.renew_size():
            self._corrupt()
        if not MARK <= available <= half.size:
            self._corrupt()
        length, count, mark = RECORD.unpack_from(half.data, position & half.mask)
        if mark != RECORD_MARK or length > LONGEST_MESSAGE or count > MOST_BUFFERS:
            self._corrupt()
        if limit is not None and length > limit:
            self._stop_reading(half)
            raise MessageTooLongError(
                f"bad message length: {length} bytes have come and at most {limit} were "
                f"asked for; nothing more can be received here"
            )
        start = position + MARK
        end = start + length + -length % ALIGNMENT
        whole = not count and length < _LONGEST_BYTES and half.longs[TAIL] >= end
        if not whole or into is not None:
            return self._receive_long(half, position, length, count, into)
        first = start & half.mask
        if first + length <= half.size:
            body = bytes(half.data[first : first + length])
        else:
            rest = first + length - half.size
            body = b"".join((half.data[first : half.size], half.data[:rest]))
        self._consume(half, end)
        return body, ()

    def _await_data(self, half: Half) -> None:
        """Wait until there may be a message; no other process is kept from it meanwhile."""
        ended = self._wait_for_data(half, None) and not half.has_data()
        if not (ended or half.has_data()):
            self._look_around(half)
        if self.closed or not self.readable:
            self._refuse_closed()
        if half.busy:
            self._refuse_busy("receiving")
        if ended:
            if is_in_the_middle(half.longs[HEAD]):
                raise BrokenConnectionError("got end of file during message")
            raise EOFError("the other end was closed")

    def _consume(self, half: Half, head: int) -> None:
        """Give the memory up to *head* back to the writer."""
        half.longs[HEAD] = head
        half.fence()
        wanted = half.longs[WANTED]
        if wanted and head >= wanted - 1:
            half.longs[WANTED] = 0
            self._wake_writer()
        if half.words[WATCHED] and not half.has_data():
            self._settle(half)

    def _receive_long(
        self, half: Half, position: int, length: int, count: int, into: memoryview | None
    ) -> Message:
        half.busy = True
        begun = position
        try:
            position += MARK
            table = memoryview(bytearray(8 * count))
            position = self._fill(half, position, table)
            lengths = table.cast("Q").tolist() if count else []
            total = sum(lengths)
            if total > LONGEST_MESSAGE:
                self._corrupt()
            body: Buffer
            if into is not None and not count and length <= len(into):
                body = target = into[:length]
            else:
                target = self._take(length)[:length]
                body = target
            buffers = self._destinations(lengths, total)
            padding = memoryview(bytearray(-(length + 8 * count + total) % ALIGNMENT))
            for part in (target, *buffers, padding):
                position = self._fill(half, position, part)
            self._consume(half, position)
        except BaseException as error:
            # What is left of the message would be taken for the next one.
            if half.longs[HEAD] != begun:
                self._tear(error)
            raise
        finally:
            half.busy = False
        if length < _LONGEST_BYTES and body is not into and into is None:
            body = bytes(body)
        return body, buffers

    def _destinations(self, lengths: list[int], total: int) -> list[memoryview]:
        if len(lengths) <= _MOST_VIEWS:
            return [self._take(length) for length in lengths]
        # So many buffers are short, and go together.
        whole = self._take(total)
        parts = []
        start = 0
        for length in lengths:
            parts.append(whole[start : start + length])
            start += length
        return parts

    def _fill(self, half: Half, position: int, target: memoryview) -> int:
        """Fill *target* from *position* on and return where that ends."""
        while target:
            available = half.longs[TAIL] - position
            if not half.renew_size() or not 0 <= available <= half.size:
                self._corrupt()
            if not available:
                # That is the end of a message, and by its own account there must be more.
                if not is_in_the_middle(position):
                    self._corrupt()
                if half.longs[HEAD] != position:
                    self._consume(half, position)
                if self._wait_for_data(half, None) and not half.has_data():
                    raise BrokenConnectionError("got end of file during message")
                if self.closed:
                    self._refuse_closed()
                continue
            piece = target[: min(available, PIECE)]
            half.copy_out(position, piece)
            target = target[len(piece) :]
            position += len(piece)
            # Of a short message, nothing before all of it: who is killed meanwhile leaves it whole.
            if position - half.longs[HEAD] > half.shortest_part():
                self._consume(half, part_up_to(position))
        return position

    def _stop_reading(self, half: Half) -> None:
        """Make this end write-only; close it, if that is not even that."""
        if not self.writable:
            self.close()
            return
        self.readable = False
        half.words[STOPPED] = 1
        self._wake_writer()

    def _wake_writer(self) -> None:
        try:
            self._peer.send(b"\0")
        except OSError:
            pass  # gone, or so many tokens are there that one more says nothing new

    def wait(self, timeout: float | None = None, /) -> bool:
        """See `procession.plugin.Channel.wait`."""
        half = self._receiving()
        end = None if timeout is None else time.monotonic() + timeout
        left = timeout
        while True:
            if half.has_data():
                return True
            if left is not None and left <= 0:
                if self._peer_has_gone() or half.has_data() or self._is_cut(half, TAIL):
                    return True
                if self._epoll is not None:
                    # It may have rung in vain, and must not go on with that.
                    self._settle(half)
                return half.has_data()
            if self._wait_for_data(half, left):
                return True
            if self.closed:
                self._refuse_closed()
            if end is not None:
                left = end - time.monotonic()

    def fileno(self) -> int:
        """See `procession.plugin.Channel.fileno`."""
        if self.closed:
            self._refuse_closed()
        half = self._in
        if half is None or not self.readable or sys.platform != "linux":
            return self._descriptors[3]
        if self._epoll is None:
            epoll = select.epoll()
            try:
                epoll.register(self._in_bell, select.EPOLLIN)
                epoll.register(self._peer, 0)
            except BaseException:
                epoll.close()
                raise
            self._epoll = epoll
            half.words[ARMED] = 1
            silence(self._in_bell)
            half.words[WATCHED] = 1
            self._settle(half)
        return self._epoll.fileno()
