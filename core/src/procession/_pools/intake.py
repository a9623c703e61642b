"""What the workers of a pool say, taken and understood."""

from __future__ import annotations

import sys

from procession._pools import wire
from procession._pools.events import WORKER_STARTED
from procession._pools.failures import initializer_failed

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Sequence

    from procession._contracts.channel import Buffer, Message
    from procession._pools.backlog import Backlog
    from procession._pools.carrier import Carriers
    from procession._pools.entrance import Entrance
    from procession._pools.events import Events
    from procession._pools.member import Member
    from procession._pools.outcomes import Outcomes
    from procession._pools.staff import Staff


class Intake:
    """Takes the answers of workers, each in its order. Belongs to the pool's own thread."""

    def __init__(
        self,
        entrance: Entrance,
        staff: Staff,
        backlog: Backlog,
        outcomes: Outcomes,
        events: Events,
        carriers: Carriers,
    ) -> None:
        self._entrance = entrance
        self._staff = staff
        self._backlog = backlog
        self._outcomes = outcomes
        self._events = events
        self._carriers = carriers

    def hear(self, member: Member, most: int = sys.maxsize) -> None:
        """Take what *member* has said; of its channel, up to *most* messages."""
        self.look(member)
        while most and member.can_be_heard and _has_said_something(member):
            self.receive(member)
            most -= 1

    def look(self, member: Member) -> None:
        """Take the answers that lie in the tray of *member*."""
        if member.outstanding and (answers := member.look_for_all()):
            self._settle(member, answers, ())

    def receive(self, member: Member) -> None:
        """Take one message, which is there, from the channel of *member*."""
        # What lies in the tray was said before: so the message is about the task after that.
        self.look(member)
        if member.is_sending_long():
            self._staff.look_away(member)
            self._carriers.receive(
                member, lambda message, error: self._arrived(member, message, error)
            )
            return
        try:
            message = member.channel.receive()
        except Exception as error:
            self._lost(member, error)
        else:
            self._understand(member, *message)
            self.look(member)

    def _arrived(self, member: Member, message: Message, error: BaseException | None) -> None:
        """Take a long message, which was carried here."""
        if error is not None:
            self._lost(member, error)
        else:
            self._staff.look_again(member)
            self._understand(member, *message)
            self.hear(member)

    def _lost(self, member: Member, error: BaseException) -> None:
        """Note that nothing can be received from *member* any more."""
        self._staff.stop_listening(member)
        if isinstance(error, (EOFError, ConnectionError)):
            member.expect_end()
            return
        # No memory for the answer, say. What comes behind it is lost, too.
        if member.outstanding and member.outstanding[0] is not None:
            member.sentence = member.outstanding[0], error
        member.kill()

    def _understand(self, member: Member, body: Buffer, buffers: Sequence[Buffer]) -> None:
        kind = body[-1]
        if kind == wire.READY:
            member.ready = True
            self._staff.false_starts = 0
            if self._events.streams:
                self._events.tell(WORKER_STARTED, worker=member.pid)
        elif kind == wire.UNFIT:
            member.retiring = True
            self._entrance.give_up(*initializer_failed(body))
        else:
            self._settle(member, [body], buffers)

    def _settle(self, member: Member, answers: Sequence[Buffer], buffers: Sequence[Buffer]) -> None:
        """Take *answers* to the first of the tasks that *member* has.

        Only a single one may have *buffers*.
        """
        since = member.at_work_since
        for task, body in zip(member.answer(len(answers)), answers, strict=True):
            if task is None:
                continue
            if body[-1] == wire.SKIPPED:
                self._backlog.do_first([task])
            elif member.sentence is not None and member.sentence[0] is task:
                # It is, or is to be, killed for this task: what comes as late changes nothing.
                self._outcomes.fail(task, member.sentence[1])
            else:
                self._outcomes.answer(task, body, buffers)
        self._backlog.note_time(member.at_work_since - since, len(answers))


def _has_said_something(member: Member) -> bool:
    try:
        return member.channel.wait(0)
    except OSError:
        return True  # receiving raises the same
