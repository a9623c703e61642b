"""Looking for what is awaited, for a moment, before going to sleep.

Who sleeps has to be woken, and where that means waking a processor it takes several times as
long as a short call does. Who is answered at once, again and again, does better to look for the
answer instead. That takes a processor which nobody else wants, so it is done only for as long as
it has paid lately, and by one thread of a process at a time.
"""

from __future__ import annotations

import os
import sys
from time import monotonic

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

#: How long to look, in seconds: the other side may sleep, and has to be woken before it answers.
LONGEST = 100e-6
#: A look that would be no longer is not worth it.
_SHORTEST = 3e-6
#: After looks in vain, so many waits pass without one; twice as many each time, up to the last.
SHORTEST_REST, LONGEST_REST = 16, 1024

#: Whose wait was the last one in this process.
_last: Lookout | None = None


class Lookout:
    """Looks for one thing that is waited for again and again, by one thread at a time.

    How long that pays is learned from how it went: when what is looked for comes meanwhile. It
    has not paid when it was there already, or when the look was interrupted, as somebody else
    wanted the processor or the GIL.

    Nobody looks when waits of another one come between, in a process that has several
    conversations at once: threads that look would take the GIL from those that have something
    to do. Nor does anybody where this process may use one processor only.

    Fork: a child can go on with it.
    """

    __slots__ = ("_longest", "_next_rest", "_rest")

    def __init__(self) -> None:
        # How long to look; 0 when it is to be tried again.
        self._longest = 0.0
        # How many waits pass first.
        self._rest = 0
        self._next_rest = SHORTEST_REST

    def look(self, ask: Callable[[], T]) -> T | None:
        """Call *ask* until what it returns is true, or it is time to sleep; return that.

        None when it was not even asked. *ask* does not wait, and lets go of the GIL. Raises
        what it raises.
        """
        global _last
        if _last is not self:
            _last = self
            return None
        if self._rest:
            self._rest -= 1
            return None
        longest = self._longest or _trial()
        answer = ask()
        if answer:
            self._was_in_vain()
            return answer
        begun = now = monotonic()
        end = begun + longest
        while now < end and _last is self:
            answer = ask()
            now = monotonic()
            if answer:
                if now < end:
                    self._longest, self._next_rest = LONGEST, SHORTEST_REST
                    return answer
                break
        if now > begun + 2 * LONGEST:
            self._longest = 0.0  # it was interrupted: once is enough
        self._was_in_vain()
        return answer

    def _was_in_vain(self) -> None:
        """Look less long from now on, or rest."""
        self._longest /= 2
        if self._longest < _SHORTEST:
            self._longest = 0.0
            self._rest = self._next_rest
            self._next_rest = min(2 * self._next_rest, LONGEST_REST)


def _trial() -> float:
    """Return how long to look to find out whether that pays."""
    return LONGEST if _processors() > 1 else 0.0


def _processors() -> int:
    """Return how many processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_ordered_stores() -> bool:
    """Return whether the other processors see what this one writes in that order.

    Python has no barrier: where one would be needed, looking at memory tells nothing.
    """
    return sys.platform != "win32" and os.uname().machine in ("x86_64", "amd64", "i686")
