"""Processes killed with SIGKILL at random points while they use one mailbox.

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
from queue import Empty

import pytest

if sys.platform != "linux":
    pytest.skip("packet pipes are a Linux thing", allow_module_level=True)

import fcntl

from procession._ground.handoff import Handoff
from procession._mailboxes import packet_bulk, packet_relay
from procession._mailboxes.mailbox_state import TAKEN
from procession._mailboxes.packet_lane import PacketLane
from procession._mailboxes.packet_mailbox import PacketMailbox
from procession._mailboxes.spool import WINDOW
from procession._messages.lookout import has_ordered_stores
from procession.testing.forked import DEADLINE, Forked, crew
from procession.testing.killing import Journal, chosen_seed

pytestmark = pytest.mark.once

KILLS = int(os.environ.get("PROCESSION_KILLS", "60"))
PRODUCERS, CONSUMERS = 3, 3
KIBI = 1024
_NUMBERS = struct.Struct("=QQ")


def small_lane(slots: int) -> PacketLane:
    """A lane so short that the log is used all the time."""
    reader, writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, slots * mmap.PAGESIZE)
    return PacketLane(reader, writer)


def body(producer: int, number: int, sizes: tuple[int, ...]) -> bytes:
    """A message that shows whether it is whole."""
    head = _NUMBERS.pack(producer, number)
    size = sizes[(producer * 31 + number * 7) % len(sizes)]
    return head + bytes([number & 255]) * size


def check(message: bytes, sizes: tuple[int, ...]) -> tuple[int, int]:
    """Return producer and number of *message*, which must be whole."""
    producer, number = _NUMBERS.unpack_from(message)
    assert body(producer, number, sizes) == message
    return producer, number


def produce(
    mailbox: PacketMailbox, producer: int, journal: Journal, stop: int, sizes: tuple[int, ...]
) -> None:
    """Put messages until *stop* is readable, noting each that put has accepted."""
    number = 0
    while not select.select([stop], [], [], 0)[0]:
        mailbox.put(body(producer, number, sizes), timeout=DEADLINE)
        journal.add(producer, number)
        number += 1


def consume(mailbox: PacketMailbox, journal: Journal, sizes: tuple[int, ...], count: bool) -> None:
    """Take messages for ever, noting each."""
    while True:
        message, _ = mailbox.get(timeout=DEADLINE)
        journal.add(*check(bytes(message), sizes))
        if count:
            mailbox.task_done()


SMALL = (0, 10, 490, 600)
LARGE = (0, 10, 3000, 5000, 60 * KIBI, 70 * KIBI, 200 * KIBI)


# Most of them are passed from hand to hand, in `test_killed_users_of_what_passes`.
PASSED = (0, 100 * KIBI, 130 * KIBI, 200 * KIBI, 300 * KIBI)


@pytest.mark.parametrize(
    ("maxsize", "joinable", "slots", "sizes"),
    [
        pytest.param(0, False, 64, SMALL, id="unbounded"),
        pytest.param(0, False, 1, SMALL, id="overflowing"),
        pytest.param(0, False, 4, LARGE, id="large"),
        pytest.param(5, False, 4, SMALL, id="bounded"),
        pytest.param(7, True, 2, LARGE, id="bounded-counted-large"),
        pytest.param(0, True, 4, SMALL, id="counted"),
    ],
)
def test_killed_users(maxsize: int, joinable: bool, slots: int, sizes: tuple[int, ...]) -> None:
    """Whoever is killed, what put accepted is taken once, in order, but for one per dead getter."""
    seed = chosen_seed()
    try:
        Trial(seed, maxsize, joinable, slots, sizes).run()
    except BaseException:
        print(f"replay with PROCESSION_SEED={seed}")
        raise


@pytest.mark.skipif(not has_ordered_stores(), reason="nothing passes on this processor")
@pytest.mark.parametrize(
    ("maxsize", "joinable", "producers"), [(0, False, 1), (0, True, 3), (2, False, 2)]
)
def test_killed_users_of_what_passes(
    monkeypatch: pytest.MonkeyPatch, maxsize: int, joinable: bool, producers: int
) -> None:
    """The same for messages that getters read while they are written."""
    monkeypatch.setattr(packet_bulk, "SHORTEST_PASSED", 90 * KIBI)
    monkeypatch.setattr(packet_relay, "CIRCLE", 64 * KIBI)
    monkeypatch.setattr(packet_relay, "PIECE", 16 * KIBI)
    monkeypatch.setattr(packet_relay, "BYTES_OF_WORTH", KIBI)
    monkeypatch.setattr(packet_relay, "REST", 1)
    seed = chosen_seed()
    try:
        trial = Trial(seed, maxsize, joinable, 64, PASSED, producers)
        trial.run()
    except BaseException:
        print(f"replay with PROCESSION_SEED={seed}")
        raise
    assert trial.passed


class Descriptors(Handoff):
    """Shows the descriptors of what is exported to it."""

    def give(self, fd: int, /) -> int:
        """Return *fd* itself."""
        return fd


class Trial:
    """One mailbox, a crew that uses it, and a killer."""

    def __init__(
        self,
        seed: int,
        maxsize: int,
        joinable: bool,
        slots: int,
        sizes: tuple[int, ...],
        producers: int = PRODUCERS,
    ) -> None:
        self.chance = random.Random(seed)
        self.producers = producers
        #: How often the last large message was one that had passed, of all looks.
        self.passed = 0
        self.sizes = sizes
        self.joinable = joinable
        self.mailbox = PacketMailbox(small_lane(slots), maxsize=maxsize, joinable=joinable)
        self.put: dict[int, Journal] = {}
        self.got: list[Journal] = []
        self.killed_getters = 0
        self.stop, self.stopper = os.pipe()

    def run(self) -> None:
        """Kill, replace, stop, take the rest, and compare."""
        with crew() as fork:

            def producer() -> Forked:
                number = len(self.put)
                journal = self.put[number] = Journal()
                return fork(lambda: produce(self.mailbox, number, journal, self.stop, self.sizes))

            def consumer() -> Forked:
                journal = Journal()
                self.got.append(journal)
                return fork(lambda: consume(self.mailbox, journal, self.sizes, self.joinable))

            producers = [producer() for _ in range(self.producers)]
            consumers = [consumer() for _ in range(CONSUMERS)]
            for _ in range(KILLS):
                select.select([], [], [], self.chance.random() * 0.004)
                self.passed += self.mailbox._memory.state.load().offer_fate == TAKEN
                maxsize = self.mailbox.maxsize
                assert not maxsize or self.mailbox.size() <= maxsize
                if self.chance.random() < 0.5:
                    producers.pop(self.chance.randrange(self.producers)).kill()
                    producers.append(producer())
                else:
                    consumers.pop(self.chance.randrange(CONSUMERS)).kill()
                    consumers.append(consumer())
                    self.killed_getters += 1
            os.write(self.stopper, b"x")
            assert [0] * self.producers == [each.join() for each in producers]
            for each in consumers:
                each.kill()
                self.killed_getters += 1
        rest = self.take_rest()
        self.compare(rest)
        self.check_usable(len(rest))
        self.close()

    def take_rest(self) -> list[tuple[int, int]]:
        """Take what is left; there is as much as size says."""
        rest = []
        for left in range(self.mailbox.size(), 0, -1):
            assert left == self.mailbox.size()
            rest.append(check(bytes(self.mailbox.get(timeout=0)[0]), self.sizes))
        with pytest.raises(Empty):
            self.mailbox.get(timeout=0)
        return rest

    def compare(self, rest: list[tuple[int, int]]) -> None:
        """Compare what was put with what was got."""
        sequences = [journal.pairs() for journal in self.got] + [rest]
        everything = Counter(pair for sequence in sequences for pair in sequence)

        assert [] == [pair for pair, times in everything.items() if times > 1]
        accepted = {pair for journal in self.put.values() for pair in journal.pairs()}
        lost = accepted - set(everything)
        assert len(lost) <= self.killed_getters, sorted(lost)
        for producer, number in set(everything) - accepted:
            # Its producer was killed in put: the message may be there, but only that one.
            assert len(self.put[producer]) == number
        for sequence in sequences:
            last: dict[int, int] = {}
            for producer, number in sequence:
                assert last.get(producer, -1) < number
                last[producer] = number
        assert everything

    def check_usable(self, undone: int) -> None:
        """All survivors' counts are right, and the memory was given back.

        *undone* messages were taken here, at the end, and not reported as done.
        """
        if self.joinable:
            open_items = 0
            while not self.mailbox.join(0):
                self.mailbox.task_done()
                open_items += 1
            assert undone <= open_items <= undone + self.killed_getters
            with pytest.raises(ValueError, match="too many"):
                self.mailbox.task_done()
        if max(self.sizes) > 64 * KIBI:
            self.mailbox.put(bytes(100 * KIBI))
            assert bytes(100 * KIBI) == self.mailbox.get()[0]
        # One chunk of the log is kept for the next messages, and the window for large ones.
        kept = 300 * KIBI + (WINDOW if max(self.sizes) > 64 * KIBI else 0)
        assert os.fstat(self.mailbox.export(Descriptors())[2]).st_blocks * 512 <= kept
        limit = self.mailbox.maxsize or 300
        for number in range(limit):
            self.mailbox.put(b"%d" % number, timeout=0)
        assert limit == self.mailbox.size()
        assert [b"%d" % number for number in range(limit)] == [
            self.mailbox.get(timeout=0)[0] for _ in range(limit)
        ]

    def close(self) -> None:
        """Close everything."""
        self.mailbox.close()
        os.close(self.stop)
        os.close(self.stopper)
        for journal in [*self.put.values(), *self.got]:
            journal.close()
