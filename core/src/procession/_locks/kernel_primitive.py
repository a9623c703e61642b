"""Primitives in pure Python, from kernel objects: no extension, and as safe as with one."""

from __future__ import annotations

import errno
import time
from _thread import get_ident

from procession._contracts.primitives import (
    LOCK,
    MOST_UNITS,
    NOTICE_SECONDS,
    RECURSIVE,
    SEMAPHORE,
    Primitive,
)
from procession._ground.bell import Bell
from procession._ground.shared_words import SharedWords, reserve
from procession._locks.holder import RECORD_WORDS, Holder, myself, owner_died, write_record

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Self

    from procession._ground.handoff import Handoff, Recipe, Takeover

# Words of a primitive: whether it is a signal, and its free units then; all units there are
# while it is none; threads that wait; whether somebody waits for the descriptor.
_SIGNAL, _FREE, _ALL, _WAITERS, _WATCHED, _HEAD = range(6)
# The most processes that are recorded as holders of one semaphore at a time.
_MOST_HOLDERS = 256


class _Claim:
    """What one call has done to the primitive, noted in the same step.

    The interpreter runs signal handlers between some instructions, but not between two
    plain assignments: a handler that raises finds the shared word and this note in step.
    """

    __slots__ = ("enlisted", "settled")

    def __init__(self) -> None:
        self.settled = False
        self.enlisted = False


