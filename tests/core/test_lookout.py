"""Looking for what is awaited before sleeping: as long as that pays, and no longer."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from procession._messages import lookout as _lookout
from procession._messages.lookout import LONGEST, LONGEST_REST, SHORTEST_REST, Lookout

pytestmark = pytest.mark.once

#: What asking once takes on the clock of these tests, in seconds.
ASKING = 1e-6
#: How many looks in vain, each half as long as the one before, it takes to give up.
LOOKS = 6


class Clock:
    """A clock that only goes on when somebody asks, and counts how often that was."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def comes_after(self, times: int, interrupted: float = 0.0) -> Callable[[], bool]:
        """Return what is false *times* times; the look takes *interrupted* seconds longer."""
        left = times

        def ask() -> bool:
            nonlocal left
            self.asked += 1
            self.now += ASKING + interrupted
            left -= 1
            return left < 0

        return ask

    def never(self) -> bool:
        """Be asked for what does not come."""
        self.asked += 1
        self.now += ASKING
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all lookouts, on a machine with two processors."""
    clock = Clock()
    monkeypatch.setattr(_lookout, "monotonic", clock)
    monkeypatch.setattr(_lookout, "_processors", lambda: 2)
    return clock


@pytest.fixture
def lookout(clock: Clock) -> Lookout:
    """A lookout that has had the process's last waits, and was right to look."""
    lookout = Lookout()
    lookout.look(clock.never)
    lookout.look(clock.comes_after(5))
    return lookout


def asked(clock: Clock, looking: Callable[[], object]) -> int:
    """Return how often *looking* asks."""
    before = clock.asked
    looking()
    return clock.asked - before


def give_up(lookout: Lookout, clock: Clock) -> None:
    """Have it look in vain until it rests."""
    for _ in range(LOOKS):
        lookout.look(clock.never)


def test_what_comes_soon_is_found(lookout: Lookout, clock: Clock) -> None:
    """Again and again: that is what it is for."""
    for _ in range(100):
        assert lookout.look(clock.comes_after(5)) is True


def test_a_look_is_bounded(lookout: Lookout, clock: Clock) -> None:
    """Who waits long burns a moment's time, and not the time that it waits."""
    begun = clock.now

    assert not lookout.look(clock.never)
    assert LONGEST <= clock.now - begun < LONGEST + 3 * ASKING


def test_looks_in_vain_end(lookout: Lookout, clock: Clock) -> None:
    """Somebody who is answered slowly burns next to nothing: a few looks of all waits."""
    begun = clock.now
    give_up(lookout, clock)

    assert clock.now - begun < 2 * LONGEST + 3 * LOOKS * ASKING
    assert [0] * SHORTEST_REST == [
        asked(clock, lambda: lookout.look(clock.never)) for _ in range(SHORTEST_REST)
    ]


def test_rests_become_longer(lookout: Lookout, clock: Clock) -> None:
    """In the long run, one wait of a thousand has a look: a tenth of a microsecond each."""
    give_up(lookout, clock)
    waits = 20 * LONGEST_REST
    looks = sum(asked(clock, lambda: lookout.look(clock.never)) > 0 for _ in range(waits))

    assert 10 <= looks < 30


def test_it_is_tried_again(lookout: Lookout, clock: Clock) -> None:
    """A peer that has become quick is noticed, and from then on every wait has its look."""
    give_up(lookout, clock)
    for _ in range(SHORTEST_REST):
        lookout.look(clock.never)

    assert lookout.look(clock.comes_after(5)) is True
    assert lookout.look(clock.comes_after(50)) is True


def test_what_was_there_needs_no_look(lookout: Lookout, clock: Clock) -> None:
    """When both sides share a processor, answers lie there at once, and looking only costs."""
    for _ in range(LOOKS):
        assert lookout.look(clock.comes_after(0)) is True

    assert 0 == asked(clock, lambda: lookout.look(clock.comes_after(0)))


def test_an_interrupted_look_is_the_last_for_a_while(lookout: Lookout, clock: Clock) -> None:
    """Who loses the processor or the GIL meanwhile is in somebody's way."""
    lookout.look(clock.comes_after(1, interrupted=0.005))

    assert 0 == asked(clock, lambda: lookout.look(clock.comes_after(5)))


def test_one_processor_is_not_wasted(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side cannot answer while we look: who asks once then does not wait for it."""
    monkeypatch.setattr(_lookout, "_processors", lambda: 1)
    lookout = Lookout()
    lookout.look(clock.never)

    assert 1 == asked(clock, lambda: lookout.look(clock.never))
    assert 0 == asked(clock, lambda: lookout.look(clock.never))


def test_several_conversations_have_no_looks(clock: Clock) -> None:
    """Threads that look would take the GIL from those that have something to do."""
    one, other = Lookout(), Lookout()
    for _ in range(50):
        for lookout in (one, other):
            assert lookout.look(clock.comes_after(5)) is None

    assert 0 == clock.asked


def test_a_look_ends_when_another_thread_waits(lookout: Lookout, clock: Clock) -> None:
    """Two never look at once."""
    other = Lookout()

    def ask() -> bool:
        thread = threading.Thread(target=other.look, args=(clock.never,))
        thread.start()
        thread.join()
        return clock.never()

    before = clock.asked
    assert not lookout.look(ask)
    assert clock.asked - before <= 2


def test_what_asking_raises_is_raised(lookout: Lookout, clock: Clock) -> None:
    """A signal handler raises there, too; the next wait looks as if nothing had been."""

    def ask() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lookout.look(ask)
    assert lookout.look(clock.comes_after(5)) is True
