"""A line of threads, of many processes, that wait; each is known, and can be told something."""

from __future__ import annotations

from procession._ground.shared_words import SharedWords, reserve
from procession._locks.gong import Gong
from procession._locks.holder import RECORD_WORDS, Holder, write_record
from procession.errors import ResourceError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

    from procession._locks.gong import Ear

#: The state of a place: nobody's, or of somebody who waits. Larger numbers are what those
#: who waited were told, and mean what the line's user wants.
FREE: Final = 0
WAITING: Final = 1

# Words of the line: the next ticket, and how many places were ever taken. Of a place: its
# state, its ticket, and who has it.
_TICKET, _TAKEN, _HEAD = range(3)
_STATE, _NUMBER, _WHO = range(3)
_PLACE_WORDS = _WHO + RECORD_WORDS


class Seat:
    """The place of one call in a line, noted in the step that takes it.

    The interpreter runs signal handlers between some instructions, but not between two
    plain assignments: a handler that raises finds shared memory and this note in step.
    """

    __slots__ = ("place",)

    def __init__(self) -> None:
        #: -1 while it has none.
        self.place = -1


class WaitLine:
    """Places for *size* threads that wait at once, and *extra* words for the line's user.

    Who waits is in shared memory, with its process: so the dead can be told from the living,
    and nothing meant for one that lives is lost on one that died. A place's state is one
    word. The living leave; the place of a dead one is taken again when places run out.

    What is said to need the guard is called by functions that ``guard.run`` runs.
    """

    def __init__(self, size: int, extra: int = 0) -> None:
        count = _HEAD + extra + size * _PLACE_WORDS
        space, at = reserve(count)
        self._set_up(space, at, size, extra, Gong())
        self._head[_TICKET] = 1

    def _set_up(self, space: SharedWords, at: int, size: int, extra: int, gong: Gong) -> None:
        self._space, self._at, self._size, self._gong = space, at, size, gong
        first = at + _HEAD + extra
        self._head = space.words[at : at + _HEAD]
        #: The words of the line's user.
        self.extra = space.words[at + _HEAD : first]
        self._places = space.words[first : first + size * _PLACE_WORDS]
        #: What makes changes of the line one at a time.
        self.guard = space.guard(at)

    def listen(self) -> Ear:
        """Return an ear that hears `call`."""
        return self._gong.listen()

    def call(self) -> None:
        """Make everybody in the line look at its state."""
        self._gong.strike()

    def state(self, seat: Seat) -> int:
        """Return the state of a seat's place. Needs no guard."""
        return self._places[seat.place * _PLACE_WORDS + _STATE]

    def enlist(self, seat: Seat) -> None:
        """Take a place, `WAITING`. Needs the guard.

        Raises `procession.errors.ResourceError` when there is none.
        """
        place = self._find_place()
        at = place * _PLACE_WORDS
        places = self._places
        write_record(places[at + _WHO : at + _PLACE_WORDS])
        ticket = places[at + _NUMBER] = self._head[_TICKET]
        self._head[_TICKET] = ticket + 1
        self._head[_TAKEN] = max(self._head[_TAKEN], place + 1)
        places[at + _STATE] = WAITING
        seat.place = place

    def leave(self, seat: Seat) -> int:
        """Give the place up; return its last state.

        Needs the guard as long as that may change: while it waits.
        """
        at = seat.place * _PLACE_WORDS + _STATE
        state = self._places[at]
        self._places[at] = FREE
        seat.place = -1
        return state

    def tell(self, place: int, what: int) -> None:
        """Change the state of a place. Needs the guard; `call` afterwards."""
        self._places[place * _PLACE_WORDS + _STATE] = what

    def places(self, state: int) -> list[int]:
        """Return the places of this state, those first that have waited longest."""
        found = [
            (self.ticket(place), place)
            for place in self._taken()
            if self._places[place * _PLACE_WORDS + _STATE] == state
        ]
        return [place for _, place in sorted(found)]

    def has(self, state: int) -> bool:
        """Return whether a place is of this state; without the guard, as it seems."""
        return any(self._places[place * _PLACE_WORDS + _STATE] == state for place in self._taken())

    def ticket(self, place: int) -> int:
        """Return the number that its taker drew: smaller than those of all who came later."""
        return self._places[place * _PLACE_WORDS + _NUMBER]

    def next_ticket(self) -> int:
        """Return the number that the next one will draw."""
        return self._head[_TICKET]

    def who(self, place: int) -> Holder:
        """Return who has, or had, a place."""
        at = place * _PLACE_WORDS
        return Holder.from_record(self._places[at + _WHO : at + _PLACE_WORDS])

    def _taken(self) -> Iterator[int]:
        return iter(range(self._head[_TAKEN]))

    def _find_place(self) -> int:
        taken = self._head[_TAKEN]
        for place in range(taken):
            if self._places[place * _PLACE_WORDS + _STATE] == FREE:
                return place
        if taken < self._size:
            return taken
        for place in range(taken):
            if self.who(place).has_died():
                return place
        raise ResourceError(f"{self._size} threads wait already, and more are not possible")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process of this host."""
        extra = len(self.extra)
        return _rebuild, (type(self), self._space, self._at, self._size, extra, self._gong)


def _rebuild(kind: type[WaitLine], *parts: Any) -> WaitLine:
    line = kind.__new__(kind)
    line._set_up(*parts)
    return line
