"""Processes killed with SIGKILL while a mailbox is shut down, on every kind of mailbox.

Each round makes a mailbox, has it used and shut down, and kills somebody at a random point.
``PROCESSION_KILLS`` sets the number of rounds of each case; ``PROCESSION_SEED`` replays one.
"""

from __future__ import annotations

import os
import random
import select
import struct
import sys
from collections import Counter
from collections.abc import Callable
from queue import Empty

import pytest

if sys.platform != "linux":
    pytest.skip("these tests need fork and pidfds", allow_module_level=True)

from procession._channels.stream_channel import StreamChannel
from procession._contracts.mailbox import Mailbox
from procession._mailboxes.packet_lane import PacketLane
from procession._mailboxes.packet_mailbox import PacketMailbox
from procession._mailboxes.pair_mailbox import PairMailbox
from procession.errors import BrokenConnectionError, ShutDown
from procession.testing.forked import DEADLINE, Forked, crew
from procession.testing.killing import Journal, chosen_seed

pytestmark = pytest.mark.once

ROUNDS = int(os.environ.get("PROCESSION_KILLS", "8"))
_NUMBERS = struct.Struct("=QQ")
_JOURNAL_BYTES = 1 << 18
_SIZES = (0, 10, 490, 600, 3000)
#: When the mailbox is shut down, at the latest, and when somebody is killed, in seconds.
_LONGEST_USE = 0.003


def packets(maxsize: int, joinable: bool) -> Mailbox:
    """A mailbox on a short packet pipe, whose log is used often."""
    reader, writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
    return PacketMailbox(PacketLane(reader, writer), maxsize=maxsize, joinable=joinable)


def pair(maxsize: int, joinable: bool) -> Mailbox:
    """What a transport gets that offers nothing but pairs."""
    reader, writer = os.pipe()
    ends = StreamChannel((reader,), ()), StreamChannel((), (writer,))
    return PairMailbox(*ends, maxsize=maxsize, joinable=joinable)


@pytest.mark.parametrize(
    ("make", "maxsize", "joinable"),
    [
        pytest.param(packets, 0, False, id="packets"),
        pytest.param(packets, 3, False, id="packets-bounded"),
        pytest.param(packets, 0, True, id="packets-counted"),
        pytest.param(packets, 2, True, id="packets-bounded-counted"),
        pytest.param(pair, 0, False, id="pair"),
        pytest.param(pair, 3, False, id="pair-bounded"),
        pytest.param(pair, 0, True, id="pair-counted"),
        pytest.param(pair, 2, True, id="pair-bounded-counted"),
    ],
)
@pytest.mark.parametrize("immediate", [False, True], ids=["draining", "immediate"])
def test_killed_while_it_is_shut_down(
    make: Callable[[int, bool], Mailbox], maxsize: int, joinable: bool, immediate: bool
) -> None:
    """Everybody who lives comes to an end, nothing comes twice, and all counts are right."""
    seed = chosen_seed()
    chance = random.Random(seed)
    try:
        broken = [
            _Round(make(maxsize, joinable), joinable, immediate).run(chance) for _ in range(ROUNDS)
        ]
    except BaseException:
        print(f"replay with PROCESSION_SEED={seed} PROCESSION_KILLS={ROUNDS}")
        raise
    # A pair whose user was killed in the middle of a message says so; packets never are.
    assert make is pair or not any(broken)


