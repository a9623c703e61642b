"""Long messages between a pool and its workers, each carried by a thread of its own.

The pool's own thread never waits for a worker: one that is stopped in the middle of a message
holds up this message and nothing else.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

from procession._pools.waiters import Waiters

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from procession._pools.member import Member
    from procession._pools.word import Word

#: So long a message waits for another one, in seconds.
_LONGEST_TURN = 0.25


class Carriers:
    """The threads that carry messages for one pool.

    While one is under way its worker is *in transit*: nobody else uses the channel, and the
    worker is not buried. Threads: `carry` belongs to the pool's own.
    """

    def __init__(self, word: Word) -> None:
        self._word = word
        # What the threads do, each a list of its own. Adding to it, removing from it and asking
        # whether there is any are single steps.
        self._under_way: list[list[Any]] = []
        self._waiters = Waiters()
        self._turn = allocate_lock()

    def receive(self, member: Member, done: Callable[[Any, BaseException | None], None]) -> None:
        """Receive a message from *member*; the rest is as for `carry`.

        One at a time, which is twice as fast as two: their memory is used again sooner.
        """

        def receive() -> Any:
            turn = self._turn
            if not turn.acquire(timeout=_LONGEST_TURN):
                # The one whose turn it is has been stopped, perhaps for good.
                self._turn = turn = allocate_lock()
                turn.acquire()
            try:
                return member.channel.receive()
            finally:
                turn.release()

        self.carry(member, receive, done)

    def carry(
        self,
        member: Member,
        work: Callable[[], Any],
        done: Callable[[Any, BaseException | None], None],
    ) -> None:
        """Have *work* done with the channel of *member*, and *done* called by the pool's thread.

        *done* gets what *work* returns, and what it has raised. Without a thread to be had it
        is done here and now.
        """
        member.in_transit = True
        member.lend_channel(self)
        errand = [member, work, done]
        self._under_way.append(errand)
        try:
            start_new_thread(self._run, (errand,))
        except RuntimeError:  # no thread is to be had
            self._run(errand)

    def _run(self, errand: list[Any]) -> None:
        self._do(*errand)
        # Who waits for us finds that nothing refers to a worker here.
        errand.clear()
        self._under_way.remove(errand)  # it, or another one that has ended: they are equal now
        self._waiters.wake()

    def _do(
        self,
        member: Member,
        work: Callable[[], Any],
        done: Callable[[Any, BaseException | None], None],
    ) -> None:
        result = error = None
        try:
            result = work()
        except BaseException as caught:
            error = caught

        def arrive() -> None:
            member.in_transit = False
            done(result, error)

        if member.give_back_channel(self):
            self._word.leave(arrive)

    def wait(self, seconds: float) -> None:
        """Wait until none is under way, but no longer than so many *seconds*."""
        self._waiters.wait(lambda: not self._under_way, seconds)