class KernelPrimitive(Primitive):
    """See `Primitive`. The state is in shared words, under a file lock; waiters hear a bell.

    Each holder has a record and a word with its number of units. That word is the truth:
    writing it is the one step that takes or gives back a unit, and how many are free
    follows from all of them. The file lock is released by the kernel when its holder dies,
    and what it guards is right after each single write.

    A waiter says so in a word; who gives a unit back under the lock sees it, and rings.
    One ring wakes one waiter. A waiter that takes a unit and sees another free, or leaves
    without one, rings on, so that no ring is lost; if it is killed on the way, the others
    look again after `NOTICE_SECONDS`.

    A signal handler that wants the primitive in the few microseconds in which the code
    that it interrupted holds the file lock gets a `RuntimeError`. One that raises in the
    instant in which `release` is entered, or `acquire` left, comes before the one, or after
    the other: only native code has no such instant.

    More than 256 processes that hold units of one semaphore at once are not recorded: it
    becomes a signal.
    """

    name = "python"

    __slots__ = ("_at", "_bell", "_guard", "_level", "_owners", "_records", "_slots", "_space",
                 "_units", "_words", "kind", "maxvalue")  # fmt: skip

    def __init__(
        self, kind: int, maxvalue: int, place: tuple[SharedWords, int, int], bell: Bell,
        level: Bell | None,
    ) -> None:  # fmt: skip
        self.kind = kind
        self.maxvalue = maxvalue
        self._space, self._at, self._slots = place
        head = self._at + _HEAD
        self._words = self._space.words[self._at : head]
        self._units = self._space.words[head : head + self._slots]
        self._records = head + self._slots
        self._guard = self._space.guard(self._at)
        # Which thread of this process holds a recursive lock, for the way without the guard.
        self._owners = self._space.owners
        self._bell = bell
        # Readable while a unit is free, once somebody has asked for it.
        self._level = level

    @classmethod
    def make(cls, kind: int, value: int, maxvalue: int, /) -> Self:
        """See `Primitive.make`."""
        slots = min(value, _MOST_HOLDERS)
        space, at = reserve(_HEAD + slots * (1 + RECORD_WORDS))
        bell = Bell()
        level = Bell() if kind == SEMAPHORE else None
        made = cls(kind, maxvalue, (space, at, slots), bell, level)
        made._words[_ALL] = value
        made._words[_SIGNAL] = not slots
        return made

    # -- acquiring -----------------------------------------------------------------------

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """See `Primitive.acquire`."""
        if self._owners.get(self._at) == get_ident():
            # Nobody else changes the units of a recursive lock while this thread holds it.
            self._units[0] += 1
            return True
        deadline = None
        if not block:
            deadline = 0.0
        elif timeout is not None:
            deadline = time.monotonic() + timeout
        claim = _Claim()
        try:
            if self._guard.run(self._take, claim):
                return True
            self._bury()
            if deadline is not None and deadline <= time.monotonic():
                return False
            return self._wait(claim, deadline)
        except BaseException:
            if claim.settled:
                self.release()
            raise

    def _wait(self, claim: _Claim, deadline: float | None) -> bool:
        """Take a unit until *deadline*; return whether there was one."""
        try:
            taken = self._guard.run(self._take_or_enlist, claim)
            while not taken:
                left = NOTICE_SECONDS if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    break
                rung = self._bell.wait(min(left, NOTICE_SECONDS))
                if rung:
                    self._bell.silence()
                taken = self._guard.run(self._take, claim)
                if not (taken or rung):
                    self._bury()
            return taken
        finally:
            if claim.enlisted:
                self._guard.run(self._leave, claim)

    def _take_or_enlist(self, claim: _Claim) -> bool:
        if self._take(claim):
            return True
        self._words[_WAITERS] += 1
        claim.enlisted = True
        return False

    def _take(self, claim: _Claim) -> bool:
        """Take a unit if one is free; the guard is held."""
        words, units = self._words, self._units
        free = self._count_free()
        if words[_SIGNAL]:
            if free:
                words[_FREE] = free - 1
                claim.settled = True
        elif free and free == words[_ALL]:  # nobody holds anything
            self._take_in(0, claim)
        else:
            slot = self._own_slot()
            if slot >= 0 and (free or self.kind == RECURSIVE):
                units[slot] += 1
                claim.settled = True
            elif free:
                self._take_anew(claim, free)
        if claim.settled:
            if claim.enlisted:
                self._leave(claim)
            free -= 1
        if words[_WATCHED] and free <= 0 and self._level is not None:
            self._level.silence()
        return claim.settled

    def _take_anew(self, claim: _Claim, free: int) -> None:
        """Take a free unit for a process that holds none."""
        units = self._units
        for slot in range(self._slots):
            if not units[slot]:
                self._take_in(slot, claim)
                return
        self._become_signal(free)
        self._words[_FREE] = free - 1
        claim.settled = True

    def _take_in(self, slot: int, claim: _Claim) -> None:
        """Take a unit for a process that gets *slot* with it."""
        write_record(self._space.words, self._records + slot * RECORD_WORDS)
        thread = get_ident() if self.kind == RECURSIVE else 0
        self._units[slot] = 1
        claim.settled = True
        if thread:
            self._owners[self._at] = thread

    def _leave(self, claim: _Claim) -> None:
        """Wait no longer, and ring on if there is something for another one."""
        if self._words[_WAITERS]:
            self._words[_WAITERS] -= 1
        claim.enlisted = False
        if self._words[_WAITERS] and self._count_free():
            self._bell.ring()

    # -- releasing -----------------------------------------------------------------------

    def release(self) -> None:
        """See `Primitive.release`."""
        claim = None
        nested = False
        try:
            if self._owners.get(self._at) == get_ident() and self._units[0] > 1:
                nested = True
                self._units[0] -= 1
                return
            claim = _Claim()
            self._guard.run(self._give, claim)
        except BaseException:
            # A signal handler that raises must not keep it locked: nobody would know.
            if claim is None or not claim.settled:
                self._guard.run(self._give, _Claim())
            raise
        finally:
            if self._words[_WAITERS] and not nested:
                self._bell.ring()

    def _give(self, claim: _Claim) -> None:
        """Give a unit back; the guard is held."""
        words, units = self._words, self._units
        slot = -1 if words[_SIGNAL] else self._own_slot()
        if self.kind == RECURSIVE and slot < 0:
            claim.settled = True
            raise AssertionError("attempt to release recursive lock not owned by thread")
        free = self._count_free()
        if slot < 0 and free >= self.maxvalue:
            claim.settled = True
            raise ValueError("semaphore or lock released too many times")
        if words[_WATCHED] and self._level is not None:
            # First: one killed in between leaves it readable for nothing, not the reverse.
            self._level.ring()
        if slot >= 0:
            if self.kind == RECURSIVE and units[slot] == 1:
                self._owners[self._at] = 0  # before it is anybody else's
            units[slot] -= 1
            claim.settled = True
        elif self.kind == LOCK:
            units[0] = 0
            claim.settled = True
        else:
            if not words[_SIGNAL]:
                self._become_signal(free)
            words[_FREE] = free + 1
            claim.settled = True

    def _become_signal(self, free: int) -> None:
        """Record no holders from now on, with *free* free units."""
        self._words[_FREE] = free
        self._words[_SIGNAL] = 1

    # -- those who died ------------------------------------------------------------------

    def _bury(self) -> None:
        """Free what a dead process holds and raise `OwnerDiedError`, if there is one."""
        for slot, holder in self._look():
            if holder.has_died() and self._guard.run(self._free, slot, holder):
                raise owner_died(holder, _NOUNS[self.kind])

    def _free(self, slot: int, holder: Holder) -> bool:
        """Free the units in *slot* if they are still *holder*'s; the guard is held."""
        words = self._words
        now = Holder.from_record(self._record(slot), self._units[slot])
        if words[_SIGNAL] or (now.pid, now.start) != (holder.pid, holder.start) or not now.units:
            return False
        if words[_WATCHED] and self._level is not None:
            self._level.ring()
        self._units[slot] = 0
        if words[_WAITERS]:
            self._bell.ring()
        return True

    # -- asking --------------------------------------------------------------------------

    def value(self) -> int:
        """See `Primitive.value`."""
        return self._guard.run(self._count_free)

    def count(self) -> int:
        """See `Primitive.count`."""
        return self._guard.run(self._count_own)

    def _count_own(self) -> int:
        slot = -1 if self._words[_SIGNAL] else self._own_slot()
        return self._units[slot] if slot >= 0 else 0

    def holders(self) -> list[Holder]:
        """See `Primitive.holders`."""
        return [holder for _, holder in self._guard.run(self._look)]

    def fileno(self) -> int:
        """See `Primitive.fileno`."""
        if self._level is None:
            raise OSError(
                errno.EOPNOTSUPP, "only an Event and a semaphore can be waited for by descriptor"
            )
        if not self._words[_WATCHED]:
            self._guard.run(self._watch)
        return self._level.fileno()

    def _watch(self) -> None:
        assert self._level is not None
        if self._count_free():
            self._level.ring()
        self._words[_WATCHED] = 1

    def _count_free(self) -> int:
        """Return how many units are free; the guard is held."""
        words = self._words
        if words[_SIGNAL]:
            return words[_FREE]
        if self.kind != SEMAPHORE:
            return 0 if self._units[0] else 1
        return words[_ALL] - sum(self._units)

    def _own_slot(self) -> int:
        """Return where the units of this process (of this thread, if recursive) are, or -1."""
        pid, start = myself()
        words, position = self._space.words, self._records
        for slot, units in enumerate(self._units):
            if units and words[position] == pid and words[position + 1] == start:
                if self.kind == RECURSIVE and words[position + 2] != get_ident():
                    return -1
                return slot
            position += RECORD_WORDS
        return -1

    def _look(self) -> list[tuple[int, Holder]]:
        """Return the holders and their slots."""
        if self._words[_SIGNAL]:
            return []
        return [
            (slot, Holder.from_record(self._record(slot), units))
            for slot, units in enumerate(self._units)
            if units
        ]

    def _record(self, slot: int) -> memoryview:
        position = self._records + slot * RECORD_WORDS
        return self._space.words[position : position + RECORD_WORDS]

    # -- crossing ------------------------------------------------------------------------

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        level = None if self._level is None else self._level.export(handoff)
        place = self._space.export(handoff), self._at, self._slots
        return self.kind, self.maxvalue, place, self._bell.export(handoff), level

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        kind, maxvalue, (space, at, slots), bell, level = recipe
        return cls(
            kind,
            maxvalue,
            (SharedWords.attach(space, takeover), at, slots),
            Bell.attach(bell, takeover),
            None if level is None else Bell.attach(level, takeover),
        )

    def close(self) -> None:
        """See `Primitive.close`."""
        self._bell.close()
        if self._level is not None:
            self._level.close()


_NOUNS = {LOCK: "a Lock", RECURSIVE: "an RLock", SEMAPHORE: "a semaphore"}
assert MOST_UNITS < 1 << 63
