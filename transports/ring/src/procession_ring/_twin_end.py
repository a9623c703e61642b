"""The pure-Python twin of the compiled end: the same protocol, but locks of the kernel's files.

So one connection is used by one kind only; which one made it is written in its header. It
relies on a processor that keeps stores in order (`Ring.unavailable` sees to that); where the
protocol needs a store to be seen before a load, it takes a lock.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import socket
import sys
import time
from _thread import RLock

from procession.errors import BrokenConnectionError, BusyConnectionError, MessageTooLongError
from procession.plugin import LockFile

from ._layout import (
    ALIGNMENT,
    BEGINNING,
    FOREIGN_LOCKS,
    HEADER_SIZE,
    LONGEST_MESSAGE,
    MOST_BUFFERS,
    OFFSETS,
    RECORD,
    RECORD_MARK,
    STREAM_MAGIC,
)

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn, TypeVar

    from procession.plugin import Buffer, Message

    T = TypeVar("T")

_LOCK_SIZE, _TAIL, _HEAD, _WANTED = (
    OFFSETS[name] // 8 for name in ("lock_size", "tail", "head", "room_wanted")
)
_ARMED, _WATCHED, _STOPPED, _LEFT = (
    OFFSETS[name] // 4 for name in ("armed", "watched", "stopped", "left")
)
_ONE = (1).to_bytes(8, sys.byteorder)
_MARK = RECORD.size

# As in `csrc`: the longest sleep in seconds, how long a ring may take in milliseconds, what
# is copied at once, up to where a body is received as bytes, and up to where each buffer
# into memory of its own.
_LONGEST_SLEEP = 0.25
_LONGEST_RINGING = 20
# Longer waits for a lock are an error in Python (some 290 years).
_LONGEST_LOCKING = 1e9
_PIECE = 64 << 10
_LONGEST_BYTES = 256 << 10
_MOST_VIEWS = 512
# How seldom a sender looks whether the peer was killed, in seconds.
_TICK = 0.004


class Half:
    """One direction, as an end uses it."""

    __slots__ = (
        "busy",
        "data",
        "lock",
        "longs",
        "mask",
        "other_side",
        "relying",
        "side",
        "size",
        "words",
    )

    def __init__(self, memory: memoryview, offset: int, file: LockFile, side: int) -> None:
        """Use what begins at *offset*; *side* is 0 for its writer and 1 for its reader.

        Raises `OSError` if that is no ring, or not one of ours.
        """
        header = memory[offset : offset + HEADER_SIZE]
        magic, size = BEGINNING.unpack_from(header)
        fits = HEADER_SIZE <= size <= len(memory) - offset - HEADER_SIZE
        if magic != STREAM_MAGIC or size & (size - 1) or not fits:
            raise OSError("not the memory of a ring, or of another version of it")
        self.longs = header.cast("Q")
        self.words = header.cast("I")
        if self.longs[_LOCK_SIZE]:
            raise OSError(FOREIGN_LOCKS)
        # Those of the first ring in the memory, and of the second.
        first_lock = 2 if offset else 0
        self.side = file.lock(first_lock + side)
        self.other_side = file.lock(first_lock + 1 - side)
        self.data = memory[offset + HEADER_SIZE : offset + HEADER_SIZE + size]
        self.size = size
        self.mask = size - 1
        self.renew()

    def renew(self) -> None:
        """Start with a free lock: a forked child has nobody to release the old one."""
        self.lock = RLock()
        self.busy = False
        # Whether this thread, which has `lock`, has taken the side against other processes.
        self.relying = False

    def fence(self) -> None:
        """Have everything stored before this seen by others before anything is loaded."""
        with self.lock:
            pass

    def has_data(self) -> bool:
        """Return whether there is something to receive."""
        return self.longs[_TAIL] != self.longs[_HEAD]

    def copy_in(self, position: int, source: memoryview) -> None:
        """Copy *source* to *position*, around the end of the memory if need be."""
        start = position & self.mask
        first = min(len(source), self.size - start)
        self.data[start : start + first] = source[:first]
        if first < len(source):
            self.data[: len(source) - first] = source[first:]

    def copy_out(self, position: int, target: memoryview) -> None:
        """Fill *target* from *position* on."""
        start = position & self.mask
        first = min(len(target), self.size - start)
        target[:first] = self.data[start : start + first]
        if first < len(target):
            target[first:] = self.data[: len(target) - first]


class TwinEnd:
    """One end of a connection; takes over the descriptors if it can be made.

    Like the compiled `End`, with which it shares its methods and what they promise.
    """

    if sys.platform == "linux":
        _epoll: select.epoll | None

    __slots__ = (
        "_alone",
        "_descriptors",
        "_epoll",
        "_file",
        "_in",
        "_in_bell",
        "_left_seen",
        "_looked",
        "_out",
        "_out_bell",
        "_peer",
        "_pid",
        "_take",
        "_users",
        "closed",
        "readable",
        "torn",
        "writable",
    )

    def __init__(
        self,
        memory: int,
        in_bell: int,
        out_bell: int,
        peer: int,
        in_offset: int,
        out_offset: int,
        take: Callable[[int], memoryview],
        create: bool,
        /,
    ) -> None:
        self.closed = True  # as long as nothing is ours
        self.torn = False
        view = memoryview(mmap.mmap(memory, 0))
        # Of new memory, no lock has to be made.
        self._file = LockFile(memory)
        self._users = 0
        self._in = Half(view, in_offset, self._file, 1) if in_offset >= 0 else None
        self._out = Half(view, out_offset, self._file, 0) if out_offset >= 0 else None
        self._take = take
        self._in_bell, self._out_bell = in_bell, out_bell
        self._epoll = None
        self._pid = os.getpid()
        self._alone = False
        self._looked = 0.0
        self._left_seen = self._out.words[_LEFT] if self._out else 0
        self.readable = self._in is not None
        self.writable = self._out is not None
        # Of a duplicate, which is thus not inheritable and closed with its object.
        self._peer = socket.socket(fileno=peer)
        self._peer.setblocking(False)
        self._descriptors = (memory, in_bell, out_bell, peer)
        self.closed = False

    # -- beginning a call --------------------------------------------------------------

    def _receiving(self) -> Half:
        half = self._in
        if half is None or not self.readable or self.closed:
            self._refuse_closed()
        if self._pid != os.getpid():
            self._renew()
        return half

    def _sending(self) -> Half:
        half = self._out
        if half is None or self.closed:
            self._refuse_closed()
        if self._pid != os.getpid():
            self._renew()
        return half

    def _renew(self) -> None:
        for half in (self._in, self._out):
            if half is not None:
                half.renew()
        self._pid = os.getpid()
        self._users = 0

    def _refuse_closed(self) -> NoReturn:
        raise OSError(errno.EBADF, "handle is closed")

    def _refuse_busy(self, doing: str) -> NoReturn:
        raise BusyConnectionError(
            f"cannot be used here: a signal handler has interrupted this thread while it was "
            f"{doing} a longer message through this very connection"
        )

    def _corrupt(self) -> NoReturn:
        self.close()
        raise OSError("bad message: the memory of the ring is corrupt")

    # -- the sides ---------------------------------------------------------------------

    def _exclusively(
        self, half: Half, end: float | None, critical: Callable[..., T], *arguments: Any
    ) -> T:
        """Call *critical* with *half* and *arguments*, with its side taken from other processes.

        Its lock is held. Raises `BlockingIOError` if the side cannot be had until *end*.
        """
        if half.relying:  # by the code that this signal handler has interrupted
            return critical(half, *arguments)
        self._users += 1
        try:
            while not self.closed:
                soon = time.monotonic() + _LONGEST_SLEEP
                until = soon if end is None else min(end, soon)
                try:
                    return half.side.run_within(until, _relying, half, critical, arguments)
                except BlockingIOError:
                    if end is not None and time.monotonic() >= end:
                        raise
                if half is self._out and self._peer_has_gone():
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            self._refuse_closed()
        finally:
            self._users -= 1
            if self.closed:
                self._give_back_memory()

    def _is_cut(self, half: Half, word: int) -> bool:
        """Return whether the other side has left in the middle of a message for good.

        *word* is its position.
        """
        if not _is_in_the_middle(half.longs[word]):
            return False
        try:
            return half.other_side.run_within(0.0, lambda: _is_in_the_middle(half.longs[word]))
        except (BlockingIOError, RuntimeError):
            return False  # it is at work, or we are looking already

    # -- sending -----------------------------------------------------------------------

    def send(self, body: Buffer, buffers: Sequence[Buffer] = (), /) -> None:
        """See `procession.plugin.Channel.send`."""
        half = self._sending()
        with half.lock:
            if half.busy:
                self._refuse_busy("sending")
            self._exclusively(half, None, self._send, body, buffers)

    def _send(self, half: Half, body: Buffer, buffers: Sequence[Buffer]) -> None:
        if self._is_broken(half):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        length = len(body)
        mark = RECORD.pack(length, len(buffers), RECORD_MARK)
        if buffers or length > _PIECE or length > half.size // 4:
            data = [memoryview(part) for part in (body, *buffers)]
            self._send_stream(half, mark, data)
            return
        packet = memoryview(b"".join((mark, body, bytes(-length % ALIGNMENT))))
        while True:
            tail = half.longs[_TAIL]
            if half.size - (tail - half.longs[_HEAD]) >= len(packet):
                break
            self._wait_for_room(half, tail, len(packet))
            if half.busy:
                self._refuse_busy("sending")
        half.copy_in(tail, packet)
        self._commit(half, tail + len(packet))

    def _is_broken(self, half: Half) -> bool:
        """Return whether nobody can receive any more; see `is_broken` in `csrc/send.c`."""
        if self._alone or half.words[_STOPPED] or _is_in_the_middle(half.longs[_TAIL]):
            return True
        left, now = half.words[_LEFT], time.monotonic()
        if left != self._left_seen or now - self._looked > _TICK:
            self._left_seen, self._looked = left, now
            self._alone = self._peer_has_gone() or self._is_cut(half, _HEAD)
        return self._alone

    def _commit(self, half: Half, tail: int) -> None:
        half.longs[_TAIL] = tail
        half.fence()
        if half.words[_ARMED]:
            half.words[_ARMED] = 0
            _ring(self._out_bell)

    def _send_stream(self, half: Half, mark: bytes, data: list[memoryview]) -> None:
        lengths = memoryview(
            b"".join(len(buffer).to_bytes(8, sys.byteorder) for buffer in data[1:])
        )
        parts = [memoryview(mark), lengths, *data]
        parts.append(memoryview(bytes(-sum(map(len, parts)) % ALIGNMENT)))
        begun = committed = position = half.longs[_TAIL]
        half.busy = True
        try:
            for part in parts:
                while part:
                    room = half.size - (position - half.longs[_HEAD])
                    if not 0 <= room <= half.size:
                        self._corrupt()
                    # A part of a mark would be nothing that a reader can begin with.
                    if room < (2 * _MARK if position == begun else 1):
                        committed = self._commit_part(half, position, committed)
                        self._wait_for_room(half, position, half.size // 4)
                        continue
                    piece = part[: min(room, _PIECE - (position - committed))]
                    part = part[len(piece) :]
                    half.copy_in(position, piece)
                    position += len(piece)
                    if position - committed >= _PIECE:
                        committed = self._commit_part(half, position, committed)
            self._commit(half, position)
        except BrokenPipeError:
            raise  # nobody will see the part; what the peer has sent can still be read
        except BaseException as error:
            # The next message would be taken for the rest of this one.
            if half.longs[_TAIL] != begun:
                self._tear(error)
            raise
        finally:
            half.busy = False

    def _commit_part(self, half: Half, position: int, committed: int) -> int:
        """Commit what there is up to *position*; return up to where it is committed then."""
        tail = _part_up_to(position)
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
            needed = _MARK + length + -length % ALIGNMENT
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
        while not self._could_begin(half, needed):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return False
            try:
                self._wait_for_room(half, half.longs[_TAIL], needed, left)
            except BrokenPipeError:
                return True
        return True

    def _could_begin(self, half: Half, needed: int) -> bool:
        # In a message, or with nobody there, a send does not wait but fails.
        if half.busy or self._is_broken(half):
            return True
        there_is: bool = half.size - (half.longs[_TAIL] - half.longs[_HEAD]) >= needed
        return there_is

    def _wait_for_room(
        self, half: Half, position: int, needed: int, longest: float | None = None
    ) -> None:
        """Return when there may be *needed* bytes of room at *position*, or soon."""
        target = position + needed - half.size
        if not position - half.longs[_HEAD] <= half.size:
            self._corrupt()
        try:
            self._peer.recv(64)
        except BlockingIOError:
            pass  # nobody had to wake us since
        if longest is None or longest > _LONGEST_SLEEP:
            longest = _LONGEST_SLEEP
        half.longs[_WANTED] = target + 1
        half.fence()
        try:
            if half.longs[_HEAD] >= target:
                return
            if (
                half.words[_STOPPED]
                or self._poll([], longest, tokens=True)
                or self._is_cut(half, _HEAD)
            ):
                self._alone = True
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            if self.closed:
                self._refuse_closed()
        finally:
            half.longs[_WANTED] = 0

    # -- receiving ---------------------------------------------------------------------

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
        """See `procession.plugin.Channel.receive`."""
        half = self._receiving()
        with half.lock:
            if half.busy:
                self._refuse_busy("receiving")
            while True:
                if half.has_data():
                    message = self._exclusively(half, None, self._receive_next, into, limit)
                    if message is not None:
                        return message
                self._await_data(half)

    def _receive_next(
        self, half: Half, into: memoryview | None, limit: int | None
    ) -> Message | None:
        """Return the next message, or None if another process was faster."""
        position = half.longs[_HEAD]
        if _is_in_the_middle(position):
            self.close()
            raise BrokenConnectionError("got end of file during message")
        available = half.longs[_TAIL] - position
        if not available:
            return None
        if not _MARK <= available <= half.size:
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
        start = position + _MARK
        end = start + length + -length % ALIGNMENT
        whole = not count and length < _LONGEST_BYTES and half.longs[_TAIL] >= end
        if not whole or into is not None:
            return self._receive_long(half, position, length, count, into)
        first = start & half.mask
        if first + length <= half.size:
            body = bytes(half.data[first : first + length])
        else:
            body = b"".join((half.data[first:], half.data[: first + length - half.size]))
        self._consume(half, end)
        return body, ()

    def _await_data(self, half: Half) -> None:
        """Wait until there may be a message; no other process is kept from it meanwhile."""
        ended = self._wait_for_data(half, None) and not half.has_data()
        if self.closed or not self.readable:
            self._refuse_closed()
        if half.busy:
            self._refuse_busy("receiving")
        if ended:
            if _is_in_the_middle(half.longs[_HEAD]):
                raise BrokenConnectionError("got end of file during message")
            raise EOFError("the other end was closed")

    def _consume(self, half: Half, head: int) -> None:
        """Give the memory up to *head* back to the writer."""
        half.longs[_HEAD] = head
        half.fence()
        wanted = half.longs[_WANTED]
        if wanted and head >= wanted - 1:
            half.longs[_WANTED] = 0
            self._wake_writer()
        if half.words[_WATCHED] and not half.has_data():
            self._settle(half)

    def _receive_long(
        self, half: Half, position: int, length: int, count: int, into: memoryview | None
    ) -> Message:
        half.busy = True
        begun = position
        try:
            position += _MARK
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
            if half.longs[_HEAD] != begun:
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
            available = half.longs[_TAIL] - position
            if not 0 <= available <= half.size:
                self._corrupt()
            if not available:
                # That is the end of a message, and by its own account there must be more.
                if not _is_in_the_middle(position):
                    self._corrupt()
                if half.longs[_HEAD] != position:
                    self._consume(half, position)
                if self._wait_for_data(half, None) and not half.has_data():
                    raise BrokenConnectionError("got end of file during message")
                if self.closed:
                    self._refuse_closed()
                continue
            piece = target[: min(available, _PIECE)]
            half.copy_out(position, piece)
            target = target[len(piece) :]
            position += len(piece)
            self._consume(half, _part_up_to(position))
        return position

    def _stop_reading(self, half: Half) -> None:
        """Make this end write-only; close it, if that is not even that."""
        if not self.writable:
            self.close()
            return
        self.readable = False
        half.words[_STOPPED] = 1
        self._wake_writer()

    def _wake_writer(self) -> None:
        try:
            self._peer.send(b"\0")
        except OSError:
            pass  # gone, or so many tokens are there that one more says nothing new

    # -- waiting -----------------------------------------------------------------------

    def _wait_for_data(self, half: Half, longest: float | None) -> bool:
        """Sleep until there may be data; return whether the peer has gone."""
        self._settle(half)
        if half.has_data():
            return False
        if self.closed:
            self._refuse_closed()
        if longest is None or longest > _LONGEST_SLEEP:
            longest = _LONGEST_SLEEP
        gone = self._poll([self._in_bell], longest)
        return gone or (not half.has_data() and self._is_cut(half, _TAIL))

    def _settle(self, half: Half) -> None:
        """Make the bell silent, and be sure that it rings for the next message."""
        words = half.words
        if not words[_ARMED]:
            if words[_WATCHED]:
                # Whoever took `armed` rings or is about to.
                self._poll([self._in_bell], _LONGEST_RINGING / 1000)
            _silence(self._in_bell)
            words[_ARMED] = 1
        half.fence()
        if half.has_data() and words[_ARMED]:
            words[_ARMED] = 0
            _ring(self._in_bell)

    def _poll(self, bells: list[int], timeout: float, *, tokens: bool = False) -> bool:
        """Wait for *bells* or the peer; return whether the peer has gone."""
        if sys.platform == "win32":
            raise OSError("waiting needs poll(), which Windows does not have")
        poller = select.poll()
        poller.register(self._peer, select.POLLIN if tokens else 0)
        for bell in bells:
            poller.register(bell, select.POLLIN)
        gone = select.POLLHUP | select.POLLERR
        peer = self._descriptors[3]
        return any(fd == peer and event & gone for fd, event in poller.poll(timeout * 1000))

    def _peer_has_gone(self) -> bool:
        return self._poll([], 0)

    def wait(self, timeout: float | None = None, /) -> bool:
        """See `procession.plugin.Channel.wait`."""
        half = self._receiving()
        end = None if timeout is None else time.monotonic() + timeout
        left = timeout
        while True:
            if half.has_data():
                return True
            if left is not None and left <= 0:
                return self._peer_has_gone() or half.has_data() or self._is_cut(half, _TAIL)
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
            half.words[_ARMED] = 1
            _silence(self._in_bell)
            half.words[_WATCHED] = 1
            self._settle(half)
        return self._epoll.fileno()

    # -- descriptors -------------------------------------------------------------------

    def descriptors(self) -> tuple[int, int, int, int]:
        """Return memory, bell in, bell out and peer; they stay this end's."""
        if self.closed:
            self._refuse_closed()
        return self._descriptors

    def close(self) -> None:
        """See `procession.plugin.Channel.close`."""
        if self.closed:
            return
        self.closed = True
        if self._pid != os.getpid():
            self._users = 0  # they are the parent's
        if self._in is not None:
            self._in.words[_LEFT] = (self._in.words[_LEFT] + 1) & 0xFFFFFFFF
            self._in.words[_ARMED] = 0
            _ring(self._in_bell)  # threads of ours that sleep look up
        # The memory goes with the last view of it, which a thread may be using.
        self._in = self._out = None
        if sys.platform == "linux" and self._epoll is not None:
            self._epoll.close()
        self._peer.close()
        for bell in (self._in_bell, self._out_bell):
            if bell >= 0:
                os.close(bell)
        self._give_back_memory()

    def _give_back_memory(self) -> None:
        """Close the file of the locks, as soon as nobody needs them."""
        if self._users > 0:
            return
        memory, in_bell, out_bell, peer = self._descriptors
        self._descriptors = (-1, in_bell, out_bell, peer)
        if memory >= 0:
            self._file.close()
            os.close(memory)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        if getattr(self, "_descriptors", None):
            self._users = 0
            self.close()
            self._give_back_memory()


def _relying(half: Half, critical: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    """Call *critical* while signal handlers can see that the side is taken."""
    half.relying = True
    try:
        return critical(half, *arguments)
    finally:
        half.relying = False


def _is_in_the_middle(position: int) -> bool:
    """Return whether a message goes on at *position*."""
    return position % ALIGNMENT != 0


def _part_up_to(position: int) -> int:
    """Return what to commit when a message is done up to *position* and not at its end.

    It is never less than what was committed before.
    """
    return position if _is_in_the_middle(position) else position - 1


def _within(timeout: float | None) -> float:
    """Return *timeout* as locks take it."""
    return -1 if timeout is None else min(max(0.0, timeout), _LONGEST_LOCKING)


def _ring(bell: int) -> None:
    try:
        os.write(bell, _ONE)
    except BlockingIOError:
        pass  # it could not be louder


def _silence(bell: int) -> None:
    try:
        os.read(bell, 8)
    except BlockingIOError:
        pass  # somebody else was faster
