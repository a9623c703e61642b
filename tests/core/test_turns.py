"""Who finds a queue empty, or full, gives way to others before it sleeps, where that pays."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from queue import Empty, Full

import pytest

if sys.platform != "linux":
    pytest.skip("packet pipes are a Linux thing", allow_module_level=True)

from procession._mailboxes import turns as _turns
from procession._mailboxes.packet_lane import PacketLane
from procession._mailboxes.packet_mailbox import PacketMailbox
from procession._mailboxes.packet_marks import LOGGED, MOVED, PUTS, SLEEPING
from procession._mailboxes.turns import LONGEST, Turns
from procession.errors import ShutDown


class Clock:
    """Time that goes on only when somebody says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time, in seconds."""
        return self.now

    def go(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that turns see."""
    made = Clock()
    monkeypatch.setattr(_turns, "time", made)
    return made


class Others:
    """Stands for what other processes do while this one gives way."""

    def __init__(self) -> None:
        self.turns = 0
        #: What they do in each turn.
        self.do: Callable[[], object] = bool

    def __call__(self) -> None:
        self.turns += 1
        self.do()


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Others:
    """What is done instead of giving way, which takes no time by itself."""
    made = Others()
    monkeypatch.setattr(_turns, "_give_way", made)
    return made


@pytest.fixture
def mailbox() -> Iterator[PacketMailbox]:
    """A mailbox on a pipe that nobody has used yet."""
    made = PacketMailbox(PacketLane(*os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)))
    yield made
    made.close()


def words() -> memoryview:
    """The hot words of no mailbox."""
    return memoryview(bytearray(64)).cast("Q")


def nothing() -> int:
    """Look, and find nothing."""
    return 0


# -- what pays


def test_turns_end_with_what_is_found(others: Others) -> None:
    """Who has found something does not give way any more, and does so the next time, too."""
    turns = Turns(words())
    for count in range(1, 100):
        assert turns.give(lambda: 1)
        assert count == others.turns


#: How long a turn takes where nobody else wants the processor, and where somebody computes.
SHORT, LONG = 1e-6, 4e-3


def test_turns_in_vain_become_rare(others: Others, clock: Clock) -> None:
    """A getter to which a message comes now and then pays next to nothing for looking."""
    others.do = lambda: clock.go(SHORT)
    turns = Turns(words())
    for _ in range(10_000):
        assert not turns.give(nothing)
        clock.go(0.001)

    assert others.turns * SHORT < 0.01 * 10_000 * 0.001


def test_who_computes_is_not_given_way_to_again_and_again(others: Others, clock: Clock) -> None:
    """Each time is milliseconds, by which a message may come too late."""
    others.do = lambda: clock.go(LONG)
    for found in (0, 1):
        others.turns = 0
        begun = clock.now
        turns = Turns(words())
        for _ in range(100_000):
            turns.give(partial(int, found))
            clock.go(0.0001)

        assert others.turns * LONG < 0.02 * (clock.now - begun) + 2 * LONG


def test_now_and_then_somebody_who_computes_is_too_much(others: Others, clock: Clock) -> None:
    """Where a hundredth of the turns is long, what the others save does not make up for it."""
    turns = Turns(words())
    begun = clock.now
    long = 0
    for number in range(100_000):
        is_long = number % 100 == 99
        before = others.turns
        others.do = partial(clock.go, LONG if is_long else 4 * SHORT)
        turns.give(lambda: 1)
        long += is_long and others.turns > before
        clock.go(0.0001)

    assert long * LONG < 0.1 * (clock.now - begun), "those were late too often"


def test_those_who_move_messages_may_take_their_time(others: Others, clock: Clock) -> None:
    """Nothing has waited for us meanwhile: others were awake."""
    hot = words()
    hot[MOVED] = _turns.MASK - 10  # it wraps around
    turns = Turns(hot)

    def move() -> None:
        clock.go(LONG)
        hot[MOVED] = (hot[MOVED] + 1) & _turns.MASK

    others.do = move
    for count in range(1, 100):
        assert not turns.give(nothing)
        assert count == others.turns


def test_turns_come_back_with_the_messages(others: Others, clock: Clock) -> None:
    """Having waited in vain for long is no reason to sleep for ever."""
    others.do = lambda: clock.go(SHORT)
    turns = Turns(words())
    for _ in range(5000):
        turns.give(nothing)
    assert not turns.give(lambda: 1)
    clock.go(0.1)
    for _ in range(1000):
        assert turns.give(lambda: 1)


def test_what_looking_raises_is_passed_on(others: Others) -> None:
    """And the next wait is as any other."""
    turns = Turns(words())

    def fail() -> int:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        turns.give(fail)
    assert turns.give(lambda: 1)


# -- getters


def test_what_comes_meanwhile_is_got_without_being_woken(
    mailbox: PacketMailbox, others: Others
) -> None:
    """Whoever puts has nobody to wake, and what is got is all there is."""
    others.do = lambda: mailbox.put(b"came")

    assert (b"came", ()) == mailbox.get(timeout=60)
    assert not mailbox._words[SLEEPING]
    assert 0 == mailbox.size()


