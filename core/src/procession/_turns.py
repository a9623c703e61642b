"""Giving way to those who may be about to end a wait, instead of sleeping."""

from __future__ import annotations

import os
import sys
import time

from procession._packet_marks import MOVED
from procession._patience import REWARD

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable

#: Giving way may take so many seconds, if whoever has the processor does nothing but compute:
#: it is not for those who have less time.
LONGEST = 0.01
# How often to give way before that was in vain: some ten microseconds where nobody else wants
# the processor. To sleep and be woken takes as long, and keeps whoever wakes us busy, too.
_TURNS = 10
# After so many seconds no other turn is begun.
_LONG = 0.0002
# After turns in vain, at most so many waits pass without any.
_LONGEST_REST = 255

_MASK = (1 << 32) - 1

_give_way: Callable[[], object]
if sys.platform == "win32":  # where there are no packet mailboxes
    _give_way = bool
else:
    _give_way = os.sched_yield


class Turns:
    """Finds out whether one kind of wait is over sooner than it takes to fall asleep.

    Where messages move by the thousand, who waits for one need not sleep: it gives way and looks
    again. Otherwise it would sleep, and have to be woken, for nearly every message, by somebody
    who is interrupted by that in making the next one.

    How many messages moved while processes gave way they tell each other by a word of the
    mailbox. If fewer did than pay for the time, somebody else was computing, or nothing was to
    come; then the next waits pass without any turns, twice as many each time. So nobody who is
    in vain pays for it for long, neither by processor time nor by being late.

    No thread or process needs a lock for this: what two write at once may count once.
    """

    __slots__ = ("_next_rest", "_rest", "_words")

    def __init__(self, words: memoryview) -> None:
        """*words*: the mailbox's hot words, which are borrowed."""
        self._words = words
        self._rest = self._next_rest = 0

    def give(self, look: Callable[[], int]) -> bool:
        """Give way to others until *look* returns something, and return whether it did.

        *look* returns how many messages have moved; what it raises is passed on. This takes less
        than `LONGEST`, unless several others compute, and nothing at all while it is in vain.
        """
        if self._rest:
            self._rest -= 1
            return False
        words = self._words
        before = words[MOVED]
        begun = time.monotonic()
        for _ in range(_TURNS):
            _give_way()
            found = look()
            took = time.monotonic() - begun
            if found or took > _LONG:
                break
        if found:
            words[MOVED] = (words[MOVED] + found) & _MASK
        if (words[MOVED] - before & _MASK) * REWARD >= took:
            self._next_rest = 0
        else:
            self._rest = self._next_rest = min(2 * self._next_rest + 1, _LONGEST_REST)
        return found > 0
