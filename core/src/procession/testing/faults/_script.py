"""What goes wrong, and where: a script is data, and does nothing by itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from procession.connection import Connection
    from procession.queues import Queue

    Rule: TypeAlias = "Kill | KillIn | Cut | Delay | Reorder"


def _check_count(least: int) -> Any:
    def check(rule: Any, attribute: attrs.Attribute[int], value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(
                f"{attribute.name} must be a whole number from {least} on, not {value!r}"
            )

    return check


def _check_seconds(rule: Any, attribute: attrs.Attribute[float], value: float) -> None:
    if not value > 0:
        raise ValueError(f"seconds must be more than zero, not {value!r}")


@attrs.frozen
class Kill:
    """See `FaultScript.kill`."""

    of: str
    start: int = attrs.field(validator=_check_count(1))
    after_messages: int = attrs.field(validator=_check_count(0))
    at_byte: int | None = attrs.field(validator=attrs.validators.optional(_check_count(0)))


def _check_function(rule: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not hasattr(value, "__code__"):
        raise TypeError(
            f"a function written in Python is needed, of which the calls can be seen, not {value!r}"
        )


@attrs.frozen
class KillIn:
    """See `FaultScript.kill_in`."""

    of: str
    start: int = attrs.field(validator=_check_count(1))
    function: Callable[..., Any] = attrs.field(validator=_check_function)
    call: int = attrs.field(validator=_check_count(1))


@attrs.frozen
class Cut:
    """See `FaultScript.cut`."""

    of: str | Connection
    start: int = attrs.field(validator=_check_count(1))
    message: int = attrs.field(validator=_check_count(1))
    at_byte: int = attrs.field(validator=_check_count(0))


@attrs.frozen
class Delay:
    """See `FaultScript.delay`."""

    of: str | Connection | Queue
    start: int = attrs.field(validator=_check_count(1))
    message: int = attrs.field(validator=_check_count(1))
    seconds: float = attrs.field(validator=_check_seconds)


@attrs.frozen
class Reorder:
    """See `FaultScript.reorder`."""

    queue: Queue
    producers: tuple[str, ...]


@attrs.frozen
class FaultScript:
    """What goes wrong, and where. Each method returns a longer script; none changes this one.

    `Faults.play` puts it into force. Every place is a count of messages and not a time, so
    that it is the same one in every run.

    *Processes* are told by their names, which may be patterns (``"PoolWorker-*"``); of those
    that match, *start* says which one, in the order in which they are started. A *message*
    is told by its number, from 1 on: among those that a process has sent, if a process is
    named, and otherwise among those that come to this end of a connection, or into this queue.
    """

    rules: tuple[Rule, ...] = ()

    def kill(
        self,
        process: str,
        *,
        after_messages: int,
        at_byte: int | None = None,
        start: int = 1,
    ) -> FaultScript:
        """Have *process* killed, as by SIGKILL, when it has sent and received so many messages.

        Messages through connections and queues count, both ways; 0 is before its first line. It
        is killed in the instant after the last of them: what it has received then is lost with
        it, and what it has sent is there. With *at_byte*, it does what comes next and is killed
        in the middle of the next message that it sends, so many bytes of which have been
        written: through a connection, the receiver finds it truncated (with 0, not at all);
        through a queue, nothing has come.
        """
        return self._with(Kill(process, start, after_messages, at_byte))

    def kill_in(
        self, process: str, function: Callable[..., Any], *, call: int = 1, start: int = 1
    ) -> FaultScript:
        """Have *process* killed, as by SIGKILL, when it calls *function* for the *call*-th time.

        Nothing of that call happens. For functions and methods of the program that are written
        in Python, such as the tasks of a pool. To be played before the process is started, whose
        threads of its own are not looked at.
        """
        return self._with(KillIn(process, start, function, call))

    def cut(
        self, of: str | Connection, *, message: int, at_byte: int = 0, start: int = 1
    ) -> FaultScript:
        """Have a connection lost, in both directions, while a message is sent through it.

        Its sender gets a `BrokenPipeError`; both processes live. The receiver gets
        what was sent before, and then, with *at_byte* 0, the end of the connection, otherwise
        a message that is truncated after so many bytes; if it has no more, all of it.

        A message into a queue cannot be cut off: the start of such a script is no error,
        but the sender gets `ValueError`, since no real queue is lost.
        """
        return self._with(Cut(of, start, message, at_byte))

    def delay(
        self,
        of: str | Connection | Queue,
        *,
        message: int,
        seconds: float = math.inf,
        start: int = 1,
    ) -> FaultScript:
        """Have a message take *seconds* longer; without, until `Faults.release`.

        No time really passes. Whoever waits for the message has waited so long when he
        gets it; whose timeout is shorter is told so at once, and has that much less to wait
        the next time. Who waits on a descriptor (`procession.connection.wait`, asyncio, a
        pool) does not say for how long: for him it is there after `Faults.release`.

        What the same sender sends later does not overtake it.
        """
        return self._with(Delay(of, start, message, seconds))

    def reorder(self, queue: Queue, *producers: str) -> FaultScript:
        """Have *queue* deliver its next messages in this order of the processes that put them.

        ``reorder(queue, "b", "a", "a")``: the next is b's, even when a's has been there for
        long. Each one's own messages keep their order, as they do in every queue. A process that
        has ended, and of which nothing is left, is passed over.
        """
        return self._with(Reorder(queue, producers))

    def _with(self, rule: Rule) -> FaultScript:
        return FaultScript((*self.rules, rule))
