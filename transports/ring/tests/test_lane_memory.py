"""Memory that runs out while packets are taken."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable

import pytest

if sys.platform != "linux":
    pytest.skip("rings are a Linux thing", allow_module_level=True)

from procession.testing import shortage
from procession.testing.forked import crew
from procession_ring._lane import RingLane

PACKETS = 120
LENGTH = 60_000
#: How many there is memory for when it is short.
FREE = 20


def numbers_of(taken: list[bytes]) -> list[int]:
    """Return which packets these are."""
    return [int.from_bytes(packet[:4], "little") for packet in taken]


def take_one(lane: RingLane) -> list[bytes]:
    """Take one as `get` of a mailbox does."""
    packet = lane.receive()
    return [packet[0]] if packet else []


def take_padded(lane: RingLane) -> list[bytes]:
    """Take one as `get` of a queue does."""
    packet = lane.receive_padded()
    return [packet] if packet else []


def take_some(lane: RingLane) -> list[bytes]:
    """Take several at once."""
    return lane.receive_many(7)


@pytest.mark.parametrize("take", [take_one, take_padded, take_some])
def test_what_finds_no_memory_stays_in_the_lane(
    take: Callable[[RingLane], list[bytes]],
) -> None:
    """A `MemoryError` takes nothing along: with memory again, the next packet is the next one."""
    lane = RingLane.create(16 << 20)
    for number in range(PACKETS):
        assert lane.send(number.to_bytes(4, "little") + bytes(LENGTH))

    def receive() -> None:
        taken: list[bytes] = []
        fillers: list[bytes] = []
        with open("/proc/self/statm", encoding="ascii") as file:
            in_use = int(file.read().split()[0]) * resource.getpagesize()
        failures = 0
        with shortage.limited(resource.RLIMIT_AS, in_use):
            try:
                while True:
                    fillers.append(bytes(LENGTH))
            except MemoryError:
                del fillers[-FREE:]
            while failures < 3:
                try:
                    more = take(lane)
                except MemoryError:
                    failures += 1
                else:
                    assert more, "memory was never short"
                    taken += more
        while more := take(lane):
            taken += more
        assert list(range(PACKETS)) == numbers_of(taken)

    with crew() as fork:
        assert 0 == fork(receive).join()
    lane.close()


def test_many_who_take_batches_take_each_packet_once() -> None:
    """Memory is made for packets that others may take first; then it is for the next ones."""
    lane = RingLane.create(1 << 16)
    total, takers = 20_000, 4
    results = RingLane.create(1 << 20)

    def consume() -> None:
        taken: list[int] = []
        last = False
        while not last:
            for packet in lane.receive_many(11):
                if packet[:4] == b"\xff" * 4:
                    last = True
                    assert lane.send(packet[:-1])  # for the next one
                else:
                    taken.append(int.from_bytes(packet[:4], "little"))
        assert taken == sorted(taken)
        for start in range(0, len(taken), 1000):
            part = taken[start : start + 1000]
            assert results.send(b"".join(number.to_bytes(4, "little") for number in part))

    with crew() as fork:
        processes = [fork(consume) for _ in range(takers)]
        for number in range(total):
            packet = number.to_bytes(4, "little") + bytes(number % 97)
            while not lane.send(packet):
                pass
        while not lane.send(b"\xff" * 4):
            pass
        assert [0] * takers == [process.join() for process in processes]
    everything: list[int] = []
    while (result := results.receive()) is not None:
        data = result[0]
        everything += [
            int.from_bytes(data[start : start + 4], "little") for start in range(0, len(data), 4)
        ]
    assert list(range(total)) == sorted(everything)
    results.close()
    lane.close()
