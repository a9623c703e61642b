"""The workers of a pool, and the one thread of the parent that minds them.

Which worker has which task is known to that thread alone, which makes it exact without a
lock; everybody else leaves word in two queues and rings its bell. It waits for all workers at
once, for their answers and for their ends, and never for one of them: what is sent to a
worker that is at work fits into what its channel has room for.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from _thread import get_ident, start_new_thread
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from procession import _pool_forks as forks
from procession import _pool_wire as wire
from procession._pool_failures import died_before_work, died_with, initializer_failed
from procession._pool_member import LONGEST_AHEAD
from procession._pool_outcomes import Outcomes
from procession._pool_staff import Staff
from procession.errors import BrokenPoolError, TaskCancelledError, TaskTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from procession._channel import Message
    from procession._pool_member import Member
    from procession._pool_staff import Recipe
    from procession._pool_stream import Feeder
    from procession._pool_task import Task

#: Tasks that take longer than this, in seconds, are given out one at a time.
_SHORT = 0.002
#: How many seconds of work a worker is given ahead, and how many tasks at most.
_AHEAD_SECONDS = 0.004
_MOST_AHEAD = 64
#: How many more answers of one worker are taken before the others' are looked at.
_MOST_AT_ONCE = 15
#: When a worker has been at one task for so long, it gives back what waits behind it.
_RECALL_SECONDS = 0.01
#: How often a task may be given out again when the worker died before it began it.
_MOST_FAILED_STARTS = 3
#: When the workers have not ended by then, although they were told to, they are killed.
_ENDING_SECONDS = 8.0
_SIGKILL = 9


class Crew:
    """The workers of one pool.

    Threads: the public methods, any. Fork: the copy in a forked child does nothing. It is
    ended by `close` or `terminate`, and with the interpreter.
    """

    def __init__(self, recipe: Recipe, size: int) -> None:
        """Start *size* workers. Raises what starting a process raises; none is left then."""
        self._recipe = recipe
        self.size = size
        self._pid = os.getpid()
        self._pending: deque[Task] = deque()
        self._requests: deque[Callable[[], None]] = deque()
        self._feeders: set[Feeder] = set()
        self._outcomes = Outcomes()
        self._average: float | None = None
        #: Why the pool has stopped by itself, if it has.
        self.broken: BrokenPoolError | None = None
        self._closing = False
        self._terminating = False
        self._thread: int | None = None
        #: Whether the thread is where a fork does not wait for it: in code of the program,
        #: or about to fork itself.
        self._is_elsewhere = False
        self._pauses = False
        self._pausing = threading.Condition()
        # Between what is submitted last and the closing. Re-entrant: for signal handlers.
        self._gate = threading.RLock()
        self._is_over = False
        self.ended = threading.Event()
        self._is_rung = False
        self._staff = Staff(recipe, size)
        try:
            for _ in range(size):
                self._hire()
            forks.add(self)
            self._start_thread()
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
        with self._gate:
            self.check_runs()
            self._pending.extend(tasks)
        self._wake()

    def feed(self, tasks: Iterable[Task]) -> None:
        """Have *tasks* done, which belong to a stream that was begun before."""
        self._pending.extend(tasks)
        self._wake()

    def _wake(self) -> None:
        """Have what is pending seen to, also when a signal handler has ended the pool."""
        self._ring()
        if self.ended.is_set():
            self._give_up_pending()

    def add_feeder(self, feeder: Feeder) -> None:
        """Stay until *feeder* has given all it has."""
        with self._gate:
            self.check_runs()
            self._feeders.add(feeder)

    def drop_feeder(self, feeder: Feeder) -> None:
        """Forget *feeder*, which has given all it has."""
        self._feeders.discard(feeder)
        self._ring()

    def is_mine(self) -> bool:
        """Return whether this is the process that the pool belongs to."""
        return self._pid == os.getpid()

    def check_runs(self) -> None:
        """Raise what `submit` raises."""
        if self._pid != os.getpid():
            raise ValueError(
                f"Pool not running in this process: it belongs to process {self._pid}, and "
                f"this is process {os.getpid()}; make a pool of its own here"
            )
        if self.broken is not None:
            raise self._broken_again()
        if self._closing or self._terminating:
            raise ValueError("Pool not running")

    def _broken_again(self) -> BrokenPoolError:
        """Return why the pool has stopped, for one more who asks."""
        assert self.broken is not None
        again = BrokenPoolError(str(self.broken), failure=self.broken.failure)
        again.__cause__ = self.broken.__cause__
        return again

    def check_may_wait(self) -> None:
        """Raise `RuntimeError` in a callback: the pool's thread cannot wait for itself."""
        if get_ident() == self._thread and self._pid == os.getpid():
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
            self._request(lambda: self._cancel(open_ones))
        return bool(open_ones)

    def waiting(self) -> list[Task]:
        """Return the tasks that no worker has been given."""
        return list(self._pending)

    def call_back(self, callback: Callable[[Any], object], value: Any) -> None:
        """Call *callback*; what it raises is shown as an exception of a thread is."""
        try:
            callback(value)
        except BaseException:
            kind, error, traceback = sys.exc_info()
            assert kind is not None
            threading.excepthook(threading.ExceptHookArgs((kind, error, traceback, None)))

    def close(self) -> None:
        """Let the workers end when everything is done. Idempotent."""
        with self._gate:
            self._closing = True
        self._ring()

    def lift(self) -> None:
        """Have all input of streams done, however little of their results was taken."""
        for feeder in list(self._feeders):
            feeder.lift()

    def terminate(self, *, wait: bool = True) -> None:
        """End the workers now; what is not done is cancelled. Idempotent.

        With *wait*, returns when they have ended.
        """
        if self._pid != os.getpid():
            return
        self._terminating = True
        for feeder in list(self._feeders):
            feeder.stop()
        self._ring()
        if wait and get_ident() != self._thread and not self.ended.wait(_ENDING_SECONDS):
            # The thread cannot see to it: it is in the middle of a message, and the worker
            # at the other end has been stopped.
            for member in list(self.members):
                member.kill()
            self.ended.wait()

    # -- between the threads

    def _request(self, function: Callable[[], None]) -> None:
        self._requests.append(function)
        self._ring()

    def _ring(self) -> None:
        if not self._is_rung:
            self._is_rung = True
            bell = self._staff.bell  # kept open by this, whoever ends the pool now
            if bell is not None:
                bell.ring()

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
            while self._turn():
                pass
        except BaseException as error:
            # Whatever it is, a defect or no memory: nobody may wait for ever.
            self._break(BrokenPoolError(f"the pool has failed: {error!r}"), error)
            self._end()
        finally:
            # Not earlier: whoever waits for the end finds that nothing refers to a worker here.
            if self._is_over:
                self._announce_end()
            self._thread = None
            with self._pausing:
                self._pausing.notify_all()

    def pause(self) -> None:
        """Have no thread for a moment, around a fork; a callback that runs is not waited for."""
        if self._thread is None or self._thread == get_ident():
            return
        self._pauses = True
        self._is_rung = False
        self._ring()
        with self._pausing:
            while self._thread is not None and not self._is_elsewhere:
                self._pausing.wait(0.1)

    def resume(self) -> None:
        """Have a thread again."""
        if self._pauses:
            self._pauses = False
            if self._thread is None and not self.ended.is_set():
                try:
                    self._start_thread()
                except RuntimeError as error:  # no thread is to be had
                    self._break(BrokenPoolError(f"the pool has failed: {error}"), error)
                    self._end()
                    self._announce_end()

    def abandon(self) -> None:
        """Forget the workers in a forked child: they are its siblings."""
        self._staff.abandon()
        self._gate = threading.RLock()

    # -- the thread

    def _turn(self) -> bool:
        """Wait for something, and see to it; return whether there is more to come."""
        if self._pauses:
            return False
        speaking, ended, is_rung = self._staff.wait(self._patience())
        if is_rung:
            # In this order: who leaves word afterwards rings again.
            self._staff.silence_bell()
            self._is_rung = False
        for member in speaking:
            self._receive(member)
            if member.outstanding:
                self._hear(member, _MOST_AT_ONCE)
        for member in ended:
            # Last, as the descriptors that this closes are soon those of another worker.
            self._bury(member)
        while self._requests:
            self._requests.popleft()()
        self._look_at_the_clock()
        if self._terminating or self.broken is not None:
            self._dismiss()
        else:
            self._give_out()
            if self._closing and self._is_done():
                self._retire_all()
        self._deliver()
        self._prepare()
        if self.members or self._needs_members():
            return True
        if self._outcomes or self._pending or self._requests:
            return True
        self._end()
        return False

    def _needs_members(self) -> bool:
        """Return whether there must be workers, if there are none."""
        if self._terminating or self.broken is not None:
            return False
        return not self._closing or not self._is_done()

    def _is_done(self) -> bool:
        return not (
            self._pending or self._feeders or any(member.outstanding for member in self.members)
        )

    def _patience(self) -> float | None:
        """Return for how many milliseconds nothing has to be done unless somebody calls."""
        hire_at = self._staff.hire_at
        times = [] if hire_at is None else [hire_at]
        for member in self.members:
            if member.kill_at is not None:
                times.append(member.kill_at)
            if member.recall_settles_at is not None:
                times.append(member.recall_settles_at)
            if not member.outstanding:
                if self._recipe.max_age is not None and member.is_idle:
                    times.append(member.begun_at + self._recipe.max_age)
                continue
            if len(member.outstanding) > 1 and member.may_recall():
                times.append(member.at_work_since + _RECALL_SECONDS)
            head = member.outstanding[0]
            if head is not None and head.timeout is not None and member.sentence is None:
                times.append(member.at_work_since + head.timeout)
        if not times:
            return None
        # poll() rounds milliseconds up.
        return max(0.0, min(times) - time.monotonic()) * 1000

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        if self._staff.hire_at is not None and now >= self._staff.hire_at:
            self._staff.hire_at = None
            self._fill_up()
        for member in self.members:
            if member.kill_at is not None and now >= member.kill_at:
                member.kill_at = None
                member.kill()
            if member.recall_settles_at is not None and now >= member.recall_settles_at:
                self._do_first(member.recalled())
                if member.sentence is not None:
                    self._execute(member, *member.sentence)
            if not member.outstanding:
                continue
            if now >= member.at_work_since + _RECALL_SECONDS:
                member.recall()
            head = member.outstanding[0]
            if (
                head is not None
                and head.timeout is not None
                and member.sentence is None
                and now >= member.at_work_since + head.timeout
            ):
                doom = TaskTimeoutError(
                    f"{head.describe()} was not done after {head.timeout:g} s, and its "
                    f"worker (pid {member.pid}) was killed"
                )
                self._execute(member, head, doom)

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
        self._hear(member)
        member.sentence = None
        if member.outstanding and member.outstanding[0] is task:
            member.sentence = task, doom
            member.signal(_SIGKILL)

    def _hear(self, member: Member, most: int = sys.maxsize) -> None:
        """Take what *member* has said, up to *most* answers."""
        while most and not member.is_silent and _has_said_something(member):
            self._receive(member)
            most -= 1

    # -- giving

    def _give_out(self) -> None:
        ahead = self._ahead()
        for member in list(self.members):
            if not member.ready or member.retiring:
                continue
            if self._recipe.has_limits and self._recipe.has_served(member):
                if member.is_idle:
                    self._staff.retire(member)
                    self._fill_up()
            elif self._pending and len(member.outstanding) * 2 <= ahead:
                self._give(member, ahead)

    def _ahead(self) -> int:
        """Return how many tasks a worker may have at once."""
        average = self._average
        if average is None or average > _SHORT:
            return 0
        fair = len(self._pending) // (2 * self.size)
        return min(_MOST_AHEAD, int(_AHEAD_SECONDS / (average + 1e-6)), fair)

    def _give(self, member: Member, ahead: int) -> None:
        room = member.room(ahead, self._recipe.max_tasks)
        if room <= 0 or (member.outstanding and not member.has_room_ahead()):
            return
        with self._elsewhere():
            batch = self._pack(member, room)
        if batch:
            try:
                member.send(batch)
            except OSError:
                # It dies, or is dead. What it has said before is still to be taken.
                member.is_deaf = True
                member.expect_end()

    def _pack(self, member: Member, room: int) -> list[Task]:
        """Return up to *room* tasks for *member*, packed. Runs code of the program.

        All of them make one short message; a member that waits may get a single long one.
        """
        batch: list[Task] = []
        length = 0
        while len(batch) < room and self._pending:
            task = self._pending.popleft()
            if task.done:
                continue
            if not task.job.wants(task):
                self._outcomes.fail(task, cancelled(task))
                continue
            try:
                task.pack()
                length += member.length(task)
            except BaseException as error:
                self._outcomes.fail(task, error)
                continue
            if (batch or member.outstanding) and length > LONGEST_AHEAD:
                self._pending.appendleft(task)
                break
            batch.append(task)
        return batch

    def _prepare(self) -> None:
        """Pickle what comes next while the workers are at work. Runs code of the program."""
        with self._elsewhere():
            for at in range(min(self.size, len(self._pending))):
                try:
                    self._pending[at].pack()
                except BaseException:
                    return  # it is told when the task's turn has come, and it raises again

    def _do_first(self, tasks: Sequence[Task]) -> None:
        """Have *tasks*, which nobody has begun, done before all others."""
        self._pending.extendleft(reversed(tasks))

    # -- taking

    def _receive(self, member: Member) -> None:
        try:
            message = member.channel.receive()
        except (EOFError, ConnectionError):
            self._staff.stop_listening(member)
            member.expect_end()
        except Exception as error:
            # No memory for the answer, say. What comes behind it is lost, too.
            self._staff.stop_listening(member)
            if member.outstanding and member.outstanding[0] is not None:
                member.sentence = member.outstanding[0], error
            member.kill()
        else:
            self._take(member, message)

    def _take(self, member: Member, message: Message) -> None:
        body = message[0]
        kind = bytes(body[-1:])
        if kind == wire.READY:
            member.ready = True
            self._staff.false_starts = 0
            return
        if kind == wire.UNFIT:
            member.retiring = True
            self._break(*initializer_failed(body))
            return
        waited = time.monotonic() - member.at_work_since
        average = self._average
        self._average = waited if average is None else average + (waited - average) * 0.1
        task = member.answer()
        if task is None:
            return
        if kind == wire.SKIPPED:
            self._do_first([task])
        elif member.sentence is not None and member.sentence[0] is task:
            # It is, or is to be, killed for this task: what comes as late changes nothing.
            self._outcomes.fail(task, member.sentence[1])
        else:
            self._outcomes.answer(task, kind, message)

    def _deliver(self) -> None:
        """Give the outcomes to those who wait for them. Runs code of the program."""
        if self._outcomes:
            with self._elsewhere():
                self._outcomes.deliver()

    @contextmanager
    def _elsewhere(self) -> Iterator[None]:
        self._is_elsewhere = True
        try:
            yield
        finally:
            self._is_elsewhere = False

    # -- workers that come and go

    def _hire(self) -> None:
        with self._elsewhere():
            self._staff.hire()

    def _fill_up(self) -> None:
        """Start workers for those that are missing, and try again later if that fails."""
        if self._terminating or self.broken is not None or self._staff.hire_at is not None:
            return
        try:
            while not self._staff.is_complete and not (self._closing and self._is_done()):
                self._hire()
        except Exception as error:
            self._start_failed(error)

    def _start_failed(self, error: BaseException) -> None:
        """Note that a worker could not be had, or ended before it was ready."""
        if self._staff.note_false_start():
            self._break(
                BrokenPoolError(
                    f"the pool has stopped: {self._staff.false_starts} workers in a row could "
                    f"not be started, or ended before they were ready; the last one: {error}",
                    failure=getattr(error, "failure", None),
                ),
                error,
            )

    def _retire_all(self) -> None:
        for member in self.members:
            if not member.retiring:
                member.retire()

    def _dismiss(self) -> None:
        """End everybody, and everything that is not done."""
        self._give_up_pending()
        for member in self.members:
            member.terminate()

    def _give_up_pending(self) -> None:
        while True:
            try:
                task = self._pending.popleft()
            except IndexError:
                return
            if task.done:
                continue
            if self.ended.is_set():  # the thread is gone, and this may be any other
                task.job.deliver(task, False, self._why_not(task))
                task.job.told()
            else:
                self._outcomes.fail(task, self._why_not(task))

    def _why_not(self, task: Task) -> BaseException:
        if self.broken is not None:
            return self._broken_again()
        return TaskCancelledError(f"{task.describe()} was not done: the pool was terminated")

    def _bury(self, member: Member) -> None:
        """Take leave of a worker that has ended."""
        self._hear(member)  # what it had said before it died counts
        has_begun = member.has_begun()  # while the place is still its own
        self._staff.bury(member)
        left = list(member.outstanding)
        if left and left[0] is not None:
            self._settle_dead(left[0], member, has_begun)
        self._do_first([task for task in left[1:] if task is not None])
        if self._terminating or self.broken is not None:
            self._give_up_pending()
        elif not member.ready and not member.retiring:
            self._start_failed(died_before_work(member))
        else:
            self._fill_up()

    def _settle_dead(self, task: Task, member: Member, has_begun: bool) -> None:
        """Decide about the task that a dead worker had before it."""
        sentence = member.sentence
        if self._terminating or self.broken is not None:
            self._outcomes.fail(task, self._why_not(task))
        elif task.cancelled:
            self._outcomes.fail(task, cancelled(task))
        elif not has_begun and task.failed_starts < _MOST_FAILED_STARTS:
            task.failed_starts += 1
            self._do_first([task])
        elif task.retries > 0:
            task.retries -= 1
            self._do_first([task])
        elif sentence is not None and sentence[0] is task:
            self._outcomes.fail(task, sentence[1])
        else:
            self._outcomes.fail(task, died_with(task, member))

    def _cancel(self, tasks: Sequence[Task]) -> None:
        for member in self.members:
            for at, task in enumerate(list(member.outstanding)):
                if task is not None and task.cancelled and task in tasks:
                    if at == 0:
                        self._execute(member, task, cancelled(task))
                    else:
                        member.recall()
        given = {id(task) for member in self.members for task in member.outstanding}
        for task in tasks:
            # One that is still waiting is passed over when its turn comes.
            if not task.done and id(task) not in given:
                self._outcomes.fail(task, cancelled(task))

    def _break(self, error: BrokenPoolError, cause: BaseException | None = None) -> None:
        """Stop the pool, because of *error*."""
        if self.broken is None:
            error.__cause__ = cause
            self.broken = error
            for feeder in list(self._feeders):
                feeder.stop()

    def _end(self) -> None:
        """Give everything back. The thread ends, or has never begun."""
        members = list(self.members)
        self._staff.disband()
        for member in members:
            for task in member.outstanding:
                if task is not None:
                    self._outcomes.fail(task, self._why_not(task))
        self._give_up_pending()
        self._deliver()
        forks.discard(self)
        self._is_over = True

    def _announce_end(self) -> None:
        """Tell those who wait for it that the pool has ended."""
        self.ended.set()
        self._give_up_pending()


def _has_said_something(member: Member) -> bool:
    try:
        return member.channel.wait(0)
    except OSError:
        return True  # receiving raises the same


def cancelled(task: Task) -> TaskCancelledError:
    """Return what becomes of a task that is not wanted any more."""
    return TaskCancelledError(f"{task.describe()} was cancelled")
