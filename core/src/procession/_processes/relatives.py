"""Which relatives of this process have died, for those who wait for them.

A process knows of its own children, whose ends it collects, and of its parent, whose
lifeline it holds. It cannot know how siblings and grandchildren ended.
"""

from __future__ import annotations

import itertools
import sys

from procession._ground.handoff import Exportable, Handoff
from procession._ground.holders import identity
from procession._ground.process_status import FLAGS, status_of
from procession._ground.waiting import wait_readable
from procession._processes.base_process import exit_code_text
from procession._processes.family import family

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from procession._processes.base_process import BaseProcess
    from procession.process import Process

    Identity: TypeAlias = tuple[int, int]

# So many ends are remembered, the latest ones.
_MOST = 256
# The flag of a process that has begun to end, in /proc/PID/stat.
_EXITING = 4
# Who has begun to end has done so in a moment, unless it has gigabytes to give back.
_ENDING_SECONDS = 5.0


class Death:
    """The end of one relative, or of a process of which only the number is known.

    `exit_code` is None where nobody can tell: only who collects a process is told.
    """

    __slots__ = ("exit_code", "given", "name", "pid", "since")

    def __init__(
        self,
        name: str | None,
        pid: int | None,
        exit_code: int | None = None,
        *,
        given: frozenset[Identity] | None = None,
        since: float = 0.0,
    ) -> None:
        self.name = name
        self.pid = pid
        self.exit_code = exit_code
        #: What the child was given; None when it inherited whatever there was at `since`.
        self.given = given
        self.since = since

    def __str__(self) -> str:
        who = "a process" if self.name is None else f"process {self.name!r}"
        if self.pid is not None:
            who += f" (pid {self.pid})"
        if self.exit_code is None:
            return f"{who} has ended"
        if self.exit_code < 0:
            return f"{who} was killed by {exit_code_text(self.exit_code)[1:]}"
        return f"{who} has ended with exit code {self.exit_code}"


class Relatives:
    """What this process remembers of its children's ends and starts.

    Threads: any; everything is one step of the interpreter. Fork: a child, which has no
    children, calls what is in `to_forget`.
    """

    def __init__(self) -> None:
        self._ends: list[Death] = []
        self._count = itertools.count(1)
        self._starting: set[int] = set()
        self._last_start = 0
        self.to_forget: tuple[Callable[[], None], ...] = (self._ends.clear, self._starting.clear)

    # -- starts

    def begin_start(self) -> int:
        """Note that a start is under way; return what `end_start` wants."""
        number = next(self._count)
        self._starting.add(number)
        self._last_start = number
        return number

    def end_start(self, number: int) -> None:
        """Note that a start is over."""
        self._starting.discard(number)

    def last_start(self) -> int | None:
        """Return a number that changes with every start; None while one is under way."""
        return None if self._starting else self._last_start

    # -- ends

    def note_end(self, child: BaseProcess) -> None:
        """Remember that a child has ended. Twice is no harm."""
        code = child._exit_code()
        if code is not None and child._child is not None:
            self._ends.append(
                Death(
                    child._name,
                    child._child.pid,
                    code,
                    given=child._given,
                    since=child._started_at,
                )
            )
            del self._ends[:-_MOST]

    def end_of(self, pid: int) -> Death:
        """Return what is known of the end of process *pid*; 0 if not even the number is."""
        family.reap()
        for end in reversed(self._ends):
            if end.pid == pid:
                return end
        return Death(None, pid or None)

    def exit_code_of(self, pid: int, name: str) -> int | None:
        """Return the exit code of the collected child *name* that was process *pid*, or None."""
        for end in reversed(self._ends):
            if end.pid == pid and end.name == name:
                return end.exit_code
        return None

    def deaths(self, wanted: frozenset[Identity], made: float) -> list[Death]:
        """Return those who have died and may have had one of the objects *wanted*.

        Who ended with exit code 0 has not died. The objects were made, or came to this
        process, at time *made*. The children that were given one of them are preferred to
        those that inherited everything, the latest end comes first, and the parent comes
        last.
        """
        self._collect(wanted)
        given, inherited = [], []
        for death in reversed(self._ends):
            if not death.exit_code:
                continue
            if death.given is None:
                if death.since >= made:
                    inherited.append(death)
            elif death.given & wanted:
                given.append(death)
        found = given or inherited
        parent = family.parent
        if parent is not None and not parent.is_alive():
            found.append(Death(parent.name, parent.pid))
        return found

    def _collect(self, wanted: frozenset[Identity]) -> None:
        """Collect children that have ended; wait for those that are about to.

        The kernel closes a process's descriptors, which is what we have noticed, a moment
        before it can be collected.
        """
        for child in list(family.children):
            handle = child._child
            if handle is None or not (child._given is None or child._given & wanted):
                continue
            if handle.poll() is None and _is_ending(handle.pid):
                handle.wait(_ENDING_SECONDS)
        family.reap()
        parent = family.parent
        if (
            parent is not None
            and parent.pid is not None
            and parent.is_alive()
            and _is_ending(parent.pid)
        ):
            wait_readable(parent.sentinel, _ENDING_SECONDS)

    def pids(self) -> set[int]:
        """Return the process ids of the parent and of the children that run."""
        found = {child._child.pid for child in list(family.children) if child._child is not None}
        parent = family.parent
        if parent is not None and parent.pid is not None:
            found.add(parent.pid)
        return found


def _is_ending(pid: int) -> bool:
    """Return whether process *pid* has begun to end."""
    if sys.platform != "linux":
        return False
    try:
        status = status_of(pid)
    except OSError:
        return False  # there is no descriptor to look with
    return status is not None and bool(int(status[FLAGS]) & _EXITING)


class _Looking(Handoff):
    """Shows the descriptors of what is exported to it."""

    __slots__ = ("descriptors",)

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def give(self, fd: int, /) -> int:
        """Note *fd*; nothing crosses."""
        self.descriptors.append(fd)
        return fd


def identities(exportable: Exportable) -> frozenset[Identity]:
    """Return what tells the files of *exportable* from others; none if it is closed."""
    looking = _Looking()
    try:
        exportable.export(looking)
        return frozenset(map(identity, looking.descriptors))
    except (OSError, ValueError):
        return frozenset()


def mentioned(child: Process) -> frozenset[Identity] | None:
    """Return the files of the connections and queues in a child's arguments; None for none."""
    found: set[Identity] = set()
    for argument in (*child._args, *child._kwargs.values()):
        # Nothing is asked of objects that are not ours.
        if type(argument).__module__.startswith("procession."):
            state = getattr(argument, "__dict__", {})
            inner = state.get("_channel") or state.get("_mailbox")
            if isinstance(inner, Exportable):
                found |= identities(inner)
    return frozenset(found) or None


#: What this process knows.
relatives = Relatives()
