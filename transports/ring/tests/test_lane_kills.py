"""Processes killed with SIGKILL at random points while they use one lane, or one connection.

Each case prints its seed when it fails; ``PROCESSION_SEED`` replays it, and ``PROCESSION_KILLS``
sets how many processes are killed in each case.
"""

from __future__ import annotations

import mmap
import os
import random
import select
import struct
import sys
from collections import Counter
from collections.abc import Callable

import pytest

if sys.platform != "linux":
    pytest.skip("rings are a Linux thing", allow_module_level=True)

from procession.plugin import Channel, PacketMailbox
from procession.testing.forked import DEADLINE, Forked, crew
from procession_ring import Ring
from procession_ring._implementation import NATIVE
from procession_ring._lane import RingLane

pytestmark = pytest.mark.once

KILLS = int(os.environ.get("PROCESSION_KILLS", "10"))
USERS = 3
#: Messages that are put, or got, together.
BATCH = 7
SMALL = (0, 10, 490, 3000)
LARGE = (0, 10, 3000, 40_000, 70_000, 200_000)
_NUMBERS = struct.Struct("=QQ")
_ROOM = 1 << 22


class Journal:
    """What one worker has done, in memory that outlives it: pairs of numbers, in order."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, _ROOM)
        self._count = memoryview(self._map).cast("Q")[:1]

    def __len__(self) -> int:
        return int(self._count[0])

    def add(self, first: int, second: int) -> None:
        """Append a pair; a process killed at any point has added it or not."""
        count = self._count[0]
        _NUMBERS.pack_into(self._map, 16 + count * _NUMBERS.size, first, second)
        self._count[0] = count + 1

    def pairs(self) -> list[tuple[int, int]]:
        """Return all pairs."""
        return list(_NUMBERS.iter_unpack(self._map[16 : 16 + len(self) * _NUMBERS.size]))

    def close(self) -> None:
        """Free the memory."""
        self._count.release()
        self._map.close()


def body(producer: int, number: int, sizes: tuple[int, ...]) -> bytes:
    """A message that shows whether it is whole."""
    size = sizes[(producer * 31 + number * 7) % len(sizes)]
    return _NUMBERS.pack(producer, number) + bytes([number & 255]) * size


def check(message: bytes, sizes: tuple[int, ...]) -> tuple[int, int]:
    """Return producer and number of *message*, which must be whole."""
    producer, number = _NUMBERS.unpack_from(message)
    assert body(producer, number, sizes) == message
    return producer, number


def check_padded(message: bytes, sizes: tuple[int, ...]) -> tuple[int, int]:
    """The same of a message behind which a byte may follow."""
    producer, number = _NUMBERS.unpack_from(message)
    whole = body(producer, number, sizes)
    assert whole == message[: len(whole)]
    assert len(message) <= len(whole) + 1
    return producer, number


@pytest.fixture
def chance() -> random.Random:
    """The source of chance, whose seed is shown when the test fails."""
    seed = int(os.environ.get("PROCESSION_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"replay with PROCESSION_SEED={seed}")
    return random.Random(seed)


def compare(
    put: dict[int, Journal], got: list[list[tuple[int, int]]], may_miss: int, batch: int = 1
) -> None:
    """Every accepted message was taken once, in its producer's order, but for a few."""
    everything = Counter(pair for sequence in got for pair in sequence)
    assert [] == [pair for pair, times in everything.items() if times > 1]
    accepted = {pair for journal in put.values() for pair in journal.pairs()}
    lost = accepted - set(everything)
    assert len(lost) <= may_miss, sorted(lost)
    for producer, number in set(everything) - accepted:
        # Its producer was killed in put: the message may be there, but only of that batch.
        assert len(put[producer]) <= number < len(put[producer]) + batch
    for sequence in got:
        last: dict[int, int] = {}
        for producer, number in sequence:
            assert last.get(producer, -1) < number
            last[producer] = number
    assert everything


