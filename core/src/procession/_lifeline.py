"""The lifeline: how a child learns that its parent has died, however it died.

Every process that starts children holds the writing end of one pipe and never writes
to it; each child gets the reading end. When the process ends, killed or not, the
kernel closes the only writing end and every reading end becomes readable. This needs
no thread, no signal and no process id, and works where pidfds do not.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from procession._after_fork import in_forked_children


class Lifeline:
    """This process's own lifeline, made when its first child is started.

    Threads: any. Fork: in a forked child it starts anew, and the writing end is
    closed there at once: a child that kept it would hide the parent's death from
    its siblings. The reading end stays open, as the child's view of its parent.
    """

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._ends: tuple[int, int] | None = None
        self._watches_forks = False

    def reading_end(self) -> int:
        """Return the end that children get; it stays this object's."""
        with self._lock:
            if not self._watches_forks:
                in_forked_children(self._abandon)
                self._watches_forks = True
            if self._ends is None:
                self._ends = os.pipe()
            return self._ends[0]

    def _abandon(self) -> None:
        self._lock = allocate_lock()
        ends, self._ends = self._ends, None
        if ends is not None:
            os.close(ends[1])


#: This process's own.
lifeline = Lifeline()
