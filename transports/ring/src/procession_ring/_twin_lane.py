"""The pure-Python twin of the compiled lane: the same memory, but locks of the kernel's files.

So one lane is used by one kind only; which one made it is written in its header.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys

from procession.plugin import LockFile

from ._layout import (
    ALIGNMENT,
    BEGINNING,
    FOREIGN_LOCKS,
    HEADER_SIZE,
    LANE_MAGIC,
    LANE_OFFSETS,
)

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    T = TypeVar("T")

_LOCK_SIZE, _TAIL, _HEAD = (LANE_OFFSETS[name] // 8 for name in ("lock_size", "tail", "head"))
_ARMED, _WATCHED = (LANE_OFFSETS[name] // 4 for name in ("armed", "watched"))
_PACKET = struct.Struct("=II")
_HALF = 0xFFFFFFFF
_ONE = (1).to_bytes(8, sys.byteorder)
_LONGEST = 64 << 10


class TwinLane:
    """Packets in shared memory; takes over the descriptors if it can be made."""

    __slots__ = (
        "_bell",
        "_data",
        "_file",
        "_getting",
        "_longs",
        "_mask",
        "_memory",
        "_putting",
        "_size",
        "_words",
        "limit",
    )

    def __init__(self, memory: int, bell: int, create: bool, /) -> None:
        self._memory = -1  # as long as nothing is ours
        view = memoryview(mmap.mmap(memory, 0))
        magic, size = BEGINNING.unpack_from(view)
        if magic != LANE_MAGIC or size & (size - 1) or not 0 < size <= len(view) - HEADER_SIZE:
            raise OSError("not the memory of a ring, or of another version of it")
        self._longs = view[:HEADER_SIZE].cast("Q")
        self._words = view[:HEADER_SIZE].cast("I")
        if self._longs[_LOCK_SIZE]:
            raise OSError(FOREIGN_LOCKS)
        self._data = view[HEADER_SIZE : HEADER_SIZE + size]
        self._size, self._mask = size, size - 1
        self.limit = min(size // 4, _LONGEST)
        self._file = LockFile(memory)
        self._putting = self._file.lock(0)
        self._getting = self._file.lock(1)
        self._memory, self._bell = memory, bell

    def send(self, packet: bytes, kind: int = 0, /) -> bool:
        """See `procession.plugin.Lane.send`."""
        if kind not in (0, 1):
            raise ValueError(f"a packet is of kind 0 or 1, not {kind}")
        self._check_open()
        self._check_lengths((packet,))
        return self._putting.run(self._put, (packet,), kind) == 1

    def send_many(self, packets: Sequence[bytes], /) -> int:
        """See `procession.plugin.Lane.send_many`."""
        self._check_open()
        self._check_lengths(packets)
        return self._putting.run(self._put, packets, 0)

    def _put(self, packets: Sequence[bytes], kind: int) -> int:
        """Put as many as there is room for; one store commits them all."""
        before, head = self._longs[_TAIL], self._longs[_HEAD]
        tail = before
        put = 0
        for packet in packets:
            needed = _aligned(_PACKET.size + len(packet))
            if self._size - self._used(tail, head) < needed:
                break
            record = memoryview(b"".join((_PACKET.pack(len(packet), kind), packet)))
            start = (tail & _HALF) * ALIGNMENT & self._mask
            first = min(len(record), self._size - start)
            self._data[start : start + first] = record[:first]
            self._data[: len(record) - first] = record[first:]
            tail = _advance(tail, needed)
            put += 1
        if put:
            self._longs[_TAIL] = tail
            # The lock of the file is a system call, and whoever settles makes one, too: no
            # store can stay unseen.
            if self._words[_ARMED]:
                self._words[_ARMED] = 0
                os.write(self._bell, _ONE)
            elif self._words[_WATCHED] and self._longs[_HEAD] == before:
                # As in `csrc`: whoever took `armed` may have been killed before it rang.
                os.write(self._bell, _ONE)
        return put

    def receive(self) -> tuple[bytes, int] | None:
        """See `procession.plugin.Lane.receive`."""
        taken = self._receive(1, _pair)
        return taken[0] if taken else None

    def receive_padded(self) -> bytes | None:
        """See `procession.plugin.Lane.receive_padded`."""
        taken = self.receive_many(1)
        return taken[0] if taken else None

    def receive_many(self, most: int, /) -> list[bytes]:
        """See `procession.plugin.Lane.receive_many`."""
        return self._receive(most, _padded)

    def _receive(self, most: int, shape: Callable[[bytes, int], T]) -> list[T]:
        self._check_open()
        if self._longs[_TAIL] == self._longs[_HEAD] and not self._words[_WATCHED]:
            return []
        return self._getting.run(self._get, most, shape)

    def _get(self, most: int, shape: Callable[[bytes, int], T]) -> list[T]:
        """Take as many as are wanted and there; one store commits that, when all are made."""
        head, tail = self._longs[_HEAD], self._longs[_TAIL]
        taken: list[T] = []
        while len(taken) < most and head != tail:
            full = self._used(tail, head)
            start = (head & _HALF) * ALIGNMENT & self._mask
            length, kind = _PACKET.unpack_from(self._data, start)
            end = start + _PACKET.size + length
            if length > self.limit or _aligned(_PACKET.size + length) > full:
                if taken:
                    break  # what came before is good, and the next call comes to this
                raise OSError("bad packet: the memory of the ring is corrupt")
            packet = bytes(self._data[start + _PACKET.size : end])
            if end > self._size:
                packet += self._data[: length - len(packet)]
            taken.append(shape(packet, kind & 1))
            head = _advance(head, _aligned(_PACKET.size + length))
        if taken:
            self._longs[_HEAD] = head
        # Also when nothing was there, as the bell may have rung in vain.
        if self._words[_WATCHED]:
            self._settle()
        return taken

    def pending(self) -> int:
        """See `procession.plugin.Lane.pending`."""
        self._check_open()
        longs = self._longs
        while True:
            head = longs[_HEAD]
            tail = longs[_TAIL]
            if longs[_HEAD] == head:
                # When we looked at the tail, the head was this one.
                return ((tail >> 32) - (head >> 32)) & _HALF

    def fileno(self) -> int:
        """See `procession.plugin.Lane.fileno`."""
        self._check_open()
        if not self._words[_WATCHED]:
            self._words[_WATCHED] = 1
            self._words[_ARMED] = 1  # nobody has rung before
            self._getting.run(self._settle)
        return self._bell

    def _settle(self) -> None:
        """With the getters' lock: make the bell silent, and ring if there is a packet."""
        if self._longs[_TAIL] != self._longs[_HEAD]:
            if not self._words[_ARMED]:
                return
        else:
            try:
                os.read(self._bell, 8)
            except BlockingIOError:
                pass  # it was silent
            self._words[_ARMED] = 1
            # A putter that has not seen this yet holds its lock: look after it.
            self._putting.run(_nothing)
        if self._longs[_TAIL] != self._longs[_HEAD] and self._words[_ARMED]:
            self._words[_ARMED] = 0
            os.write(self._bell, _ONE)

    def descriptors(self) -> tuple[int, int]:
        """Return memory and bell; they stay this lane's."""
        self._check_open()
        return self._memory, self._bell

    def close(self) -> None:
        """See `procession.plugin.Lane.close`."""
        memory, self._memory = self._memory, -1
        if memory >= 0:
            self._file.close()
            os.close(memory)
            os.close(self._bell)
            # The mapping goes with the last view of it.
            self._data = self._longs = self._words = memoryview(b"")

    def _used(self, tail: int, head: int) -> int:
        full = ((tail - head) & _HALF) * ALIGNMENT
        if full > self._size:
            raise OSError("bad packet: the memory of the ring is corrupt")
        return full

    def _check_lengths(self, packets: Sequence[bytes]) -> None:
        longest = max(map(len, packets), default=0)
        if longest > self.limit:
            raise ValueError(f"the packet has {longest} bytes, and the longest has {self.limit}")

    def _check_open(self) -> None:
        if self._memory < 0:
            raise OSError("the lane is closed")

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        if getattr(self, "_memory", -1) >= 0:
            self.close()


def _aligned(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def _advance(word: int, size: int) -> int:
    """Return *word* with one more packet counted and its place *size* bytes further."""
    count = ((word >> 32) + 1) & _HALF
    return count << 32 | (word + size // ALIGNMENT) & _HALF


def _pair(packet: bytes, kind: int) -> tuple[bytes, int]:
    return packet, kind


def _padded(packet: bytes, kind: int) -> bytes:
    return packet + (b"\x80" if kind else b"\0")


def _nothing() -> None:
    pass