@pytest.mark.parametrize(
    ("maxsize", "joinable", "size", "sizes"),
    [
        pytest.param(0, False, 1 << 20, SMALL, id="unbounded"),
        pytest.param(0, False, 1 << 14, SMALL, id="overflowing"),
        pytest.param(5, True, 1 << 16, LARGE, id="bounded-counted-large"),
    ],
)
def test_killed_users_of_a_mailbox(
    chance: random.Random, maxsize: int, joinable: bool, size: int, sizes: tuple[int, ...]
) -> None:
    """Whoever is killed, what put accepted is taken once, in order, but for one per dead getter."""
    mailbox = PacketMailbox(RingLane.create(size), maxsize=maxsize, joinable=joinable)
    put: dict[int, Journal] = {}
    got: list[Journal] = []
    stop, stopper = os.pipe()

    def produce(producer: int, journal: Journal) -> None:
        number = 0
        while not select.select([stop], [], [], 0)[0]:
            mailbox.put(body(producer, number, sizes), timeout=DEADLINE)
            journal.add(producer, number)
            number += 1

    def consume(journal: Journal) -> None:
        while True:
            message, _ = mailbox.get(timeout=DEADLINE)
            journal.add(*check(bytes(message), sizes))

    killed_getters = USERS
    with crew() as fork:

        def producer() -> Forked:
            number = len(put)
            journal = put[number] = Journal()
            return fork(lambda: produce(number, journal))

        def consumer() -> Forked:
            journal = Journal()
            got.append(journal)
            return fork(lambda: consume(journal))

        producers = [producer() for _ in range(USERS)]
        consumers = [consumer() for _ in range(USERS)]
        for _ in range(KILLS):
            select.select([], [], [], chance.random() * 0.004)
            if chance.random() < 0.5:
                producers.pop(chance.randrange(USERS)).kill()
                producers.append(producer())
            else:
                consumers.pop(chance.randrange(USERS)).kill()
                consumers.append(consumer())
                killed_getters += 1
        os.write(stopper, b"x")
        assert [0] * USERS == [each.join() for each in producers]
        for each in consumers:
            each.kill()
    rest = [check(bytes(mailbox.get(timeout=0)[0]), sizes) for _ in range(mailbox.size())]
    assert 0 == mailbox.size()
    compare(put, [*(journal.pairs() for journal in got), rest], killed_getters)
    mailbox.close()
    os.close(stop)
    os.close(stopper)
    for journal in [*put.values(), *got]:
        journal.close()


@pytest.mark.parametrize(("maxsize", "size"), [(0, 1 << 14), (20, 1 << 16)])
def test_killed_users_of_batches(chance: random.Random, maxsize: int, size: int) -> None:
    """A dead producer has put the beginning of a batch, and a dead getter takes one along."""
    mailbox = PacketMailbox(RingLane.create(size), maxsize=maxsize)
    put: dict[int, Journal] = {}
    got: list[Journal] = []
    stop, stopper = os.pipe()

    def produce(producer: int, journal: Journal) -> None:
        number = 0
        while not select.select([stop], [], [], 0)[0]:
            batch = [(body(producer, number + more, SMALL), ()) for more in range(BATCH)]
            for _ in range(mailbox.put_many(batch, timeout=DEADLINE)):
                journal.add(producer, number)
                number += 1

    def consume(journal: Journal) -> None:
        while True:
            for message, _ in mailbox.get_many(BATCH, timeout=DEADLINE):
                journal.add(*check_padded(bytes(message), SMALL))

    killed_getters = USERS
    with crew() as fork:

        def producer() -> Forked:
            number = len(put)
            journal = put[number] = Journal()
            return fork(lambda: produce(number, journal))

        def consumer() -> Forked:
            journal = Journal()
            got.append(journal)
            return fork(lambda: consume(journal))

        producers = [producer() for _ in range(USERS)]
        consumers = [consumer() for _ in range(USERS)]
        for _ in range(KILLS):
            select.select([], [], [], chance.random() * 0.004)
            if chance.random() < 0.5:
                producers.pop(chance.randrange(USERS)).kill()
                producers.append(producer())
            else:
                consumers.pop(chance.randrange(USERS)).kill()
                consumers.append(consumer())
                killed_getters += 1
        os.write(stopper, b"x")
        assert [0] * USERS == [each.join() for each in producers]
        for each in consumers:
            each.kill()
    rest = [check(bytes(mailbox.get(timeout=0)[0]), SMALL) for _ in range(mailbox.size())]
    compare(put, [*(journal.pairs() for journal in got), rest], BATCH * killed_getters, BATCH)
    mailbox.close()
    os.close(stop)
    os.close(stopper)
    for journal in [*put.values(), *got]:
        journal.close()


