"""The lifeline: how a child learns that its parent has died, however it died.

Every process that starts children holds the writing end of one pipe and never writes
to it; each child gets the reading end. When the process ends, killed or not, the
kernel closes the only writing end and every reading end becomes readable. This needs
no thread, no signal and no process id, and works where pidfds do not.
"""

from __future__ import annotations

import os

from procession._after_fork import in_forked_children


class Lifeline:
    """This process's own lifeline, made when its first child is started.

    Threads: any. Fork: in a forked child it starts anew, and the writing end is
    closed there at once: a child that kept it would hide the parent's death from
    its siblings. The reading end stays open, as the child's view of its parent.
    """

    def __init__(self) -> None:
        # Its two ends and which pipe that is, under their name, once it is made. Without a lock,
        # which every forked child would have to replace: of two threads, one keeps its pipe.
        self._made: dict[str, tuple[int, int, int]] = {}
        self._watches_forks = False

    def reading_end(self) -> int:
        """Return the end that children get; it stays this object's."""
        made = self._made.get("ends")
        # A program that has made a daemon of itself has closed all descriptors that it did not
        # know, and may have opened files of its own under the same numbers.
        if made is not None and not (_is(made[0], made[2]) and _is(made[1], made[2])):
            self._made.clear()
            made = None
        if made is None:
            self._make()
        return self._made["ends"][0]

    def _make(self) -> None:
        if not self._watches_forks:
            in_forked_children(self._abandon)  # twice is no harm
            self._watches_forks = True
        ends = os.pipe()
        made = *ends, os.fstat(ends[0]).st_ino
        if self._made.setdefault("ends", made) is not made:
            for end in ends:
                os.close(end)

    def _abandon(self) -> None:
        made = self._made.pop("ends", None)
        if made is not None and _is(made[1], made[2]):
            os.close(made[1])


def _is(fd: int, pipe: int) -> bool:
    """Return whether *fd* is an end of the *pipe* with this number."""
    try:
        return os.fstat(fd).st_ino == pipe
    except OSError:
        return False


#: This process's own.
lifeline = Lifeline()
