"""Sending, by the pure-Python twin: short messages in one piece, longer ones as a stream."""

from __future__ import annotations

import errno
import os
import sys
import time

from ._layout import ALIGNMENT, RECORD, RECORD_MARK
from ._twin_calls import LONGEST_SLEEP, TwinCalls
from ._twin_half import (
    ARMED,
    HEAD,
    LEFT,
    MARK,
    PIECE,
    STOPPED,
    TAIL,
    WANTED,
    WATCHED,
    Half,
    is_in_the_middle,
    part_up_to,
    ring,
)

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from procession.plugin import Buffer

# So many times as long as the ring is a message for which alone it grows.
_VERY_LONG = 32
# How seldom a sender looks whether the peer was killed, in seconds.
_TICK = 0.004
# How long a writer waits for more room than it needs, in seconds.
_LONGEST_MODESTY = 0.001
# Longer waits for a lock are an error in Python (some 290 years).
_LONGEST_LOCKING = 1e9


class TwinSending(TwinCalls):
    """An end that can send."""

    __slots__ = ()

    def send(
        self,
        body: Buffer,
        buffers: Sequence[Buffer] = (),
        before: Callable[[], bool] | None = None,
        /,
    ) -> bool | None:
        """See `procession.plugin.Channel.send`.

        *before* is called with the side taken; if it says False, nothing is sent, and that is
        what is returned.
        """
        half = self._sending()
        with half.lock:
            if half.busy:
                self._refuse_busy("sending")
            half.since = 0.0
            return self._exclusively(half, None, self._send, body, buffers, before)

    def _send(
        self,
        half: Half,
        body: Buffer,
        buffers: Sequence[Buffer],
        before: Callable[[], bool] | None,
    ) -> bool | None:
        if not half.renew_size():
            self._corrupt()
        if self._is_broken(half):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        if before is not None:
            if not self._call_out(before):
                return False
            if self.closed:
                self._refuse_closed()
        length = len(body)
        mark = RECORD.pack(length, len(buffers), RECORD_MARK)
        if buffers or length > PIECE or length > half.size // 4:
            data = [memoryview(part) for part in (body, *buffers)]
            self._send_stream(half, mark, data)
            return None
        packet = memoryview(b"".join((mark, body, bytes(-length % ALIGNMENT))))
        while True:
            tail = half.longs[TAIL]
            if half.size - (tail - half.longs[HEAD]) >= len(packet):
                break
            self._wait_for_room(half, tail, len(packet))
            self._look_around(half)
            if half.busy:
                self._refuse_busy("sending")
        half.copy_in(tail, packet)
        self._commit(half, tail + len(packet))
        return None

    def _is_broken(self, half: Half) -> bool:
        """Return whether nobody can receive any more; see `is_broken` in `csrc/send.c`."""
        if self._alone or half.words[STOPPED] or is_in_the_middle(half.longs[TAIL]):
            return True
        left, now = half.words[LEFT], time.monotonic()
        if left != self._left_seen or now - self._looked > _TICK:
            self._left_seen, self._looked = left, now
            self._alone = self._peer_has_gone() or self._is_cut(half, HEAD)
        return self._alone

    def _commit(self, half: Half, tail: int) -> None:
        before = half.longs[TAIL]
        half.longs[TAIL] = tail
        half.fence()
        if half.words[ARMED]:
            half.words[ARMED] = 0
            ring(self._out_bell)
        elif half.words[WATCHED] and half.longs[HEAD] == before:
            ring(self._out_bell)  # as in `csrc`: who took `armed` may have been killed

    def _send_stream(self, half: Half, mark: bytes, data: list[memoryview]) -> None:
        lengths = memoryview(
            b"".join(len(buffer).to_bytes(8, sys.byteorder) for buffer in data[1:])
        )
        parts = [memoryview(mark), lengths, *data]
        total = sum(map(len, parts))
        padding = -total % ALIGNMENT
        parts.append(memoryview(bytes(padding)))
        least = total + padding
        # A part of a mark would be nothing that a reader can begin with.
        if least > half.shortest_part():
            least = 2 * MARK
        begun = committed = position = half.longs[TAIL]
        half.busy = True
        try:
            grows = False
            if total > half.size:
                grows = half.size < half.full and not half.stuck
                grows = grows and (half.streamed or total // _VERY_LONG > half.size)
                half.streamed = True
            if grows:
                grows = not self._grow_if_empty(half, position, committed)
            for part in parts:
                while part:
                    room = half.size - (position - half.longs[HEAD])
                    if not 0 <= room <= half.size:
                        self._corrupt()
                    if room < (least if position == begun else 1):
                        wanted = half.size // 4
                        if position != begun:
                            committed = self._commit_part(half, position, committed)
                            if grows:
                                wanted = half.size - (position - committed)
                        self._wait_for_room(half, position, wanted)
                        if committed == begun:
                            self._look_around(half)
                        if grows:
                            grows = not self._grow_if_empty(half, position, committed)
                        continue
                    piece = part[: min(room, PIECE - (position - committed))]
                    part = part[len(piece) :]
                    half.copy_in(position, piece)
                    position += len(piece)
                    if position - committed >= PIECE:
                        committed = self._commit_part(half, position, committed)
            self._commit(half, position)
        except BrokenPipeError:
            raise  # nobody will see the part; what the peer has sent can still be read
        except BaseException as error:
            # The next message would be taken for the rest of this one.
            if half.longs[TAIL] != begun:
                self._tear(error)
            raise
        finally:
            half.busy = False

    def _grow_if_empty(self, half: Half, position: int, committed: int) -> bool:
        """Let the ring grow if all that was committed was read; return whether we tried.

        What lies between *committed* and *position*, a byte at most, is moved. See `grow` in
        `csrc/send.c`.
        """
        if half.longs[HEAD] != committed:
            return False
        last = memoryview(bytearray(position - committed))
        half.copy_out(committed, last)
        half.grow(self._descriptors[0])
        half.copy_in(committed, last)
        return True

    def _commit_part(self, half: Half, position: int, committed: int) -> int:
        """Commit what there is up to *position*; return up to where it is committed then."""
        tail = part_up_to(position)
        if tail != committed:
            self._commit(half, tail)
        return tail

    def _tear(self, error: BaseException) -> None:
        """Close this end in the middle of a message that *error* has ended."""
        if not (self.closed or isinstance(error, (OSError, EOFError))):
            self.torn = True  # it comes from a signal handler
        self.close()

    def wait_for_room(self, length: int, timeout: float | None = None, /) -> bool:
        """See `procession.plugin.Channel.wait_for_room`."""
        half = self._sending()
        end = None if timeout is None else time.monotonic() + timeout
        # A longer message is streamed, and waits for a quarter itself.
        needed = half.size // 4
        if length <= needed:
            needed = MARK + length + -length % ALIGNMENT
        # Senders wait for each other, and one at a time for room.
        if not half.lock.acquire(timeout=_within(timeout)):
            return False
        try:
            return self._exclusively(half, end, self._wait_until_it_could_begin, needed, end)
        except BlockingIOError:
            return False
        finally:
            half.lock.release()

    def _wait_until_it_could_begin(self, half: Half, needed: int, end: float | None) -> bool:
        if not half.renew_size():
            self._corrupt()
        while not self._could_begin(half, needed):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return False
            try:
                self._wait_for_room(half, half.longs[TAIL], needed, left)
            except BrokenPipeError:
                return True
        return True

    def _could_begin(self, half: Half, needed: int) -> bool:
        # In a message, or with nobody there, a send does not wait but fails.
        if half.busy or self._is_broken(half):
            return True
        there_is: bool = half.size - (half.longs[TAIL] - half.longs[HEAD]) >= needed
        return there_is

    def _wait_for_room(
        self, half: Half, position: int, needed: int, longest: float | None = None
    ) -> None:
        """Return when there may be *needed* bytes of room at *position*, or soon."""
        target = position + needed - half.size
        if not position - half.longs[HEAD] <= half.size:
            self._corrupt()
        if longest is None or longest > LONGEST_SLEEP:
            longest = LONGEST_SLEEP
        # As in `csrc`: a reader that goes on is not to wake us for each message that it takes.
        plenty = half.size // 4
        if needed < plenty and longest > _LONGEST_MODESTY:
            self._sleep_for_room(half, position + plenty - half.size, _LONGEST_MODESTY)
            if half.longs[HEAD] >= target:
                return
        if not self._sleep_for_room(half, target, longest) and self._is_cut(half, HEAD):
            self._lose_peer()

    def _sleep_for_room(self, half: Half, wake_at: int, longest: float) -> bool:
        """Sleep until the reader has come to *wake_at*; return whether it has."""
        try:
            self._peer.recv(64)
        except BlockingIOError:
            pass  # nobody had to wake us since
        half.longs[WANTED] = wake_at + 1
        half.fence()
        try:
            if half.longs[HEAD] < wake_at and (
                half.words[STOPPED] or self._poll([], longest, tokens=True)
            ):
                self._lose_peer()
            if self.closed:
                self._refuse_closed()
            come: bool = half.longs[HEAD] >= wake_at
            return come
        finally:
            half.longs[WANTED] = 0

    def _lose_peer(self) -> NoReturn:
        self._alone = True
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _within(timeout: float | None) -> float:
    """Return *timeout* as locks take it."""
    return -1 if timeout is None else min(max(0.0, timeout), _LONGEST_LOCKING)