def test_somebody_else_may_be_quicker(
    mailbox: PacketMailbox, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was seen is taken by another getter before us; then this one is woken as ever."""
    give = Turns.give
    later = threading.Timer(0.05, mailbox.put, [b"later"])

    def give_and_steal(turns: Turns, look: Callable[[], int]) -> bool:
        found = give(turns, look)
        assert (b"came", 0) == mailbox._lane.receive()
        later.start()
        return found

    monkeypatch.setattr(Turns, "give", give_and_steal)
    others.do = lambda: mailbox.put(b"came")

    assert (b"later", ()) == mailbox.get(timeout=60)
    later.join()


def test_who_never_waits_says_that_it_has_taken_something(
    mailbox: PacketMailbox, others: Others
) -> None:
    """A getter that finds a message each time has no reason to, but for those who give way."""
    moved: list[int] = []

    def put_and_get() -> None:
        mailbox.put(b"for another one")
        mailbox.get(timeout=0)
        moved.append(mailbox._words[MOVED])

    others.do = put_and_get
    with pytest.raises(Empty):
        mailbox.get(timeout=2 * LONGEST)

    assert {1} == set(moved), "it is asked once, and says it once"
    mailbox.put(b"nobody asks")
    before = mailbox._words[MOVED]
    mailbox.get(timeout=0)
    assert before == mailbox._words[MOVED]


def test_no_turn_for_who_has_no_time(mailbox: PacketMailbox, others: Others) -> None:
    """Timeouts are kept, whoever has the processor."""
    for timeout in (0.0, LONGEST / 2):
        with pytest.raises(Empty):
            mailbox.get(timeout=timeout)

    assert not others.turns


def test_a_shutdown_meanwhile_ends_the_wait(mailbox: PacketMailbox, others: Others) -> None:
    """Its bell has been rung before anybody slept."""
    others.do = mailbox.shutdown
    with pytest.raises(ShutDown):
        mailbox.get(timeout=60)


def test_closing_meanwhile_ends_the_wait(mailbox: PacketMailbox, others: Others) -> None:
    """By another thread; the error is that of a closed mailbox."""
    others.do = mailbox.close
    with pytest.raises((OSError, ValueError)):
        mailbox.get(timeout=60)


def test_an_exception_meanwhile_takes_nothing_along(mailbox: PacketMailbox, others: Others) -> None:
    """A signal handler that raises while a getter gives way: the message is still there."""

    def put_and_raise() -> None:
        mailbox.put(b"kept")
        raise KeyboardInterrupt

    others.do = put_and_raise
    with pytest.raises(KeyboardInterrupt):
        mailbox.get(timeout=60)

    assert (b"kept", ()) == mailbox.get(timeout=0)


# -- putters


def fill(mailbox: PacketMailbox) -> int:
    """Put until the lane is full; return how many there are."""
    count = 0
    while mailbox._lane.send(b"%d" % count):
        count += 1
    return count


def test_room_that_is_made_meanwhile_is_used(
    mailbox: PacketMailbox, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without sleeping, and without the log: order stays what it was."""
    monkeypatch.setattr(time, "sleep", None)
    count = fill(mailbox)
    got: list[bytes] = []
    others.do = lambda: got.append(bytes(mailbox.get(timeout=0)[0]))
    mailbox.put(b"last")

    assert 1 == others.turns
    assert not mailbox._words[PUTS] & LOGGED
    got += [bytes(mailbox.get(timeout=0)[0]) for _ in range(count)]
    assert [b"%d" % number for number in range(count)] + [b"last"] == got


def test_where_no_room_is_made_a_put_goes_on(mailbox: PacketMailbox, others: Others) -> None:
    """To the log, as before: nobody waits for getters that do not come."""
    count = fill(mailbox)
    for number in range(1000):
        mailbox.put(b"more %d" % number)

    assert count + 1000 == mailbox.size()
    assert mailbox._words[PUTS] & LOGGED


def test_a_bounded_put_keeps_its_timeout(others: Others) -> None:
    """It gives way only if it has the time, and is refused if nothing was taken."""
    lane = PacketLane(*os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC))
    mailbox = PacketMailbox(lane, maxsize=1)
    mailbox.put(b"one")
    with pytest.raises(Full):
        mailbox.put(b"two", timeout=LONGEST / 2)
    assert not others.turns
    others.do = lambda: mailbox.get(timeout=0)
    mailbox.put(b"two", timeout=60)

    assert others.turns
    assert (b"two", ()) == mailbox.get(timeout=0)
    mailbox.close()


def test_getters_of_a_word_that_only_grows(mailbox: PacketMailbox, others: Others) -> None:
    """The hint wraps around at four bytes and never fails, whatever is in it."""
    mailbox._words[MOVED] = (1 << 32) - 1
    others.do = lambda: mailbox.put(b"came")
    for _ in range(3):
        assert (b"came", ()) == mailbox.get(timeout=60)

    assert mailbox._words[MOVED] < 10
