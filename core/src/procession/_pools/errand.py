"""One call whose caller waits for it: given to a worker, and its answer taken, by the caller.

No other thread has to run for that, which is most of what a short call costs otherwise. The pool
offers workers that have nothing to do; its own thread sleeps meanwhile. Whenever that is awake it
takes everything over that is under way, so that nothing depends on the caller.

An offer takes these steps, each of them one that no signal handler and no thread can split:

=========  ===============================  =================================================
step       made by                          if the caller stops there (a handler has raised)
=========  ===============================  =================================================
offered    the pool                         the pool can withdraw it
prepared   a caller, with all it will send  the same
taken      the caller, out of the queue     the pool takes the worker back, or sends the task
sent       the first one to `send`: the     the pool takes the task over
           caller, or the pool
settled    a claim, of which there is one:  by the pool: no harm; by the caller: the pool takes
           the caller's, or the pool's      the worker back
offered    the caller, in place of the old  the pool can withdraw it
           offer
=========  ===============================  =================================================

So the pool need never wait for a caller to go on. A caller may be long in coming: a signal
handler has interrupted it, and waits for a call of its own.

Over a channel whose `sender` is made of more than one step, a caller can also be *sending*. Where
it stops there, the worker is killed; if the caller cannot even say so, some seconds make it clear.

A caller that finds its offer settled waits for the result like everybody else.

A line that says that it is "one step" is one with the line before it: nothing is called between
the two, and so neither a signal handler nor another thread comes in between.
"""

from __future__ import annotations

import time
from _operator import call

from procession._ground.bell import Bell
from procession._ground.deque import deque
from procession._ground.waiting import asker
from procession._messages.lookout import Lookout
from procession._messages.pickling import loads
from procession._pools import wire
from procession._pools.failures import rebuild

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from procession._pools.member import Member
    from procession._pools.results import ApplyResult
    from procession._pools.task import Task
    from procession._pools.word import Word

#: How long a caller may be sending before it is thought to have stopped there, in seconds.
_LONGEST_STEP = 5.0
#: How often a caller looks whether somebody has forgotten to wake it, in seconds.
_LONGEST_WAIT = 1.0


_UNSENT = object()
_pop = deque.pop


class Offer:
    """A worker that has nothing to do, for one call."""

    __slots__ = (
        "_claims", "_function", "_number", "_sent", "_unsent", "is_left", "is_void", "member",
        "noticed_at", "task",
    )  # fmt: skip

    def __init__(self, member: Member) -> None:
        self.member = member
        self.task: Task | None = None
        self._number = member.answered + 1
        self._function = 0
        # What sends the task: whoever takes it out does so. And what that has returned.
        self._unsent: deque[Callable[[], object]] = deque()
        self._sent: object = _UNSENT
        #: Whether the caller has left it, in whatever step it was.
        self.is_left = False
        #: Whether the worker has ended.
        self.is_void = False
        #: When the pool has noticed that it was taken, and not sent or not settled.
        self.noticed_at: float | None = None
        self._claims = deque((True,))

    def prepare(self, task: Task) -> None:
        """Have *task*, which is packed, for it. Nothing has happened before it is taken."""
        self._unsent = deque((self.member.errand(task),))
        self._function = task.job.function.number
        self.task = task
        self.is_left = False

    def send(self) -> None:
        """Send the task, if nobody else has begun to."""
        try:
            # One step of the interpreter takes it out, calls it, and notes that.
            for self._sent in map(call, map(_pop, (self._unsent,))):  # noqa: B020
                break
        except IndexError:
            return
        except OSError:
            self._sent = None  # the worker has ended, which the pool learns soon

    @property
    def is_unsent(self) -> bool:
        """Whether nobody has begun to send the task."""
        return bool(self._unsent)

    @property
    def is_sent(self) -> bool:
        """Whether the task was sent."""
        return self._sent is not _UNSENT

    def book(self) -> None:
        """Have the worker done with the task, of which the caller has the answer. Idempotent."""
        self.member.book(self._number, self._function)

    def claim(self) -> bool:
        """Return True to the one who is to settle it."""
        try:
            return self._claims.pop()
        except IndexError:
            return False


