"""Ends the tasks of a pool that have no time left, or that nobody wants any more."""

from __future__ import annotations

import time

from procession._pools.failures import cancelled, timed_out

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from procession._pools.backlog import Backlog
    from procession._pools.errand import Errands
    from procession._pools.intake import Intake
    from procession._pools.member import Member
    from procession._pools.outcomes import Outcomes
    from procession._pools.task import Task

#: When a worker has been at one task for so long, it gives back what waits behind it.
_RECALL_SECONDS = 0.01
#: How often answers are looked for that a worker which goes on has not rung for.
_LOOK_SECONDS = 0.001
#: And for those that it has rung a caller for, who may not listen any more.
_ADOPTED_SECONDS = 0.02


class Warden:
    """Recalls tasks from workers, and kills workers for tasks, when the time has come.

    Belongs to the pool's own thread.
    """

    def __init__(
        self, intake: Intake, backlog: Backlog, outcomes: Outcomes, errands: Errands
    ) -> None:
        self._intake = intake
        self._errands = errands
        self._backlog = backlog
        self._outcomes = outcomes

    def deadlines(self, member: Member) -> Iterable[float]:
        """Yield when something has to be done about *member*."""
        if member.kill_at is not None:
            yield member.kill_at
        if member.is_adopted:
            yield time.monotonic() + _ADOPTED_SECONDS
        if (stuck := self._errands.deadline(member)) is not None:
            yield stuck
        if member.recall_settles_at is not None:
            yield member.recall_settles_at
        if _has_more(member):
            yield time.monotonic() + _LOOK_SECONDS
        if member.may_recall():
            yield member.at_work_since + _RECALL_SECONDS
        if (limit := _time_limit(member)) is not None:
            yield limit

    def look_at(self, member: Member, now: float) -> None:
        """Do what has to be done about *member* by now."""
        if member.kill_at is not None and now >= member.kill_at:
            member.kill_at = None
            member.kill()
        stuck = self._errands.deadline(member)
        if stuck is not None and now >= stuck:
            member.kill()
        if _has_more(member) or member.is_adopted:
            self._intake.look(member)
        if member.recall_settles_at is not None and now >= member.recall_settles_at:
            self._backlog.do_first(member.recalled())
            if member.sentence is not None:
                self._execute(member, *member.sentence)
        if not member.outstanding:
            return
        if now >= member.at_work_since + _RECALL_SECONDS:
            member.recall()
        limit = _time_limit(member)
        if limit is not None and now >= limit:
            task = member.outstanding[0]
            assert task is not None
            doom = cancelled(task) if task.cancelled else timed_out(task, member)
            self._execute(member, task, doom)

    def cancel(self, tasks: Sequence[Task], members: Sequence[Member]) -> None:
        """End those of *tasks* that *members* have, and those that nobody has."""
        for member in members:
            self._intake.look(member)  # what is done cannot be cancelled
            for at, task in enumerate(list(member.outstanding)):
                # The first one has no time left, see `_time_limit`.
                if at and task is not None and task.cancelled:
                    member.recall()
        given = {id(task) for member in members for task in member.outstanding}
        for task in tasks:
            # One that is still waiting is passed over when its turn comes.
            if not task.done and id(task) not in given:
                self._outcomes.fail(task, cancelled(task))

    def _execute(self, member: Member, task: Task, doom: BaseException) -> None:
        """Kill *member*, unless it has done *task*; *doom* is the outcome then.

        Nobody else's task may be hit: what waits behind this one is recalled first, and what
        the worker has said meanwhile is heard.
        """
        member.sentence = task, doom
        if any(each is not None for each in list(member.outstanding)[1:]):
            member.recall()
            if member.recall_settles_at is not None:
                return
        self._intake.hear(member)
        member.sentence = None
        if member.outstanding and member.outstanding[0] is task:
            member.sentence = task, doom
            member.kill()


def _has_more(member: Member) -> bool:
    """Return whether *member* may have gone on with a task behind its first one."""
    outstanding = member.outstanding
    return len(outstanding) > 1 and outstanding[1] is not None


def _time_limit(member: Member) -> float | None:
    """Return when the first task of *member* has no time left: at once if it is cancelled."""
    head = member.outstanding[0] if member.outstanding else None
    if head is None or member.sentence is not None:
        return None
    if head.cancelled:
        return member.at_work_since
    return None if head.timeout is None else member.at_work_since + head.timeout
