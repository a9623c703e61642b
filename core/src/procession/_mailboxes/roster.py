"""Which processes use a mailbox for what, noted in memory that all of them share."""

from __future__ import annotations

import sys
from os import getpid

from procession._ground.process_status import start_of_living

#: The bytes that a roster needs.
SIZE = 4096

# Words of eight bytes: first what belongs to nobody in particular, then the places.
_LOST, _UNPLACED, _FIRST = 0, 1, 4
# Words of one place.
_PID, _BEGUN, _ASLEEP, _UNDONE = range(4)
_PLACE = 4
_LAST = SIZE // 8 - _PLACE


class Roster:
    """A place for each process that sleeps in a mailbox for long or takes what is counted.

    A place is had with the mailbox's lock held, as is every change of a number of undone
    messages. Only its own process notes that it sleeps. What a killed process leaves is
    cleared away by whoever needs its place; a process is told from an earlier one of the
    same number by the time at which it began.

    There are places for more than a hundred processes. Who finds none is never known to
    sleep, and messages that it takes are known to be undone, but not by whom.
    """

    __slots__ = ("_counts", "_place", "_words", "owner")

    #: The process that was last given a place through this object: this one, or 0.
    owner: int

    def __init__(self, words: memoryview) -> None:
        """Use *words*, of format ``Q``, which are taken over: `close` releases them."""
        self._words = words
        # Who does what others took has done more than it took.
        self._counts = words.cast("B").cast("q")
        self._place = 0
        self.owner = 0

    def close(self) -> None:
        """Release the words."""
        self._counts.release()
        self._words.release()

    def place(self) -> int:
        """Return this process's place, 0 if there is none. The mailbox's lock is held."""
        pid = getpid()
        if self.owner != pid:  # a forked child is another process
            self._place = self._find(pid)
            self.owner = pid
        return self._place

    def _find(self, pid: int) -> int:
        words = self._words
        begun = _begun(pid)
        free = gone = 0
        for at in range(_FIRST, _LAST + 1, _PLACE):
            if words[at + _PID] == pid and words[at + _BEGUN] == begun:
                return at  # another copy of the mailbox in this process has it
            if not words[at + _PID]:
                free = at
                break
            if not gone and not self._lives(at):
                gone = at
        # What is known of the dead is kept as long as there is room.
        at = free or gone
        if at:
            # In this order: a process killed in between has lost nothing.
            words[_LOST] += max(0, self._counts[at + _UNDONE])
            words[at + _UNDONE] = 0
            words[at + _ASLEEP] = 0
            words[at + _BEGUN] = begun
            words[at + _PID] = pid
        return at

    def _lives(self, at: int) -> bool:
        words = self._words
        pid = words[at + _PID]
        return pid != 0 and _begun(pid) == words[at + _BEGUN]

    # -- sleeping

    def sleep(self) -> None:
        """Note that all of this process sleeps in the mailbox, if it has a place."""
        if self._place and self.owner == getpid():
            self._words[self._place + _ASLEEP] = 1

    def wake(self) -> None:
        """Note that it does so no more."""
        if self._place and self.owner == getpid():
            self._words[self._place + _ASLEEP] = 0

    def asleep(self) -> set[int]:
        """Return the processes that sleep; those killed in their sleep may be among them."""
        words = self._words
        return {
            words[at + _PID]
            for at in range(_FIRST, _LAST + 1, _PLACE)
            if words[at + _ASLEEP] and self._lives(at)
        }

    # -- what is undone

    def count(self, change: int) -> None:
        """Count messages that this process took (or, negative, did). The lock is held."""
        if self.owner != getpid():
            self.place()
        self._counts[self._place + _UNDONE if self._place else _UNPLACED] += change

    def undone(self) -> dict[int, int]:
        """Return for each process how many more messages it took than did, if any.

        Those of processes that are gone stand for 0, those of unknown ones for -1. The
        lock is held.
        """
        words = self._words
        found = {0: words[_LOST], -1: self._counts[_UNPLACED]}
        for at in range(_FIRST, _LAST + 1, _PLACE):
            count = self._counts[at + _UNDONE]
            if count > 0:
                pid = words[at + _PID]
                found[pid] = found.get(pid, 0) + count
        return {pid: count for pid, count in found.items() if count}


def _begun(pid: int) -> int:
    """Return when process *pid* began, in ticks of the kernel; 0 if it does not exist."""
    return start_of_living(pid) if sys.platform == "linux" else 1
