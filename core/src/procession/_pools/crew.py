"""The workers of a pool, and the one thread of the parent that minds them.

Which worker has which task is known to that thread alone, which makes it exact without a
lock; everybody else leaves word in two queues and rings its bell. It waits for all workers at
once, for their answers and for their ends, and never for one of them: what is sent to a
worker that is at work fits into what its channel has room for.
"""

from __future__ import annotations

import time
from _thread import get_ident, start_new_thread

from procession._pools import forks
from procession._pools.backlog import Backlog
from procession._pools.carrier import Carriers
from procession._pools.entrance import Entrance
from procession._pools.errand import Errands
from procession._pools.events import TASK_GIVEN, Events
from procession._pools.hiring import Hiring
from procession._pools.intake import Intake
from procession._pools.member import LONGEST_AT_ONCE, LONGEST_ERRAND
from procession._pools.outcomes import Outcomes
from procession._pools.staff import Staff
from procession._pools.waiters import End, Waiters
from procession._pools.warden import Warden
from procession._pools.word import Word
from procession.errors import BrokenPoolError

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from procession._contracts.channel import Message
    from procession._pools.member import Member
    from procession._pools.results import ApplyResult
    from procession._pools.staff import Recipe
    from procession._pools.stream import Feeder
    from procession._pools.task import Task

#: How many more messages of one worker are taken before the others' are looked at.
_MOST_AT_ONCE = 15
#: So long a fork waits for long messages that are under way, in seconds.
_MOST_PAUSED = 1.0
#: So often, in seconds, a fork looks whether the thread is in code of the program by now.
_LOOKS_EVERY = 0.1
#: When the workers have not ended by then, although they were told to, they are killed.
_ENDING_SECONDS = 8.0


