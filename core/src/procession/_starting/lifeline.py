"""The lifeline: how a child learns that its parent has died, however it died.

Every process that starts children holds the writing end of one pipe and never writes
to it; each child gets the reading end. When the process ends, killed or not, the
kernel closes the only writing end and every reading end becomes readable. This needs
no thread, no signal and no process id, and works where pidfds do not.
"""

from __future__ import annotations

import os

from procession._ground.after_fork import in_forked_children

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import TypeAlias

    #: The reading end, the writing end, and the number that no other pipe has.
    _Pipe: TypeAlias = tuple[int, int, int]


class Lifeline:
    """This process's own lifeline, made when its first child is started.

    Threads: any. Fork: in a forked child it starts anew, and the writing end is
    closed there at once: a child that kept it would hide the parent's death from
    its siblings. The reading end stays open, as the child's view of its parent.
    """

    def __init__(self) -> None:
        # The two ends and the number of the pipe that has been made first, under None, and, under
        # each that was lost, of what has been made instead. Without a lock, which every forked
        # child would have to replace: of two threads, one keeps its pipe.
        self._made: dict[_Pipe | None, _Pipe] = {}
        self._watches_forks = False

    def reading_end(self) -> int:
        """Return the end that children get; it stays this object's."""
        pipe = self._last()
        # A program that has made a daemon of itself has closed all descriptors that it did not
        # know, and may have opened files of its own under the same numbers.
        if pipe is None or not _is(pipe[0], pipe):
            pipe = self._make(pipe)
        return pipe[0]

    def _last(self) -> _Pipe | None:
        pipe = self._made.get(None)
        while pipe in self._made:
            pipe = self._made[pipe]
        return pipe

    def _make(self, lost: _Pipe | None) -> _Pipe:
        if not self._watches_forks:
            in_forked_children(self._abandon)  # twice is no harm
            self._watches_forks = True
        ends = os.pipe()
        made = *ends, os.fstat(ends[0]).st_ino
        kept = self._made.setdefault(lost, made)
        if kept is not made:
            for end in ends:
                os.close(end)
        return kept

    def _abandon(self) -> None:
        pipe = self._last()
        self._made.clear()
        if pipe is not None and _is(pipe[1], pipe):
            os.close(pipe[1])


def _is(fd: int, pipe: _Pipe) -> bool:
    """Return whether *fd* is still an end of *pipe*."""
    try:
        return os.fstat(fd).st_ino == pipe[2]
    except OSError:
        return False


#: This process's own.
lifeline = Lifeline()