def test_copying(implementation: str) -> None:
    """What large messages of queues are copied with: lengths must agree, places may overlap."""
    lane = RingLane.create(1 << 14)
    if implementation == NATIVE:
        assert lane.copy is not None
        for size in (0, 5, 100_000):
            memory = bytearray(os.urandom(size + 3))
            wanted = bytes(memory[:size])
            lane.copy(memoryview(memory)[3:], memoryview(memory)[:size])
            assert wanted == memory[3:]
        # Around the length from which on it is copied otherwise, however the two are aligned.
        source = os.urandom(17_000)
        for size in (16_383, 16_384, 16_385, 16_447, 16_900):
            for place, start in ((0, 0), (1, 0), (0, 1), (63, 16), (17, 63), (64, 5)):
                target = bytearray(17_000)
                lane.copy(
                    memoryview(target)[place : place + size],
                    memoryview(source)[start : start + size],
                )
                assert source[start : start + size] == target[place : place + size]
                assert not any(target[:place])
                assert not any(target[place + size :])
        with pytest.raises(ValueError, match="3 bytes cannot be copied to where 4 are"):
            lane.copy(bytearray(4), b"abc")
        with pytest.raises(BufferError):
            lane.copy(b"abc", b"abc")
    else:
        assert lane.copy is None
    lane.close()


def test_a_batch_goes_as_far_as_there_is_room() -> None:
    """The first packets are sent, and received at most so many at a time, each with its kind."""
    lane = RingLane.create(1 << 14)
    packets = [bytes([number]) * 900 for number in range(30)]
    sent = lane.send_many(packets)
    assert 0 < sent < len(packets)
    assert 0 == lane.send_many(packets)
    assert sent == lane.pending()
    assert [packet + b"\0" for packet in packets[:5]] == lane.receive_many(5)
    assert (packets[5], 0) == lane.receive()
    assert lane.send(b"other", 1)
    rest = lane.receive_many(1000)
    assert [*(packet + b"\0" for packet in packets[6:sent]), b"other\x80"] == rest
    assert [] == lane.receive_many(1)
    assert 0 == lane.send_many([])
    with pytest.raises(ValueError, match=f"longest has {lane.limit}"):
        lane.send_many([b"short", bytes(lane.limit + 1)])
    assert 0 == lane.pending()
    lane.close()


def test_killed_users_of_the_bare_lane(chance: random.Random) -> None:
    """The lane itself goes on, too, when its locks are what everybody fights for."""
    lane = RingLane.create(1 << 14)
    put: dict[int, Journal] = {}
    got: list[Journal] = []
    stop, stopper = os.pipe()
    sizes = (0, 5, 100, 1000)

    def produce(producer: int, journal: Journal) -> None:
        number = 0
        while not select.select([stop], [], [], 0)[0]:
            packet = body(producer, number, sizes)
            while not lane.send(packet, number & 1):
                os.sched_yield()
            journal.add(producer, number)
            number += 1

    def consume(journal: Journal) -> None:
        while True:
            packet = lane.receive()
            if packet is not None:
                pair = check(packet[0], sizes)
                assert packet[1] == pair[1] & 1
                journal.add(*pair)

    killed_getters = 2
    with crew() as fork:

        def producer() -> Forked:
            number = len(put)
            journal = put[number] = Journal()
            return fork(lambda: produce(number, journal))

        def consumer() -> Forked:
            journal = Journal()
            got.append(journal)
            return fork(lambda: consume(journal))

        producers = [producer() for _ in range(2)]
        consumers = [consumer() for _ in range(2)]
        for _ in range(KILLS):
            select.select([], [], [], chance.random() * 0.003)
            assert 0 <= lane.pending() <= (1 << 14) // 16
            if chance.random() < 0.5:
                producers.pop(chance.randrange(2)).kill()
                producers.append(producer())
            else:
                consumers.pop(chance.randrange(2)).kill()
                consumers.append(consumer())
                killed_getters += 1
        os.write(stopper, b"x")
        assert [0] * 2 == [each.join() for each in producers]
        for each in consumers:
            each.kill()
    rest = []
    for left in range(lane.pending(), 0, -1):
        assert left == lane.pending()
        packet = lane.receive()
        assert packet is not None
        rest.append(check(packet[0], sizes))
    assert lane.receive() is None
    compare(put, [*(journal.pairs() for journal in got), rest], killed_getters)
    lane.close()
    os.close(stop)
    os.close(stopper)
    for journal in [*put.values(), *got]:
        journal.close()


