"""A ring becomes larger when messages are longer than it, and never loses anything by that."""

from __future__ import annotations

import errno
import os
import struct
import sys
import threading
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("rings are a Linux thing", allow_module_level=True)

from procession.plugin import Channel, Handoff, Takeover
from procession.testing.forked import crew
from procession_ring import Ring
from procession_ring._channel import RingChannel
from procession_ring._implementation import PYTHON
from procession_ring._layout import HEADER_SIZE, OFFSETS

pytestmark = pytest.mark.once

KIB = 1024
SIZE, FULL = 16 * KIB, 64 * KIB
DEADLINE = 30


class Copied(Handoff):
    """Hands over duplicates, in this process."""

    def give(self, fd: int, /) -> int:
        """Return a duplicate of *fd*."""
        return os.dup(fd)


class Taken(Takeover):
    """Takes what `Copied` has given."""

    def take(self, token: object, /) -> int:
        """Return it: it is a descriptor."""
        assert isinstance(token, int)
        return token


class Shown(Handoff):
    """Shows the descriptors of what is exported to it."""

    def give(self, fd: int, /) -> int:
        """Return *fd* itself."""
        return fd


def small_ring() -> Ring:
    """One that can grow from `SIZE` to `FULL`."""
    ring = Ring(size=FULL)
    ring._size = SIZE
    return ring


@pytest.fixture
def both() -> Iterator[tuple[Channel, Channel]]:
    """The ends of a small pair, both ways."""
    one, other = small_ring().pair()
    yield one, other
    one.close()
    other.close()


def sizes(channel: Channel) -> tuple[int, int]:
    """How large both rings of a pair are now."""
    memory = channel.export(Shown())[0][0]
    first, second = (
        struct.unpack("=Q", os.pread(memory, 8, at + OFFSETS["size"]))[0]
        for at in (0, HEADER_SIZE + FULL)
    )
    return first, second


def reserved(channel: Channel) -> int:
    """How many bytes of memory there are."""
    return os.fstat(channel.export(Shown())[0][0]).st_blocks * 512


def pass_on(writer: Channel, reader: Channel, message: bytes) -> None:
    """Send *message* in one thread and receive it in another."""
    sender = threading.Thread(target=writer.send, args=(message[:10], [memoryview(message)[10:]]))
    sender.start()
    body, (buffer,) = reader.receive()
    sender.join(DEADLINE)
    assert message == bytes(body) + bytes(buffer)


def test_each_direction_grows_when_it_has_to(both: tuple[Channel, Channel]) -> None:
    """Memory is there from the second message on that is longer than a ring, and not before."""
    one, other = both
    header = 2 * HEADER_SIZE
    assert reserved(one) == header + 2 * SIZE
    for _ in range(100):
        one.send(bytes(SIZE // 4))
        other.receive()
    assert sizes(one) == (SIZE, SIZE)
    assert reserved(one) == header + 2 * SIZE
    pass_on(other, one, os.urandom(3 * SIZE))  # a single one is not worth the memory
    assert sizes(one) == (SIZE, SIZE)
    assert reserved(one) == header + 2 * SIZE
    pass_on(other, one, os.urandom(3 * SIZE))
    assert sizes(one) == sizes(other) == (FULL, SIZE)
    assert reserved(one) == header + FULL + SIZE
    pass_on(one, other, os.urandom(33 * SIZE))  # unless it is very long
    assert sizes(one) == (FULL, FULL)
    for length in (0, 100, SIZE, FULL - 16, FULL, 5 * FULL + 3):
        pass_on(one, other, os.urandom(length))
        pass_on(other, one, os.urandom(length))
    assert reserved(one) == header + 2 * FULL


def test_what_waits_is_received_before(both: tuple[Channel, Channel]) -> None:
    """Nothing is sent into the larger ring before all of the smaller one was received."""
    one, other = both
    for round_ in range(5):  # each begins elsewhere in the ring
        one, other = both if not round_ else small_ring().pair()
        for _ in range(round_):
            one.send(bytes(3 * KIB + round_))
            other.receive()
        waiting = [os.urandom(2 * KIB) for _ in range(7)]
        for message in waiting:
            one.send(message)
        long = os.urandom(9 * FULL)
        sender = threading.Thread(target=one.send, args=(long,))
        sender.start()
        assert [bytes(other.receive()[0]) for _ in waiting] == waiting
        assert long == bytes(other.receive()[0])
        sender.join(DEADLINE)
        assert sizes(one)[1] == FULL or sizes(one)[0] == FULL
        if round_:
            one.close()
            other.close()


def test_ends_that_were_there_before_learn_of_it(both: tuple[Channel, Channel]) -> None:
    """Other processes have the same ends, and did not see the ring grow."""
    one, other = both
    writers = [one] + [RingChannel.attach(one.export(Copied()), Taken()) for _ in range(2)]
    readers = [other] + [RingChannel.attach(other.export(Copied()), Taken()) for _ in range(2)]
    for number, reader in enumerate(readers):
        writers[0].send(bytes([number]) * 3000)  # so that each has looked at the small one
        assert bytes([number]) * 3000 == bytes(reader.receive()[0])
    pass_on(writers[0], readers[0], os.urandom(9 * FULL))
    for writer in reversed(writers):
        for reader in reversed(readers):
            for length in (100, 5000, 2 * SIZE, 2 * FULL):
                pass_on(writer, reader, os.urandom(length))
    late = RingChannel.attach(other.export(Copied()), Taken())
    for _ in range(10):
        pass_on(one, late, os.urandom(20_000))
    for end in (*writers[1:], *readers[1:], late):
        end.close()


def test_a_peer_that_goes_before_it_can_grow(both: tuple[Channel, Channel]) -> None:
    """Whoever waits until all was received learns that nobody will."""
    one, other = both

    def send() -> None:
        other.close()
        one.send(b"waits")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            one.send(bytes(9 * FULL))

    with crew() as fork:
        process = fork(send)
        one.close()
        assert other.wait(DEADLINE)
        process.await_sleep()
        other.close()
        assert process.join() == 0


def test_without_memory_it_stays_as_it_is(
    both: tuple[Channel, Channel], implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages are streamed through what there is."""
    if implementation != PYTHON:
        pytest.skip("the C library cannot be told to have no memory")
    one, other = both

    def fail(fd: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "no memory")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    for _ in range(3):
        pass_on(one, other, os.urandom(3 * FULL))
    assert sizes(one) == (SIZE, SIZE)
