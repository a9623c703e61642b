"""Giving way to those who may be about to end a wait, instead of sleeping."""

from __future__ import annotations

import os
import sys
import time

from procession._mailboxes.packet_marks import MOVED
from procession._mailboxes.patience import Patience

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
# What may be spent on turns in vain before they are tried rarely, in seconds: once as much as
# somebody who computes takes, or some hundred times as much as nobody does.
_SAVINGS = 0.004
# What is found earns so much of what a message earns that is taken during a nap. (To be woken on
# a processor that is awake costs little more, and to be late by milliseconds is hundreds of it.)
_WORTH = 0.2

#: Where the word wraps around that says how many messages moved.
MASK = (1 << 32) - 1

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

    If less is found than pays for the time (`Patience`), somebody else is computing, or nothing
    is to come. Then it is tried for a hundredth of the time; so nobody who is in vain pays for it
    for long, neither by processor time nor by being late. Turns in which others have moved
    messages are not counted: nothing has waited for us. That they did they say by a word of the
    mailbox, where those count who had to wait.

    No thread or process needs a lock for this: what two write at once may count once.
    """

    __slots__ = ("_patience", "_words")

    def __init__(self, words: memoryview) -> None:
        """*words*: the mailbox's hot words, which are borrowed."""
        self._words = words
        self._patience = Patience(_SAVINGS)

    def give(self, look: Callable[[], int]) -> bool:
        """Give way to others until *look* returns something, and return whether it did.

        *look* returns how many messages have moved; what it raises is passed on. This takes less
        than `LONGEST`, unless several others compute, and nothing at all while it is in vain.
        """
        begun = time.monotonic()
        if not self._patience.allows(begun):
            return False
        words = self._words
        before = words[MOVED]
        for _ in range(_TURNS):
            _give_way()
            found = look()
            now = time.monotonic()
            if found or now - begun > _LONG:
                break
        if words[MOVED] == before:  # else others were awake, and nothing waited for us
            self._patience.record(now, now - begun, found * _WORTH)
        if found:
            words[MOVED] = (words[MOVED] + found) & MASK
        return found > 0