def _send_until_killed(channel: Channel, journal: Journal) -> None:
    number = 0
    while True:
        message = body(0, number, LARGE)
        if number % 3 == 0:
            channel.send(message[:16], [memoryview(message)[16:]])
        else:
            channel.send(message)
        journal.add(0, number)
        number += 1


def _receive_next(channel: Channel, received: list[int]) -> None:
    """Receive the message after those that were received, whole."""
    number = len(received)
    message, buffers = channel.receive()
    whole = body(0, number, LARGE)
    if number % 3 == 0:
        assert [whole[:16], whole[16:]] == [bytes(message), *map(bytes, buffers)]
    else:
        assert whole == bytes(message)
    received.append(number)


def _receive_all(channel: Channel, received: list[int]) -> None:
    while True:
        _receive_next(channel, received)


def _ring(chance: random.Random) -> Ring:
    """A ring that grows with its first longer message, or is so large from the beginning."""
    ring = Ring(size=1 << 16)
    ring._size >>= chance.choice((0, 2))
    return ring


def test_a_sender_killed_anywhere(chance: random.Random) -> None:
    """What was sent whole is received, then the end; a part of a message is never taken for one."""
    for _ in range(KILLS):
        receiver, sender = _ring(chance).pair(duplex=bool(chance.getrandbits(1)))
        journal = Journal()
        received: list[int] = []

        def run(
            sender: Channel = sender, receiver: Channel = receiver, journal: Journal = journal
        ) -> None:
            receiver.close()
            _send_until_killed(sender, journal)

        with crew() as fork:
            process = fork(run)
            sender.close()
            for _ in range(chance.randrange(200)):
                _receive_next(receiver, received)
            process.kill()
            with pytest.raises((EOFError, OSError)) as caught:
                _receive_all(receiver, received)
        count = len(received)
        if isinstance(caught.value, OSError):
            assert "got end of file during message" in str(caught.value)
        # The last one may be there although its sender had not noted it yet.
        assert len(journal) in (count, count - 1)
        journal.close()
        receiver.close()


def _receive_until_killed(channel: Channel) -> None:
    while True:
        channel.receive()


def test_a_receiver_killed_anywhere(chance: random.Random) -> None:
    """Whoever sends learns of it, also while waiting for room."""
    for _ in range(KILLS):
        receiver, sender = _ring(chance).pair(duplex=bool(chance.getrandbits(1)))

        def run(sender: Channel = sender, receiver: Channel = receiver) -> None:
            sender.close()
            _receive_until_killed(receiver)

        with crew() as fork:
            process = fork(run)
            receiver.close()
            for number in range(chance.randrange(100)):
                sender.send(body(0, number, LARGE))
            process.kill()
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                _send_for_ever(sender)
        sender.close()


def _send_for_ever(channel: Channel) -> None:
    number = 0
    while True:
        channel.send(body(0, number, LARGE))
        number += 1


def test_the_reader_s_death_is_seen_at_the_next_send_after_a_tick() -> None:
    """A sender with room to spare does not go on for ever without looking."""
    receiver, sender = Ring().pair(duplex=False)
    with crew() as fork:
        ready, told = os.pipe()

        def run() -> None:
            sender.close()
            os.write(told, b"x")
            _receive_until_killed(receiver)

        process = fork(run)
        receiver.close()
        os.read(ready, 1)
        sender.send(b"alive")
        process.kill()
        _until_broken(lambda: sender.send(b"dead"))
    sender.close()
    os.close(ready)
    os.close(told)


def _until_broken(send: Callable[[], None]) -> None:
    """Send at most as often as a clock of 100 Hz cannot miss, a little at a time."""
    with pytest.raises(BrokenPipeError):
        _send_slowly(send)


def _send_slowly(send: Callable[[], None]) -> None:
    for _ in range(100):
        send()
        select.select([], [], [], 0.001)
