"""The tasks of a pool that no worker has been given, and how many of them go to one at once."""

from __future__ import annotations

from procession._ground.deque import deque
from procession._pools.desk import SLOTS
from procession._pools.failures import cancelled
from procession._pools.member import ENTRY_BYTES, LONGEST_AHEAD

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from procession._pools.member import Member
    from procession._pools.outcomes import Outcomes
    from procession._pools.task import Task

#: Tasks that take longer than this, in seconds, are given out one at a time.
_SHORT = 0.002
#: Tasks that take no longer, in seconds, are quick: they cost less than what is done for them.
_QUICK = 0.0002
#: How many seconds of work a worker is given ahead.
_AHEAD_SECONDS = 0.004
#: How much a new time counts in the average.
_WEIGHT = 0.1


class Backlog:
    """What nobody has begun, in order.

    Threads: `add`, any; the rest belongs to the pool's own thread.
    """

    def __init__(self, size: int, outcomes: Outcomes) -> None:
        """*size* is the number of workers."""
        self._size = size
        self._outcomes = outcomes
        self._tasks: deque[Task] = deque()
        #: How many seconds a task takes, lately; None if that is not known yet.
        self._average: float | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    def tasks(self) -> list[Task]:
        """Return all of it."""
        return list(self._tasks)

    def add(self, tasks: Iterable[Task]) -> None:
        """Have *tasks* done after all others."""
        self._tasks.extend(tasks)

    def do_first(self, tasks: Sequence[Task]) -> None:
        """Have *tasks*, which nobody has begun, done before all others."""
        self._tasks.extendleft(reversed(tasks))

    def pop(self) -> Task | None:
        """Take the first one out; None if there is none."""
        try:
            return self._tasks.popleft()
        except IndexError:
            return None

    def note_time(self, seconds: float, count: int) -> None:
        """Note that a worker took *seconds* for *count* tasks."""
        average = self._average
        each = seconds / count
        if average is None:
            self._average = each
        else:
            self._average = average + (each - average) * min(1.0, _WEIGHT * count)

    def is_quick(self) -> bool:
        """Return whether tasks are quick, lately. Threads: any."""
        average = self._average
        return average is not None and average <= _QUICK

    def ahead(self) -> int:
        """Return how many tasks a worker may have at once, beside one if that is 0."""
        average = self._average
        if average is None or average > _SHORT:
            return 0
        fair = len(self._tasks) // (2 * self._size)
        return min(SLOTS, int(_AHEAD_SECONDS / (average + 1e-6)), fair)

    def batch(self, member: Member, room: int) -> list[Task]:
        """Take out up to *room* tasks for *member*, packed. Runs code of the program.

        All of them make one short message; a member that waits may get a single long one.
        """
        batch: list[Task] = []
        length = 0
        function = None  # the last one that is in it, or that the member is known to have
        tasks = self._tasks
        while len(batch) < room and tasks:
            task = tasks.popleft()
            if task.done:
                continue
            job = task.job
            if not job.wants(task):
                self._outcomes.fail(task, cancelled(task))
                continue
            try:
                body, buffers = task.packed or task.pack()
                length += len(body) + ENTRY_BYTES
                if buffers:
                    length += LONGEST_AHEAD
                if job.function is not function:
                    length += member.length_of(job.function)
                    function = job.function
            except BaseException as error:
                self._outcomes.fail(task, error)
                continue
            if length > LONGEST_AHEAD and (batch or member.outstanding):
                tasks.appendleft(task)
                break
            batch.append(task)
        return batch

    def prepare(self) -> None:
        """Pickle what comes next while the workers are at work. Runs code of the program."""
        for at in range(min(self._size, len(self._tasks))):
            try:
                self._tasks[at].pack()
            except BaseException:
                return  # it is told when the task's turn has come, and it raises again
