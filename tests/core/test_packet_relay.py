"""Large messages from hand to hand: one side killed or stopped at every line, and the limits."""

from __future__ import annotations

import itertools
import math
import mmap
import os
import random
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from queue import Empty
from types import FrameType
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("packet pipes are a Linux thing", allow_module_level=True)

import fcntl

from procession._mailboxes import packet_bulk, packet_relay
from procession._mailboxes.mailbox_state import CLOSED, OFFERED, READ, TAKEN
from procession._mailboxes.packet_lane import PacketLane
from procession._mailboxes.packet_mailbox import PacketMailbox
from procession._mailboxes.packet_marks import OFFER, SLEEPING
from procession._messages.lookout import has_ordered_stores
from procession.errors import ShutDown
from procession.testing.forked import DEADLINE, Forked, crew, until
from procession.testing.killing import Journal

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not has_ordered_stores(), reason="nothing passes on this processor"),
]

KIBI = 1024
# Every line takes some milliseconds: all are tried when the environment asks for kills.
ALL_LINES = "PROCESSION_KILLS" in os.environ
STRIDE = 12
# Four parts: two fill the circle, and the others use it again.
SIZE = 100 * KIBI
SECOND = b"2" * 70 * KIBI
SMALL = b"small"
#: What a stopped or killed partner may cost: some stalls, and what a busy machine adds.
PROMPTLY = 1.0


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have short messages pass, through a short circle."""
    monkeypatch.setattr(packet_bulk, "SHORTEST_PASSED", SIZE)
    monkeypatch.setattr(packet_relay, "CIRCLE", 64 * KIBI)
    monkeypatch.setattr(packet_relay, "PIECE", 32 * KIBI)
    monkeypatch.setattr(packet_relay, "BYTES_OF_WORTH", 64)
    monkeypatch.setattr(packet_relay, "STALL", 0.02)  # this may be a busy machine


@pytest.fixture
def patient(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody give up because the other side has no processor for a while."""
    monkeypatch.setattr(packet_relay, "BYTES_OF_WORTH", 4)
    monkeypatch.setattr(packet_relay, "STALL", 0.5)


def new_mailbox(*, maxsize: int = 0, joinable: bool = False) -> PacketMailbox:
    """Return a mailbox on a lane of pipes."""
    reader, writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4 * mmap.PAGESIZE)
    return PacketMailbox(PacketLane(reader, writer), maxsize=maxsize, joinable=joinable)


@pytest.fixture
def mailbox() -> Iterator[PacketMailbox]:
    """A mailbox."""
    made = new_mailbox()
    yield made
    made.close()


