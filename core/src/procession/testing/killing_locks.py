"""What processes do with locks and their relatives when they are killed: see `killing`."""

from __future__ import annotations

import mmap
import os
import random
import select
from typing import TYPE_CHECKING, Any, Protocol

from procession._contracts.primitives import RECURSIVE
from procession._ground.process_status import start_of
from procession._locks.holder import has_died
from procession.errors import BrokenBarrierError, OwnerDiedError
from procession.testing.forked import DEADLINE
from procession.testing.killing import Participant, Scenario

if TYPE_CHECKING:
    from collections.abc import Mapping

    from procession._contracts.primitives import Primitive
    from procession.synchronize import Barrier, Condition, Event
    from procession.testing.killing import Work

_USERS = 4
#: More than ever live at a time. Two that share a place overlook each other, and no more.
_PLACES = 64
#: How long a maker of tokens rests, so that there are not more of them than are taken.
_REST = 0.0002


class Lock(Protocol):
    """What `LockUse` is about: a primitive, or a lock that is made of one."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """See `Primitive.acquire`."""

    def release(self) -> None:
        """See `Primitive.release`."""


class _Board:
    """Words that all share: who is in the critical section, as process, its start and a visit."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, mmap.PAGESIZE)
        self._words = memoryview(self._map).cast("Q")
        self._inside = self._words[: 3 * _PLACES]
        self.tokens = self._words[3 * _PLACES : 3 * _PLACES + 1]
        self.is_over = self._words[3 * _PLACES + 1 : 3 * _PLACES + 2]

    def enter(self, place: int, most: int) -> None:
        """Be inside, where at most *most* living processes may be."""
        mine = place % _PLACES
        inside = self._inside
        inside[3 * mine + 2] += 1
        inside[3 * mine + 1] = start_of(os.getpid())
        inside[3 * mine] = os.getpid()
        # Those who are met one after another need not have been inside at once. Who is met twice
        # on one visit was there in between, when all the others of the second look were, too.
        others = self._others(mine)
        if len(others) >= most > 1:
            others &= self._others(mine)
        assert len(others) < most, f"{others} and {os.getpid()} are inside at once"

    def leave(self, place: int) -> None:
        """Be outside again."""
        self._inside[3 * (place % _PLACES)] = 0

    def _others(self, mine: int) -> set[tuple[int, int]]:
        """Return process and visit of all the living who are met inside, but for place *mine*."""
        met = set()
        for each in range(_PLACES):
            pid, start, visit = self._inside[3 * each : 3 * each + 3]
            if each != mine and pid and not has_died(pid, start):
                met.add((pid, visit))
        return met

    def close(self) -> None:
        """Free the memory."""
        for view in (self._inside, self.tokens, self.is_over, self._words):
            view.release()
        self._map.close()


class LockUse(Scenario):
    """Processes enter and leave what *lock* guards, in all the ways there are.

    *primitive* is what it is made of, or is: it has all its units, which are *units*.
    """

    def __init__(self, lock: Lock, primitive: Primitive, units: int) -> None:
        self._lock = lock
        self._primitive = primitive
        self._units = units
        self._board = _Board()

    def roles(self) -> Mapping[str, tuple[int, Work]]:
        """See `Scenario.roles`."""
        return {"user": (_USERS, self._use)}

    def _use(self, me: Participant) -> None:
        chance = random.Random(me.number)
        while not me.told_to_stop():
            self._visit(me.number, chance, chance.randrange(4))
        while not self._visit(me.number, chance, 2):
            continue  # who lives gets in, whoever has died before

    def _visit(self, place: int, chance: random.Random, how: int) -> bool:
        """Go in and out, in one of four ways; return whether that was possible."""
        lock = self._lock
        try:
            if how == 0:
                taken = lock.acquire(timeout=chance.random() * 0.005)
            else:
                taken = lock.acquire(how != 1)
        except OwnerDiedError:
            return False
        if not taken:
            return False
        if self._primitive.kind == RECURSIVE and chance.random() < 0.5:
            lock.acquire()
            lock.release()
        self._board.enter(place, self._units)
        for _ in range(chance.randrange(30)):
            pass
        self._board.leave(place)
        lock.release()
        return True

    def check(self, participants: list[Participant]) -> None:
        """Nothing is held by the dead, once they were noticed, and all is as when it was new."""
        check_lock(self._lock, self._primitive, self._units)

    def close(self) -> None:
        """See `Scenario.close`."""
        self._board.close()
        del self._lock, self._primitive


