"""`Barrier`: going on together."""

from __future__ import annotations

import time

from procession._contracts.primitives import NOTICE_SECONDS
from procession._locks.holder import RECORD_WORDS, Holder, obituary
from procession._locks.wait_line import WAITING, Seat, WaitLine

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from procession._locks.broken_barrier import BrokenBarrierError

# What those who wait are told.
_PASSED, _RESET, _BROKEN = 2, 3, 4

# Words: all with a smaller ticket have passed; all with a smaller one that had not passed
# were reset; whether it is broken; the ticket of the last one to come, who carries out the
# action; and the record of who has died, if that is why it is broken.
_PASSED_BELOW, _RESET_BELOW, _IS_BROKEN, _LAST, _DEAD = range(5)
_WORDS = _DEAD + RECORD_WORDS

# Places beyond those of one round: for those who come again while others still leave.
_SPARE: Final = 16


class Barrier:
    """A point that *parties* threads, of whatever processes, pass together.

    A context makes it. As `threading.Barrier`: the last one to come calls *action*, if
    there is one, and then all go on; *timeout* is the default of `wait`. And if one of
    those who wait dies, the barrier breaks, and the error names it.

    A round is passed, or broken, by one word: a process that is killed on the way leaves
    nobody behind. Threads: any. Fork: both processes have it.
    """

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: object = None,
    ) -> None:
        self._set_up(parties, action, timeout, WaitLine(2 * max(parties, 0) + _SPARE, _WORDS))

    def _set_up(
        self,
        parties: int,
        action: Callable[[], object] | None,
        timeout: float | None,
        line: WaitLine,
    ) -> None:
        self._parties = parties
        self._action = action
        self._timeout = timeout
        self._line = line

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all parties have come, up to *timeout* seconds (None: the default).

        Returns this one's number among them, 0 for the first. Raises
        `procession.errors.BrokenBarrierError` (a `threading.BrokenBarrierError`) when the
        barrier is or gets broken, by a timeout, `abort`, an exception in the action or the
        death of one who waits, or when it is reset.
        """
        if timeout is None:
            timeout = self._timeout
        line, seat = self._line, Seat()
        try:
            with line.listen() as ear:
                while (number := line.guard.run(self._arrive, seat)) is None:
                    # The round before is complete, and its action not done yet.
                    ear.wait(NOTICE_SECONDS)
                    line.guard.run(self._look_after_last)
                if number == self._parties - 1:
                    self._complete(seat)
                deadline = None if timeout is None else time.monotonic() + timeout
                look_at = time.monotonic() + NOTICE_SECONDS
                while line.state(seat) == WAITING:
                    now = time.monotonic()
                    if deadline is not None and now >= deadline:
                        line.guard.run(self._time_out, seat)
                        line.call()
                        continue
                    if now >= look_at:
                        look_at = now + NOTICE_SECONDS
                        if line.guard.run(self._look_after_next, seat):
                            line.call()
                            continue
                    ear.wait(min(look_at, look_at if deadline is None else deadline) - now)
            state = line.guard.run(line.leave, seat)
            if state != _PASSED:
                raise self._error(state)
            return number
        finally:
            if seat.place >= 0:
                line.guard.run(self._abandon, seat)
                line.call()

    def _arrive(self, seat: Seat) -> int | None:
        """Join the round; return the number in it. None when it is complete already."""
        line, words = self._line, self._line.extra
        self._settle()
        if words[_IS_BROKEN]:
            raise self._error(_BROKEN)
        if words[_LAST] >= max(words[_PASSED_BELOW], words[_RESET_BELOW], 1):
            return None
        line.enlist(seat)
        places = line.places(WAITING)
        if len(places) == self._parties:
            words[_LAST] = line.ticket(seat.place)
        return len(places) - 1

    def _complete(self, seat: Seat) -> None:
        """Carry out the action and let all pass; the last one's part."""
        line = self._line
        try:
            if self._action is not None:
                self._action()
        except BaseException:
            line.guard.run(self._break)
            line.call()
            raise
        line.guard.run(self._pass, seat)
        line.call()

    def _pass(self, seat: Seat) -> None:
        self._settle()
        if self._line.state(seat) != WAITING:
            return  # it was broken or reset while the action ran
        for place in self._line.places(WAITING):
            who = self._line.who(place)
            if who.has_died():
                self._break(who)
                return
        self._line.extra[_PASSED_BELOW] = self._line.next_ticket()
        self._settle()

    def _time_out(self, seat: Seat) -> None:
        self._settle()
        if self._line.state(seat) == WAITING:
            self._break()

    def _abandon(self, seat: Seat) -> None:
        """Leave because of an exception; without its last one a round cannot be passed."""
        self._settle()
        if (
            self._line.state(seat) == WAITING
            and self._line.ticket(seat.place) == self._line.extra[_LAST]
        ):
            self._break()
        self._line.leave(seat)

    def _look_after_next(self, seat: Seat) -> bool:
        """Break if the one who came next has died; return whether something has changed.

        Each looks after one other, the last after the first: so everyone is looked after,
        and if several have died, one of them is seen by somebody who lives.
        """
        if self._settle():
            return True
        places = self._line.places(WAITING)
        if seat.place not in places:
            return True
        who = self._line.who(places[(places.index(seat.place) + 1) % len(places)])
        if not who.has_died():
            return False
        self._break(who)
        return True

    def _look_after_last(self) -> None:
        """Break if the one who carries out the action has died."""
        self._settle()
        for place in self._line.places(WAITING):
            who = self._line.who(place)
            if self._line.ticket(place) == self._line.extra[_LAST] and who.has_died():
                self._break(who)
                self._line.call()

    def _break(self, who: Holder | None = None) -> None:
        """Break the barrier, because *who* has died if given."""
        words = self._line.extra
        self._settle()
        record = words[_DEAD : _DEAD + RECORD_WORDS]
        if who is None:
            record[0] = 0
        else:
            who.write(record)
        words[_IS_BROKEN] = 1
        self._settle()

    def _settle(self) -> bool:
        """Tell everybody whom the words concern; return whether there was somebody.

        Whoever changes a word settles what was before it first, since a process may have
        been killed before it did: so one look at the words says which of them comes first.
        """
        line, words = self._line, self._line.extra
        found = False
        for place in line.places(WAITING):
            ticket = line.ticket(place)
            if ticket < words[_PASSED_BELOW]:
                line.tell(place, _PASSED)
            elif ticket < words[_RESET_BELOW]:
                line.tell(place, _RESET)
            elif words[_IS_BROKEN]:
                line.tell(place, _BROKEN)
            else:
                continue
            found = True
        return found

    def reset(self) -> None:
        """Begin anew, not broken; those who wait now get `BrokenBarrierError`."""
        self._line.guard.run(self._reset)
        self._line.call()

    def _reset(self) -> None:
        words = self._line.extra
        self._settle()
        words[_RESET_BELOW] = self._line.next_ticket()
        words[_IS_BROKEN] = 0
        self._settle()

    def abort(self) -> None:
        """Break it: those who wait, and all who come, get `BrokenBarrierError` until `reset`."""
        self._line.guard.run(self._break)
        self._line.call()

    @property
    def parties(self) -> int:
        """How many pass together."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many wait now."""
        return self._line.guard.run(self._count_waiting)

    def _count_waiting(self) -> int:
        self._settle()
        return len(self._line.places(WAITING))

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return bool(self._line.extra[_IS_BROKEN])

    def _error(self, state: int) -> BrokenBarrierError:
        from procession._locks.broken_barrier import BrokenBarrierError

        if state == _RESET:
            return BrokenBarrierError("the barrier was reset while this one waited")
        words = self._line.extra
        who = Holder.from_record(words[_DEAD : _DEAD + RECORD_WORDS])
        if not who.pid:
            return BrokenBarrierError(
                "the barrier is broken, by a timeout, an abort or a failed action; reset() mends it"
            )
        how, code = obituary(who)
        return BrokenBarrierError(
            f"the barrier is broken: {how} while it waited; reset() mends it",
            process=who.process,
            pid=who.pid,
            exitcode=code,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process of this host; the action must be picklable for that."""
        parts = type(self), self._parties, self._action, self._timeout, self._line
        return _rebuild, parts

    def __repr__(self) -> str:
        """Return how many wait, or that it is broken."""
        state = f"waiters={self.n_waiting}/{self._parties}"
        if self.broken:
            state = "broken"
        return f"<{type(self).__module__}.{type(self).__name__} at {id(self):#x}: {state}>"


def _rebuild(kind: type[Barrier], *parts: Any) -> Barrier:
    barrier = kind.__new__(kind)
    barrier._set_up(*parts)
    return barrier


# The public home: tracebacks print it and pickles refer to it.
Barrier.__module__ = "procession.synchronize"