def message(number: int = 0) -> bytes:
    """Return a message in which no part is like another one."""
    return b"".join((number * 1000 + at).to_bytes(8, "little") for at in range(SIZE // 8))


def fate(mailbox: PacketMailbox) -> int:
    """Return what has become of the last offer."""
    return mailbox._memory.state.load().offer_fate


def await_sleeper(mailbox: PacketMailbox) -> None:
    """Wait until somebody says that it is about to sleep."""
    until(lambda: bool(mailbox._words[SLEEPING]))


def at_line(number: int, act: Callable[[], object]) -> None:
    """Call *act* before the line of that *number* of all that run in the relay's code.

    How often somebody looks while it waits is different each time, and changes nothing.
    """
    count = 0
    waits = {"_wait", "_wake", "_has_begun", "_was_read", "_was_taken", "_was_written"}

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        code = frame.f_code
        if code.co_filename != packet_relay.__file__ or code.co_name in waits:
            return None
        if event == "line":
            if count == number:
                act()
            count += 1
        return trace

    sys.settrace(trace)


def line_numbers() -> Iterator[int]:
    """Yield the numbers of the lines to try: all, or some of them in the default run.

    Whoever asks stops when a message has passed before the line was reached. (On a busy machine
    it may not pass, and that takes fewer lines.)
    """
    if ALL_LINES:
        yield from itertools.count()
    else:
        yield from itertools.count(random.randrange(STRIDE), STRIDE)


def check_outcomes(possible: set[Any], seen: set[Any]) -> None:
    """Whatever came of a line may come of it; all of it does if no line was left out."""
    assert seen <= possible
    assert seen == possible or not ALL_LINES


def kill_me() -> None:
    """Die at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def stop_me() -> None:
    """Stop until continued."""
    os.kill(os.getpid(), signal.SIGSTOP)


def get(mailbox: PacketMailbox, journal: Journal, times: int = 1) -> None:
    """Get so many messages; note of which kind each was: 1 and 2 are large, 3 is small."""
    kinds = {message(): 1, SECOND: 2, SMALL: 3}
    for _ in range(times):
        body, _ = mailbox.get(timeout=DEADLINE)
        journal.add(kinds.get(bytes(body), 0), 0)


def kinds(journal: Journal) -> list[int]:
    """Return what `get` has noted."""
    return [kind for kind, _ in journal.pairs()]


@pytest.mark.usefixtures("patient")
def test_a_message_passes(mailbox: PacketMailbox) -> None:
    """A getter that sleeps gets it, with its buffers, and the mailbox never has it."""
    journal = Journal()
    with crew() as fork:

        def get_pieces() -> None:
            body, buffers = mailbox.get(timeout=DEADLINE)
            assert (b"body", [message(), b"", b"x" * 999]) == (
                bytes(body),
                [bytes(each) for each in buffers],
            )
            journal.add(1, 1)

        getter = fork(get_pieces)
        await_sleeper(mailbox)
        mailbox.put(b"body", [message(), b"", b"x" * 999])
        assert TAKEN == fate(mailbox)
        assert 0 == mailbox.size()
        assert 0 == getter.join()
    assert 1 == len(journal)


@pytest.mark.usefixtures("patient")
def test_messages_pass_one_after_the_other(mailbox: PacketMailbox) -> None:
    """A getter that comes soon after has the next one passed, too, and nothing is torn."""
    count = 200
    with crew() as fork:

        def get_all() -> None:
            for number in range(count):
                assert message(number) == mailbox.get(timeout=DEADLINE)[0], number

        getter = fork(get_all)
        await_sleeper(mailbox)
        passed = 0
        for number in range(count):
            mailbox.put(message(number))
            passed += fate(mailbox) == TAKEN
        assert 0 == getter.join()
    assert passed


@pytest.mark.parametrize("joinable", [False, True])
def test_a_producer_killed_at_any_line(joinable: bool) -> None:
    """The getter gets the message whole or not at all, and what others put next in any case."""
    outcomes = set()
    for number in line_numbers():
        mailbox, journal = new_mailbox(joinable=joinable), Journal()
        with crew() as fork:
            getter = fork(lambda: get(mailbox, journal, 2))  # noqa: B023
            await_sleeper(mailbox)

            def put() -> None:
                at_line(number, kill_me)  # noqa: B023
                mailbox.put(message())  # noqa: B023

            code = fork(put).join()
            passed = fate(mailbox) == TAKEN
            begun = time.monotonic()
            mailbox.put(SECOND)
            if code == 0 or passed or fate(mailbox) == TAKEN:
                assert 0 == getter.join()
                expected = [1, 2]
            else:
                mailbox.put(SMALL)
                assert 0 == getter.join()
                expected = [2, 3]
            assert time.monotonic() - begun < PROMPTLY
            assert expected == kinds(journal), number
            outcomes.add((code, expected[0]))
        assert 0 == mailbox.size()
        if joinable:
            for _ in range(2):
                assert not mailbox.join(0)
                mailbox.task_done()
            assert mailbox.join(0)
        mailbox.close()
        journal.close()
        if code == 0 and passed:
            break
    check_outcomes({(-9, 2), (-9, 1), (0, 1)}, outcomes)


def test_a_getter_killed_at_any_line() -> None:
    """The producer is not held up, and the message is the next getter's, unless it was taken."""
    outcomes = set()
    for number in line_numbers():
        mailbox, journal = new_mailbox(), Journal()
        with crew() as fork:

            def take() -> None:
                at_line(number, kill_me)  # noqa: B023
                get(mailbox, journal)  # noqa: B023
                sys.settrace(None)

            getter = fork(take)
            await_sleeper(mailbox)
            begun = time.monotonic()
            mailbox.put(message())
            assert time.monotonic() - begun < PROMPTLY
            code = getter.join()
            taken = fate(mailbox) == TAKEN
            if code or taken:
                outcomes.add((code, taken))
            if code == 0:
                assert [1] == kinds(journal)
            elif taken:
                assert 0 == mailbox.size()
            else:
                assert 1 == mailbox.size()
                assert message() == mailbox.get(timeout=0)[0]
            mailbox.put(SECOND)
            assert SECOND == mailbox.get(timeout=0)[0]
        mailbox.close()
        journal.close()
        if code == 0 and taken:
            break
    check_outcomes({(-9, False), (-9, True), (0, True)}, outcomes)


def test_a_getter_stopped_at_any_line() -> None:
    """The producer is not held up, and nobody takes the message twice."""
    outcomes = set()
    for number in line_numbers():
        mailbox, journal = new_mailbox(), Journal()
        with crew() as fork:

            def take() -> None:
                at_line(number, stop_me)  # noqa: B023
                get(mailbox, journal)  # noqa: B023

            getter = fork(take)
            await_sleeper(mailbox)
            begun = time.monotonic()
            mailbox.put(message())
            assert time.monotonic() - begun < PROMPTLY
            taken = fate(mailbox) == TAKEN
            stopped = until_stopped(getter)
            if stopped or taken:
                outcomes.add((stopped, taken))
            # The memory that it may still be reading is used again meanwhile.
            mailbox.put(SECOND)
            if stopped:
                os.kill(getter.pid, signal.SIGCONT)
            assert 0 == getter.join()
            assert [1] == kinds(journal), number
            assert SECOND == mailbox.get(timeout=0)[0]
        mailbox.close()
        journal.close()
        if taken and not stopped:
            break
    check_outcomes({(True, False), (True, True), (False, True)}, outcomes)


def test_a_producer_stopped_at_any_line() -> None:
    """The getter is not held up when there is something else, and gets the message later."""
    for number in line_numbers():
        mailbox, journal = new_mailbox(), Journal()
        with crew() as fork:
            getter = fork(lambda: get(mailbox, journal, 2))  # noqa: B023
            await_sleeper(mailbox)

            def put() -> None:
                at_line(number, stop_me)  # noqa: B023
                mailbox.put(message())  # noqa: B023

            producer = fork(put)
            stopped = until_stopped(producer)
            begun = time.monotonic()
            mailbox.put(SMALL)
            until(lambda: 3 in kinds(journal))  # noqa: B023
            assert time.monotonic() - begun < PROMPTLY
            if stopped:
                os.kill(producer.pid, signal.SIGCONT)
            assert 0 == producer.join()
            assert 0 == getter.join()
            assert [1, 3] == sorted(kinds(journal)), number
        passed = fate(mailbox) == TAKEN
        mailbox.close()
        journal.close()
        if passed and not stopped:
            break


def until_stopped(process: Forked) -> bool:
    """Wait until *process* is stopped or has ended; return whether it is stopped."""

    def state() -> str:
        with open(f"/proc/{process.pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0]

    until(lambda: state() in "TZ")
    return state() == "T"


def test_one_getter_reads_an_offer(mailbox: PacketMailbox) -> None:
    """Whoever comes when one reads already does not wait, nor reads what was overwritten."""
    start = open_by_hand(mailbox)
    mailbox._memory.state.relay[READ] = start
    with pytest.raises(Empty):
        mailbox.get(timeout=0.05)
    assert OFFERED == fate(mailbox)


def test_a_getter_that_was_slower_reads_nothing(mailbox: PacketMailbox) -> None:
    """Of two that have seen the same offer, one finds that the other has begun."""
    start = open_by_hand(mailbox)
    mailbox._memory.state.relay[READ] = start + 1
    assert mailbox._memory.reading.run(mailbox._bulk._relay._read, start, 0.0) is None
    assert start + 1 == mailbox._memory.state.relay[READ]


def test_an_offer_that_is_over_cannot_be_taken(mailbox: PacketMailbox) -> None:
    """Neither when it was closed nor when there is another one."""
    lock, books = mailbox._memory.lock, mailbox._books
    start = open_by_hand(mailbox)
    assert not lock.run(books.close_offer)
    assert not lock.run(books.take_offer, start)
    second = open_by_hand(mailbox)
    assert start + SIZE < second
    assert not lock.run(books.take_offer, start)
    assert lock.run(books.take_offer, second)
    assert not lock.run(books.take_offer, second)
    assert lock.run(books.close_offer)


def test_what_an_offer_says_is_there_before_it_is_seen(
    mailbox: PacketMailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A getter that sees it at once knows how long its pieces are."""
    seen = []

    def pack_into(*args: Any) -> None:
        seen.append(mailbox._words[OFFER])
        struct.pack_into(*args)

    monkeypatch.setattr(packet_relay, "pack_into", pack_into)
    assert open_by_hand(mailbox) == mailbox._words[OFFER]
    assert [0] == seen


def open_by_hand(mailbox: PacketMailbox) -> int:
    """Offer a message of which nothing was written, as a producer that was killed."""
    relay = mailbox._bulk._relay
    view = relay._view()
    assert view is not None
    start = mailbox._memory.lock.run(mailbox._books.open_offer, SIZE, 0)
    assert start is not None
    relay._announce(view, start, [bytes(SIZE)])
    return start


class Interrupting:
    """Copies, and raises KeyboardInterrupt in the middle, once."""

    def __init__(self, copy: Callable[[Any, Any], object]) -> None:
        self.copy = copy
        self.left = 3

    def __call__(self, target: Any, source: Any) -> None:
        """Copy *source* to *target*."""
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        self.copy(target, source)


@pytest.mark.usefixtures("patient")
def test_an_interrupted_producer(mailbox: PacketMailbox) -> None:
    """What it was putting is not there, and the getter gets the next one."""
    relay, journal = mailbox._bulk._relay, Journal()
    relay._copy = Interrupting(relay._copy)
    with crew() as fork:
        getter = fork(lambda: get(mailbox, journal))
        await_sleeper(mailbox)
        with pytest.raises(KeyboardInterrupt):
            mailbox.put(message(7))
        assert CLOSED == fate(mailbox)
        assert 0 == mailbox._words[OFFER] == mailbox.size()
        mailbox.put(message())
        assert 0 == getter.join()
    assert [1] == kinds(journal)


@pytest.mark.usefixtures("patient")
def test_an_interrupted_getter(mailbox: PacketMailbox) -> None:
    """The message that it was getting is there for the next get."""

    def interrupted() -> None:
        relay = mailbox._bulk._relay
        relay._copy = Interrupting(relay._copy)
        with pytest.raises(KeyboardInterrupt):
            mailbox.get(timeout=DEADLINE)
        assert message() == mailbox.get(timeout=DEADLINE)[0]

    with crew() as fork:
        getter = fork(interrupted)
        await_sleeper(mailbox)
        mailbox.put(message())
        assert CLOSED == fate(mailbox)
        assert 0 == getter.join()


def test_nothing_is_offered_out_of_order(mailbox: PacketMailbox) -> None:
    """What was put before is taken before, wherever it lies."""
    books = mailbox._books
    for first in (b"in the lane", b"in the spool" * 7_000):
        mailbox._words[SLEEPING] = 1
        mailbox.put(first)
        assert mailbox._memory.lock.run(books.open_offer, SIZE, 0) is None
        mailbox._words[SLEEPING] = 1
        mailbox.put(message())
        assert 0 == mailbox._memory.state.load().offer_start
        assert [first, message()] == [bytes(mailbox.get()[0]) for _ in range(2)]


def test_no_time_is_lost_when_nobody_waits(mailbox: PacketMailbox) -> None:
    """After an offer in vain there is none for so many times as long."""
    relay = mailbox._bulk._relay
    begun = time.monotonic()
    mailbox.put(message())
    offered = mailbox._memory.state.load().offer_start
    assert 0 < offered
    assert CLOSED == fate(mailbox)
    assert begun + packet_relay.REST * packet_relay.STALL <= relay._rest_until
    for rest_until, is_offered in ((math.inf, False), (0.0, True)):
        assert message() == mailbox.get()[0]
        relay._rest_until = rest_until
        mailbox.put(message())
        assert is_offered == (offered < mailbox._memory.state.load().offer_start)


def test_a_put_without_time_offers_nothing_in_vain(mailbox: PacketMailbox) -> None:
    """A put with a timeout of zero does not wait for a getter."""
    mailbox._words[SLEEPING] = 1
    mailbox.put(message(), timeout=0)
    assert message() == mailbox.get(timeout=0)[0]


@pytest.mark.parametrize("immediate", [False, True])
def test_shutting_down_meanwhile(mailbox: PacketMailbox, immediate: bool) -> None:
    """What is offered when the mailbox is shut down was not put, nor can it be taken."""
    start = open_by_hand(mailbox)
    mailbox.shutdown(immediate=immediate)
    assert not mailbox._memory.lock.run(mailbox._books.take_offer, start)
    assert not mailbox._memory.lock.run(mailbox._books.close_offer)
    assert 0 == mailbox._words[OFFER]
    with pytest.raises(ShutDown):
        mailbox.get(timeout=0)
    with pytest.raises(ShutDown):
        mailbox.put(message())
    assert start == mailbox._memory.state.load().offer_start


def test_what_a_killed_producer_has_offered_is_closed_before_its_memory_is_used(
    mailbox: PacketMailbox,
) -> None:
    """A getter that has begun to read it finds that it is gone."""
    start = open_by_hand(mailbox)
    mailbox.put(SECOND)
    assert not mailbox._memory.lock.run(mailbox._books.take_offer, start)
    assert SECOND == mailbox.get(timeout=0)[0]