def check_lock(lock: Lock, primitive: Primitive, units: int) -> None:
    """All units are free, once the dead were noticed, and no unit is more than there are."""
    deaths = 0
    for _ in range(units):
        while True:
            try:
                assert lock.acquire(timeout=DEADLINE)
                break
            except OwnerDiedError:
                deaths += 1
    assert deaths <= units
    assert (units, 0) == (primitive.count(), primitive.value())
    if primitive.kind != RECURSIVE:
        assert not lock.acquire(False)
    for _ in range(units):
        lock.release()
    try:
        lock.release()
    except (ValueError, AssertionError):
        pass
    else:
        raise AssertionError("what nobody has acquired could be given back")
    assert [] == primitive.holders()
    assert (0, units) == (primitive.count(), primitive.value())


class ConditionUse(Scenario):
    """Processes make tokens, or take them, with nothing but a notification to go by."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition
        self._board = _Board()

    def roles(self) -> Mapping[str, tuple[int, Work]]:
        """See `Scenario.roles`: those who wait come to an end while others still wake them."""
        return {"taker": (2, self._take), "maker": (2, self._make)}

    def _take(self, me: Participant) -> None:
        tokens = self._board.tokens
        last = False
        while not last:
            last = me.told_to_stop()
            try:
                with self._condition:
                    while not tokens[0]:
                        self._condition.wait()
                    tokens[0] -= 1
            except OwnerDiedError:
                last = False

    def _make(self, me: Participant) -> None:
        while not me.told_to_stop():
            try:
                with self._condition:
                    self._board.tokens[0] += 1
                    self._condition.notify()
            except OwnerDiedError:
                continue
            select.select([], [], [], _REST)

    def check(self, participants: list[Participant]) -> None:
        """Nobody is in the line, once the dead were noticed, and it works."""
        condition: Any = self._condition
        try:
            condition.acquire()
        except OwnerDiedError:
            condition.acquire()
        condition.notify_all()
        assert not condition.wait(0.01)
        condition.release()
        check_lock(condition._lock, condition._lock._primitive, 1)

    def close(self) -> None:
        """See `Scenario.close`."""
        self._board.close()
        del self._condition


class EventUse(Scenario):
    """Processes wait for an event that others set and clear."""

    def __init__(self, event: Event) -> None:
        self._event = event

    def roles(self) -> Mapping[str, tuple[int, Work]]:
        """See `Scenario.roles`: those who wait come to an end while others still set it."""
        return {"waiter": (2, self._wait), "setter": (2, self._set)}

    def _wait(self, me: Participant) -> None:
        last = False
        while not last:
            last = me.told_to_stop()
            assert self._event.wait()
            self._event.clear()

    def _set(self, me: Participant) -> None:
        chance = random.Random(me.number)
        while not me.told_to_stop():
            self._event.set()
            if chance.random() < 0.5:
                self._event.clear()
        self._event.set()

    def check(self, participants: list[Participant]) -> None:
        """It is set, can be cleared and be set."""
        event = self._event
        event.set()
        assert event.is_set()
        event.clear()
        assert not event.wait(0)
        event.set()
        assert event.wait(0)

    def close(self) -> None:
        """See `Scenario.close`."""
        del self._event


class BarrierUse(Scenario):
    """Processes go on together, and mend what a death has broken. *barrier* is for four."""

    def __init__(self, barrier: Barrier) -> None:
        assert _USERS == barrier.parties
        self._barrier = barrier
        self._board = _Board()

    def roles(self) -> Mapping[str, tuple[int, Work]]:
        """See `Scenario.roles`."""
        return {"party": (_USERS, self._pass)}

    def _pass(self, me: Participant) -> None:
        """Go on until a whole round has followed the word to stop, of this one or of another."""
        last = False
        while not last:
            last = me.told_to_stop()
            try:
                assert 0 <= self._barrier.wait() < _USERS
            except BrokenBarrierError as error:
                if error.process not in (None, "MainProcess"):
                    raise
                if self._board.is_over[0]:
                    return
                last = False
                self._barrier.reset()
        self._board.is_over[0] = 1

    def wake(self) -> None:
        """See `Scenario.wake`: who waits for one that has finished would do so for ever."""
        if self._board.is_over[0]:
            self._barrier.abort()

    def check(self, participants: list[Participant]) -> None:
        """After a reset nobody waits and it is not broken."""
        self._barrier.reset()
        assert (0, False) == (self._barrier.n_waiting, self._barrier.broken)

    def close(self) -> None:
        """See `Scenario.close`."""
        self._board.close()
        del self._barrier