class Crew:
    """The workers of one pool.

    Threads: the public methods, any. Fork: the copy in a forked child does nothing. It is
    ended by `close` or `terminate`, and with the interpreter.
    """

    #: The pool's own thread takes input that is at hand.
    reads_input = True

    def __init__(self, recipe: Recipe, size: int) -> None:
        """Start *size* workers. Raises what starting a process raises; none is left then."""
        self._recipe = recipe
        self.entrance = Entrance()
        self._word = Word()
        self._carriers = Carriers(self._word)
        self._errands = Errands(self._word)
        self.events = Events()
        self._outcomes = Outcomes(self.events)
        self._thread: int | None = None
        self._excursion = forks.Excursion()
        self._pauses = False
        self._pausing = Waiters()
        self._is_over = False
        # The thread that is about to fork, and waits for ours.
        self._forks: int | None = None
        self.ended = End()
        self._backlog = Backlog(size, self._outcomes)
        assert self._word.bell is not None
        assert self._errands.bell is not None
        self._staff = Staff(recipe, size, self._word.bell, self._errands.bell)
        self._intake = Intake(
            self.entrance, self._staff, self._backlog, self._outcomes, self.events,
            self._carriers,
        )  # fmt: skip
        self._warden = Warden(self._intake, self._backlog, self._outcomes, self._errands)
        self._hiring = Hiring(
            self.entrance, self._staff, self._intake, self._backlog, self._outcomes,
            self.events, self._errands, self._excursion,
        )  # fmt: skip
        try:
            forks.add(self)  # before the workers, which keep nothing open of those before them
            for _ in range(size):
                self._hiring.hire()
            # Who is ready by now is on offer before there is a thread.
            if self._turn(0.0):
                self._start_thread()
            else:
                self._announce_end()  # all of them have failed as quickly
        except BaseException:
            if self._thread is None:
                self._end()
                self._announce_end()
            else:
                self.terminate(wait=False)  # a signal handler has raised
            raise

    @property
    def members(self) -> list[Member]:
        """The workers. It is the pool's own thread that changes them."""
        return self._staff.members

    # -- for everybody

    def submit(self, tasks: Iterable[Task]) -> None:
        """Have *tasks* done.

        Raises `BrokenPoolError`, and `ValueError` when the pool is closed.
        """
        with self.entrance.lock:
            self.entrance.check()
            self._backlog.add(tasks)
        self._wake()

    def call(self, task: Task, result: ApplyResult) -> None:
        """Have *task* done for a caller who waits for *result*.

        Raises what `submit` and pickling raise, and what a signal handler raises meanwhile.
        """
        self.entrance.check()
        self.check_may_wait()
        body, buffers = task.pack()
        is_short = len(body) + len(task.job.function.pickled()) < LONGEST_ERRAND and not buffers
        if self.events.streams or not is_short or not self._errands.run(task, result):
            self.submit((task,))

    def feed(self, tasks: Iterable[Task]) -> None:
        """Have *tasks* done, which belong to a stream that was begun before."""
        self._backlog.add(tasks)
        self._wake()

    def _wake(self) -> None:
        """Have what is pending seen to, also when a signal handler has ended the pool."""
        self._word.ring()
        if self.ended.is_set():
            self._give_up_pending()

    def add_feeder(self, feeder: Feeder) -> None:
        """Stay until *feeder* has given all it has.

        Raises `BrokenPoolError`, and `ValueError` when the pool is closed.
        """
        self.entrance.admit(feeder)
        self._word.ring()

    def look_for_input(self) -> None:
        """Have what feeders can give now taken from them."""
        self._word.ring()

    def drop_feeder(self, feeder: Feeder) -> None:
        """Forget *feeder*, which gives no more."""
        self.entrance.feeders.discard(feeder)
        self._word.ring()

    def check_may_wait(self) -> None:
        """Raise `RuntimeError` in a callback: the pool's thread cannot wait for itself."""
        if get_ident() == self._thread and self.entrance.is_mine():
            raise RuntimeError(
                "a callback of a pool cannot wait for results of that pool: they are brought "
                "by the thread that runs the callback"
            )

    def cancel(self, tasks: Sequence[Task]) -> bool:
        """Cancel those of *tasks* that are not done; return whether there were any."""
        open_ones = [task for task in tasks if not task.done]
        for task in open_ones:
            task.cancelled = True
        if open_ones:
            self._word.leave(lambda: self._warden.cancel(open_ones, self.members))
        return bool(open_ones)

    def is_quick(self) -> bool:
        """Return whether tasks take so little time that many should be at hand."""
        return self._backlog.is_quick()

    def waiting(self) -> list[Task]:
        """Return the tasks that no worker has been given."""
        return self._backlog.tasks()

    def close(self) -> None:
        """Let the workers end when everything is done. Idempotent."""
        with self.entrance.lock:
            self.entrance.closing = True
        self._word.ring()

    def terminate(self, *, wait: bool = True) -> None:
        """End the workers now; what is not done is cancelled. Idempotent.

        With *wait*, returns when they have ended, but for who is called in a callback or,
        by a signal handler, while this thread forks: then it is soon afterwards.
        """
        if not self.entrance.is_mine():
            return
        self.entrance.stop()
        self._word.ring()
        if not wait or get_ident() in (self._thread, self._forks):
            return
        if not self.ended.wait(_ENDING_SECONDS):
            # The thread does not see to it: it is in code of the program, say.
            for member in list(self.members):
                member.kill()
            self.ended.wait()

    # -- the thread and forks

    def _start_thread(self) -> None:
        # Not a threading.Thread: it would be joined, listed, and warned of at a fork, for
        # which it is stopped.
        self._thread = 0
        try:
            start_new_thread(self._run, ())
        except BaseException:
            self._thread = None
            raise

    def _run(self) -> None:
        self._thread = get_ident()
        try:
            while self._turn(self._patience()):
                pass
        except BaseException as error:
            # Whatever it is, a defect or no memory: nobody may wait for ever.
            self._fail(error)
        finally:
            # Not earlier: whoever waits for the end finds that nothing refers to a worker here.
            if self._is_over:
                self._announce_end()
            self._thread = None
            self._pausing.wake()

    def _fail(self, error: BaseException) -> None:
        self.entrance.give_up(BrokenPoolError(f"the pool has failed: {error!r}"), error)
        self._end()

    def pause(self) -> None:
        """Have no thread for a moment, around a fork; a callback that runs is not waited for."""
        if self._thread is None or self._thread == get_ident():
            return
        self._forks = get_ident()
        self._pauses = True
        self._word.ring()
        while not self._pausing.wait(self._is_paused, _LOOKS_EVERY):
            pass
        self._carriers.wait(_MOST_PAUSED)

    def _is_paused(self) -> bool:
        return self._thread is None or self._excursion.is_under_way

    def resume(self) -> None:
        """Have a thread again."""
        if self._pauses:
            self._pauses = False
            self._forks = None
            if self._thread is None and not self.ended.is_set():
                try:
                    self._start_thread()
                except RuntimeError as error:  # no thread is to be had
                    self._fail(error)
                    self._announce_end()

    def abandon(self) -> None:
        """Forget the workers in a forked child: they are its siblings."""
        self._staff.abandon()
        self.entrance.renew_lock()

    # -- what the thread does

    def _turn(self, milliseconds: float | None) -> bool:
        """Wait for something, and see to it; return whether there is more to come."""
        if self._pauses:
            return False
        speaking, ended, is_rung = self._staff.wait(milliseconds)
        self._errands.take_over(self.members)
        if is_rung:
            # In this order: who lays down an answer afterwards rings again.
            self._word.silence()
            for member in self.members:
                self._intake.look(member)
        for member in speaking:
            if not self._errands.withdraw(member):
                continue  # its caller makes the next step first, in an instant
            self._intake.receive(member)
            if member.outstanding:
                self._intake.hear(member, _MOST_AT_ONCE)
        self._word.act()
        # Last, as the descriptors that this closes are soon those of another worker.
        for member in ended:
            self._hiring.bury(member)
        for member in [each for each in self.members if each.has_ended and not each.in_transit]:
            self._hiring.bury(member)
        self._look_at_the_clock()
        if self.entrance.is_shut:
            self._dismiss()
        else:
            self._take_input()
            self._give_out()
            if self.entrance.closing and self._hiring.is_done():
                self._retire_all()
            self._offer()
        self._deliver()
        with self._excursion:
            self._backlog.prepare()
        if self.members or self._hiring.needs_members():
            return True
        if self._outcomes or self._backlog or self._word:
            return True
        self._end()
        return False

    def _patience(self) -> float | None:
        """Return for how many milliseconds nothing has to be done unless somebody calls."""
        if not self.entrance.is_shut and self._input_at_hand():
            return 0.0
        hire_at = self._staff.hire_at
        times = [] if hire_at is None else [hire_at]
        for member in self.members:
            times.extend(self._warden.deadlines(member))
            if self._recipe.max_age is not None and member.is_idle:
                times.append(member.begun_at + self._recipe.max_age)
        if not times:
            return None
        # poll() rounds milliseconds up.
        return max(0.0, min(times) - time.monotonic()) * 1000

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        self._hiring.fill_up_at(now)
        for member in self.members:
            self._warden.look_at(member, now)

    def _input_at_hand(self) -> list[Feeder]:
        return [each for each in self.entrance.feeders.copy() if each.is_at_hand and each.is_due()]

    def _take_input(self) -> None:
        for feeder in self._input_at_hand():
            feeder.give(self._backlog.add)

    def _give_out(self) -> None:
        ahead = self._backlog.ahead()
        for member in list(self.members):
            if not member.ready or member.retiring:
                continue
            if self._recipe.has_limits and self._recipe.has_served(member):
                if member.is_idle:
                    self._staff.retire(member)
                    self._hiring.fill_up()
            elif (
                self._backlog
                and len(member.outstanding) * 2 <= ahead
                and self._errands.withdraw(member)
            ):
                self._give(member, ahead)

    def _offer(self) -> None:
        """Offer those that have nothing to do to callers."""
        if self._recipe.has_limits or self._backlog or self.entrance.closing:
            return
        for member in self.members:
            if member.is_idle and member.can_be_heard and not member.is_deaf:
                member.prepare_offer()
                self._errands.offer(member)

    def _give(self, member: Member, ahead: int) -> None:
        room = member.room(ahead, self._recipe.max_tasks)
        if room <= 0 or (member.outstanding and not member.has_room_ahead()):
            return
        with self._excursion:
            batch = self._backlog.batch(member, room)
        if batch:
            if self.events.streams:
                for task in batch:
                    self.events.tell(TASK_GIVEN, task, member.pid)
            self._send(member, member.give(batch))

    def _send(self, member: Member, message: Message) -> None:
        def sent(_: None, error: BaseException | None) -> None:
            self._staff.look_again(member)
            if error is not None:
                # It dies, or is dead. What it has said before is still to be taken.
                member.is_deaf = True
                member.expect_end()

        body, buffers = message
        if buffers or len(body) > LONGEST_AT_ONCE:
            self._staff.look_away(member)
            self._carriers.carry(member, lambda: member.channel.send(body, buffers), sent)
            return
        try:
            member.channel.send(body)
        except OSError as error:
            sent(None, error)

    def _deliver(self) -> None:
        """Give the outcomes to those who wait for them. Runs code of the program."""
        if self._outcomes:
            with self._excursion:
                self._outcomes.deliver()
            self._errands.wake_caller()

    # -- the end

    def _retire_all(self) -> None:
        for member in self.members:
            if member.retiring or member.in_transit or not self._errands.withdraw(member):
                continue
            if not member.outstanding:
                member.retire()

    def _dismiss(self) -> None:
        """End everybody, and everything that is not done."""
        self.entrance.stop_feeders()
        self._give_up_pending()
        for member in self.members:
            member.terminate()

    def _give_up_pending(self) -> None:
        while (task := self._backlog.pop()) is not None:
            if task.done:
                continue
            error = self.entrance.why_not(task.describe())
            if self.ended.is_set():  # the thread is gone, and this may be any other
                task.job.deliver(task, False, error)
                task.job.told()
            else:
                self._outcomes.fail(task, error)

    def _end(self) -> None:
        """Give everything back. The thread ends, or has never begun."""
        members = list(self.members)
        for member in members:
            member.kill()  # what is carried to or from it ends then
        self._carriers.wait(_MOST_PAUSED)
        for member in members:
            self._errands.void(member)
        self._staff.disband()
        self._word.forget()
        for member in members:
            for task in member.outstanding:
                if task is not None:
                    self._outcomes.fail(task, self.entrance.why_not(task.describe()))
        self._give_up_pending()
        self._deliver()
        self._errands.forget()  # only now: it rings for a caller
        forks.discard(self)
        self._is_over = True

    def _announce_end(self) -> None:
        """Tell those who wait for it that the pool has ended."""
        self.ended.set()
        self._give_up_pending()
        self.events.end()
