"""Processes that send, and others that look at what they receive where it lies, are killed.

A harness of its own beside `killing`, because who receives never comes to an end by itself: it is
killed in any case, and what is lent has to be free afterwards.
"""

from __future__ import annotations

import os
import random
import select
import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence

from procession._contracts.channel import Message
from procession.testing.forked import Forked, crew
from procession.testing.killing import Journal

_NUMBERS = struct.Struct("=QQ")
_KIBI = 1 << 10
_SIZES = (0, 64 * _KIBI, 70 * _KIBI, 150 * _KIBI)
_LONGEST_PAUSE = 0.006


class LenderTrial(ABC):
    """*users* who send and as many who receive, in processes of their own, and a killer.

    *journal_size*: how many bytes each may note. `run` frees everything, if it raises nothing.
    """

    def __init__(self, seed: int, users: int, journal_size: int) -> None:
        self._chance = random.Random(seed)
        self._users = users
        self._journal_size = journal_size
        self._sent: dict[int, Journal] = {}
        self._got: list[Journal] = []
        self._stop, self._stopper = os.pipe()

    # -- what is under test

    @abstractmethod
    def send(self, body: bytes, buffer: bytes) -> None:
        """Send a message; *buffer* may be empty."""

    @abstractmethod
    def send_in_place(self, body: bytes, buffer: bytes) -> bool:
        """Send a message whose buffer is copied to reserved memory, if there is any."""

    @abstractmethod
    def receive(self, lease: bool) -> Message:
        """Wait for a message, and take it."""

    @abstractmethod
    def rest(self) -> list[Message]:
        """Take what is there when all others are dead, and check that nothing is held by them."""

    @abstractmethod
    def close(self) -> None:
        """Check that all memory is free, and close everything."""

    def hold_back(self) -> None:
        """Wait, in who sends, where too many messages are waiting."""
        return None

    def await_end(self) -> None:
        """Wait until who receives has had all that it should; they are killed afterwards."""
        return None

    # -- messages

    def check(self, message: Message) -> tuple[int, int]:
        """Return sender and number of a message, which must be whole."""
        body, buffers = message
        sender, number = _NUMBERS.unpack_from(body)
        _, buffer = _make(sender, number)
        views = [memoryview(each) for each in buffers]
        if [buffer] * bool(buffer) != views:
            found = [Counter(_NUMBERS.iter_unpack(each)).most_common(3) for each in views]
            raise AssertionError(f"{sender} {number}, {len(buffer)} bytes: {found}")
        return sender, number

    # -- who takes part

    def _work(self, sender: int, journal: Journal) -> None:
        """Send until told to stop, some of it filled in place."""
        number = 0
        while not select.select([self._stop], [], [], 0)[0]:
            self.hold_back()
            body, buffer = _make(sender, number)
            if not (number % 3 == 0 and buffer and self.send_in_place(body, buffer)):
                self.send(body, buffer)
            journal.add(sender, number)
            number += 1

    def _look(self, journal: Journal) -> None:
        """Receive for ever, some with leases; keep a few, and look at them to the last."""
        kept: list[Message] = []
        while True:
            message = self.receive(lease=len(journal) % 5 != 0)
            journal.add(*self.check(message))
            kept.append(message)
            if len(kept) > 2:
                self.check(kept.pop(0))

    # -- the trial

    def run(self, kills: int) -> None:
        """Kill *kills* times, stop, take the rest, and compare. Raises `AssertionError`."""
        with crew() as fork:

            def sender() -> Forked:
                number = len(self._sent)
                journal = self._sent[number] = Journal(self._journal_size)
                return fork(lambda: self._work(number, journal))

            def receiver() -> Forked:
                journal = Journal(self._journal_size)
                self._got.append(journal)
                return fork(lambda: self._look(journal))

            senders = [sender() for _ in range(self._users)]
            receivers = [receiver() for _ in range(self._users)]
            for _ in range(kills):
                select.select([], [], [], self._chance.random() * _LONGEST_PAUSE)
                self._replace_one(*self._chance.choice([(senders, sender), (receivers, receiver)]))
            os.write(self._stopper, b"x")
            assert [0] * self._users == [each.join() for each in senders]
            self.await_end()
            for each in receivers:
                assert not each.stopped(), "it failed by itself"
                each.kill()
        self._compare([self.check(message) for message in self.rest()])
        self.close()
        os.close(self._stop)
        os.close(self._stopper)
        for journal in [*self._sent.values(), *self._got]:
            journal.close()

    def _replace_one(self, users: list[Forked], new: Callable[[], Forked]) -> None:
        victim = users.pop(self._chance.randrange(self._users))
        assert not victim.stopped(), "it failed by itself"
        victim.kill()
        users.append(new())

    def _compare(self, rest: Sequence[tuple[int, int]]) -> None:
        """Compare what was sent with what was received, and with the *rest*."""
        sequences = [*(journal.pairs() for journal in self._got), rest]
        everything = Counter(pair for sequence in sequences for pair in sequence)
        assert [] == [pair for pair, times in everything.items() if times > 1]
        accepted = {pair for journal in self._sent.values() for pair in journal.pairs()}
        lost = accepted - set(everything)
        assert len(lost) <= len(self._got), sorted(lost)  # one for each that was killed
        for sender, number in set(everything) - accepted:
            # It was killed while it sent: the message may be there, but only that one.
            assert len(self._sent[sender]) == number
        for sequence in sequences:
            last: dict[int, int] = {}
            for sender, number in sequence:
                assert last.get(sender, -1) < number
                last[sender] = number
        assert everything


def _make(sender: int, number: int) -> tuple[bytes, bytes]:
    """Return body and buffer, which show whether they belong together and are whole."""
    body = _NUMBERS.pack(sender, number)
    return body, body * (_SIZES[(sender * 7 + number) % len(_SIZES)] // len(body))