class Errands:
    """The offers of one pool. Threads: `run`, any; the rest belongs to the pool's own."""

    def __init__(self, word: Word) -> None:
        self._word = word
        #: What a worker rings for a caller. None when the pool has ended.
        self.bell: Bell | None = Bell()
        self._rings = asker(self.bell.fileno())
        self._lookout = Lookout()
        self._offers: deque[Offer] = deque()
        # One caller at a time: they have one bell.
        self._permits = deque((True,))
        # Whether the pool's thread waits for a caller to make its next step.
        self._is_wanted = False

    # -- for the pool's thread

    def offer(self, member: Member) -> None:
        """Offer *member*, which has nothing to do."""
        self._offer(Offer(member), None)

    def _offer(self, offer: Offer, previous: Offer | None) -> None:
        """Offer a worker, which has *previous* now; does nothing if the pool has taken it back."""
        member = offer.member
        if member.offer is previous:
            member.offer = member.borrower = offer  # one step
            self._offers.append(offer)  # one step
            if member.has_ended:  # perhaps nobody else saw this offer
                self.void(member)

    def withdraw(self, member: Member) -> bool:
        """Return whether *member* is the pool's own, from now on if it was on offer."""
        if self._take_back(member):
            return True
        self._is_wanted = True  # and now again: the caller looks after its step
        return self._take_back(member)

    def _take_back(self, member: Member) -> bool:
        while (offer := member.offer) is not None:
            try:
                self._offers.remove(offer)
            except ValueError:  # it was taken
                if not self._conclude(offer):
                    return False
            # If it is another one now, its caller has been as quick.
            if member.offer is offer:
                member.offer = member.borrower = None  # one step
        return True

    def _conclude(self, offer: Offer) -> bool:
        """Do what is left to do about *offer*, which was taken; return False if nobody can yet."""
        if offer.is_left and offer.is_unsent:
            return True  # nobody waits for it
        offer.send()
        if not offer.is_sent:
            return False
        if offer.claim():
            assert offer.task is not None
            offer.member.adopt(offer.task)
        else:
            offer.book()
        return True

    def take_over(self, members: Iterable[Member]) -> None:
        """Make what callers wait for the pool's own business."""
        is_any = False
        for member in members:
            offer = member.offer
            if offer is not None and offer.task is not None:
                is_any = True
                self.withdraw(member)
        if is_any:
            self.wake_caller()

    def void(self, member: Member) -> None:
        """Take back what a worker has on offer, or was given, that has ended.

        The caller that offers it again may be just in time to do this itself: then it was
        not taken.
        """
        offer, member.offer = member.offer, None
        if offer is None:
            return
        offer.is_void = True  # in this order: the caller takes it, and then looks
        try:
            self._offers.remove(offer)
            member.give_back_channel(offer)
        except ValueError:  # it was taken
            assert offer.task is not None
            if offer.claim():
                member.adopt(offer.task)
            else:
                offer.book()
        self.wake_caller()

    def deadline(self, member: Member) -> float | None:
        """Return when *member* has to be killed, as its caller has stopped in between."""
        offer = member.offer
        if offer is None or offer in self._offers:
            return None
        if offer.is_left:
            return 0.0
        if offer.noticed_at is None:
            offer.noticed_at = time.monotonic()
        return offer.noticed_at + _LONGEST_STEP

    def wake_caller(self) -> None:
        """Have a caller look again, if there is one."""
        bell = self.bell
        if bell is not None and not self._permits:
            bell.ring()

    def forget(self) -> None:
        """Offer nothing any more."""
        self._offers.clear()
        self.bell = None

    # -- for callers

    def run(self, task: Task, result: ApplyResult) -> bool:
        """Have *task*, which is packed, done; return False if there is nobody for it.

        When this returns True, *result* is there or will come.
        """
        try:
            self._permits.pop()  # a handler that raises here makes all calls go the longer way
        except IndexError:
            return False
        try:
            return self._run(task, result)
        finally:
            self._permits.append(True)
            if self._is_wanted:
                self._is_wanted = False
                self._word.ring()

    def _run(self, task: Task, result: ApplyResult) -> bool:
        try:
            offer = self._offers[-1]
        except IndexError:
            return False
        if not offer.member.has_room_for(task.job.function.number):
            return False
        try:
            offer.prepare(task)
            self._offers.remove(offer)
        except ValueError:
            return False  # the pool was faster
        except BaseException:
            self._leave(offer)
            raise
        try:
            return self._make(offer, result)
        except BaseException:
            self._leave(offer)
            raise

    def _leave(self, offer: Offer) -> None:
        offer.is_left = True
        self._word.ring()

    def _make(self, offer: Offer, result: ApplyResult) -> bool:
        bell, member = self.bell, offer.member
        try:
            if bell is None or offer.is_void:
                # The worker ended before this was seen: it is ours, or it was seen.
                return not offer.claim()
            offer.send()
        finally:
            member.give_back_channel(offer)
        if self._is_wanted:
            self._word.ring()
        while not result.ready():
            answer = member.look()
            if answer is not None and self._finish(offer, answer, result):
                return True
            if not self._lookout.look(self._rings):
                bell.wait(_LONGEST_WAIT)
            bell.silence()
        return True

    def _finish(self, offer: Offer, answer: bytes, result: ApplyResult) -> bool:
        """Settle *offer*, if that is the caller's business; return whether it was."""
        if answer[-1] != wire.DONE or not offer.claim():
            self._word.ring()  # the worker has rung for us, and it is the pool's thread's
            return False
        offer.book()
        self._offer(Offer(offer.member), offer)
        result._finish(True, _loads(answer))
        return True


def _loads(answer: bytes) -> Any:
    """Return the result. Raises what a signal handler raises meanwhile."""
    try:
        return loads(answer)
    except Exception:
        succeeded, value = rebuild(answer, ())
        if succeeded:
            raise  # so it was not the pickle's fault
        raise value from value.__cause__
