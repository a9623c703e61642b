"""Workers of a pool that come, go and are replaced, and what becomes of the tasks of the dead."""

from __future__ import annotations

from procession._pools.events import TASK_RETRIED, WORKER_ENDED
from procession._pools.failures import cancelled, died_before_work, died_with
from procession.errors import BrokenPoolError

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from procession._pools.backlog import Backlog
    from procession._pools.entrance import Entrance
    from procession._pools.errand import Errands
    from procession._pools.events import Events
    from procession._pools.forks import Excursion
    from procession._pools.intake import Intake
    from procession._pools.member import Member
    from procession._pools.outcomes import Outcomes
    from procession._pools.staff import Staff
    from procession._pools.task import Task

#: How often a task may be given out again when the worker died before it began it.
_MOST_FAILED_STARTS = 3


class Hiring:
    """Keeps the places of a pool filled. Belongs to the pool's own thread."""

    def __init__(
        self,
        entrance: Entrance,
        staff: Staff,
        intake: Intake,
        backlog: Backlog,
        outcomes: Outcomes,
        events: Events,
        errands: Errands,
        excursion: Excursion,
    ) -> None:
        self._entrance = entrance
        self._staff = staff
        self._intake = intake
        self._backlog = backlog
        self._outcomes = outcomes
        self._events = events
        self._errands = errands
        self._excursion = excursion

    def is_done(self) -> bool:
        """Return whether nobody has anything to do, and no stream has more."""
        return not (
            self._backlog
            or self._entrance.feeders
            or any(
                member.outstanding or (member.offer and member.offer.task)
                for member in self._staff.members
            )
        )

    def needs_members(self) -> bool:
        """Return whether there must be workers, if there are none."""
        if self._entrance.is_shut:
            return False
        return not self._entrance.closing or not self.is_done()

    def hire(self) -> None:
        """Start one more worker. Raises what starting a process raises."""
        with self._excursion:
            self._staff.hire()

    def fill_up(self) -> None:
        """Start workers for those that are missing, and try again later if that fails."""
        if self._entrance.is_shut or self._staff.hire_at is not None:
            return
        try:
            while not self._staff.is_complete and self.needs_members():
                self.hire()
        except Exception as error:
            self._start_failed(error)

    def fill_up_at(self, now: float) -> None:
        """Do so again if that has failed, and it is time for it."""
        hire_at = self._staff.hire_at
        if hire_at is not None and now >= hire_at:
            self._staff.hire_at = None
            self.fill_up()

    def bury(self, member: Member) -> None:
        """Take leave of a worker that has ended, unless somebody still carries what it said."""
        member.has_ended = True
        self._errands.void(member)
        self._intake.hear(member)  # what it had said before it died counts
        if member.in_transit:
            self._staff.note_end(member)
            return
        has_begun = member.has_begun()  # while the place is still its own
        self._staff.bury(member)
        if self._events.streams:
            self._events.tell(WORKER_ENDED, worker=member.pid)
        left = list(member.outstanding)
        if left and left[0] is not None:
            self._settle(left[0], member, has_begun)
        self._backlog.do_first([task for task in left[1:] if task is not None])
        if not self._entrance.is_shut and not member.ready and not member.retiring:
            self._start_failed(died_before_work(member))
        else:
            self.fill_up()

    def _settle(self, task: Task, member: Member, has_begun: bool) -> None:
        """Decide about the task that a dead worker had before it."""
        sentence = member.sentence
        if self._entrance.is_shut:
            self._outcomes.fail(task, self._entrance.why_not(task.describe()))
        elif task.cancelled:
            self._outcomes.fail(task, cancelled(task))
        elif not has_begun and task.failed_starts < _MOST_FAILED_STARTS:
            task.failed_starts += 1
            self._backlog.do_first([task])
        elif task.retries > 0:
            task.retries -= 1
            if self._events.streams:
                self._events.tell(TASK_RETRIED, task, member.pid)
            self._backlog.do_first([task])
        elif sentence is not None and sentence[0] is task:
            self._outcomes.fail(task, sentence[1])
        else:
            self._outcomes.fail(task, died_with(task, member))

    def _start_failed(self, error: BaseException) -> None:
        """Note that a worker could not be had, or ended before it was ready."""
        if self._staff.note_false_start():
            self._entrance.give_up(
                BrokenPoolError(
                    f"the pool has stopped: {self._staff.false_starts} workers in a row could "
                    f"not be started, or ended before they were ready; the last one: {error}",
                    failure=getattr(error, "failure", None),
                ),
                error,
            )