class _Round:
    """One mailbox, two producers, two consumers, and one who shuts it down."""

    def __init__(self, mailbox: Mailbox, joinable: bool, immediate: bool) -> None:
        self.mailbox = mailbox
        self.joinable = joinable
        self.immediate = immediate
        self.put = [Journal(_JOURNAL_BYTES) for _ in range(2)]
        self.got = [Journal(_JOURNAL_BYTES) for _ in range(2)]

    def run(self, chance: random.Random) -> bool:
        """Return whether the mailbox is broken, which it says to everybody then."""
        try:
            with crew() as fork:
                dead_consumers = self._use(chance, fork)
            rest = self._drain()
            if rest is None:
                return True
            self._compare(rest, dead_consumers)
            return False
        finally:
            self.mailbox.close()
            for journal in (*self.put, *self.got):
                journal.close()

    def _use(self, chance: random.Random, fork: Callable[[Callable[[], object]], Forked]) -> int:
        """Have it used, kill one, and wait for the others; return how many consumers died."""
        producers = [fork(lambda: self._produce(0)), fork(lambda: self._produce(1))]
        consumers = [fork(lambda: self._consume(0)), fork(lambda: self._consume(1))]
        members = [*producers, *consumers]
        pause = chance.random() * _LONGEST_USE
        closer = fork(lambda: self._shut_down_after(pause))
        # Half of the time, the one who shuts it down, and at about that time.
        spare = chance.random() < 0.5
        victim = chance.choice(members) if spare else closer
        select.select([], [], [], chance.random() * _LONGEST_USE + 0.0005)
        victim.kill()
        # Shut down or not, half or whole: this settles it.
        self.mailbox.shutdown(immediate=self.immediate)
        for member in members:
            assert member is victim or member.join() == 0
        return int(victim in consumers and victim.code != 0)

    def _produce(self, producer: int) -> None:
        for number in range(_JOURNAL_BYTES):
            body = _NUMBERS.pack(producer, number) + bytes(_SIZES[number % len(_SIZES)])
            try:
                self.mailbox.put(body, timeout=DEADLINE)
            except (ShutDown, BrokenConnectionError):
                return
            if len(self.put[producer]) * _NUMBERS.size < _JOURNAL_BYTES - 64:
                self.put[producer].add(producer, number)
            else:
                raise AssertionError("the journal is full: nobody has shut the mailbox down")

    def _consume(self, consumer: int) -> None:
        while True:
            try:
                message, _ = self.mailbox.get(timeout=DEADLINE)
            except (ShutDown, BrokenConnectionError):
                return
            self.got[consumer].add(*_checked(bytes(message)))
            if self.joinable:
                self.mailbox.task_done()

    def _shut_down_after(self, pause: float) -> None:
        select.select([], [], [], pause)
        self.mailbox.shutdown(immediate=self.immediate)

    def _drain(self) -> list[tuple[int, int]] | None:
        """Take what is left; None if the mailbox is broken."""
        rest: list[tuple[int, int]] = []
        try:
            for left in range(self.mailbox.size(), 0, -1):
                assert left == self.mailbox.size()
                rest.append(_checked(bytes(self.mailbox.get(timeout=0)[0])))
                if self.joinable:
                    self.mailbox.task_done()
            for use in (lambda: self.mailbox.get(timeout=0), lambda: self.mailbox.put(b"")):
                with pytest.raises(ShutDown):
                    use()
        except (BrokenConnectionError, Empty):
            # A pair of which somebody was killed in the middle of a message, and then for all.
            for use in (lambda: self.mailbox.put(b""), lambda: self.mailbox.get(timeout=0)):
                with pytest.raises(BrokenConnectionError):
                    use()
            return None
        assert 0 == self.mailbox.size()
        return rest

    def _compare(self, rest: list[tuple[int, int]], dead_consumers: int) -> None:
        everything = Counter(pair for journal in self.got for pair in journal.pairs())
        everything.update(rest)
        assert [] == [pair for pair, times in everything.items() if times > 1]
        accepted = {pair for journal in self.put for pair in journal.pairs()}
        for producer, number in set(everything) - accepted:
            # Killed in put, or told of the shutdown when the message had gone through.
            assert len(self.put[producer]) == number
        if not self.immediate:
            lost = accepted - set(everything)
            assert len(lost) <= dead_consumers, sorted(lost)
        if self.joinable:
            undone = 0
            while not self.mailbox.join(0):
                self.mailbox.task_done()
                undone += 1
            assert undone <= dead_consumers


def _checked(message: bytes) -> tuple[int, int]:
    """Return producer and number of a message, which must be whole."""
    producer, number = _NUMBERS.unpack_from(message)
    assert len(message) == _NUMBERS.size + _SIZES[number % len(_SIZES)]
    return producer, number
