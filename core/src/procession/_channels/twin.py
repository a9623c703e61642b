"""What an end of a connection knows of the other one, which was made together with it."""

from __future__ import annotations

import sys
import time
from _weakref import ref

from procession._ground.holders import identity

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from procession._contracts.channel import Buffer, Channel, Message
    from procession._mailboxes.vigil import Vigil
    from procession._processes.relatives import Death
    from procession.connection import Connection

# How often a wait looks whether somebody is left who could end it, in seconds.
_LONGEST_SLEEP = 1.0


class Twin:
    """The other end of a pair, as long as this process has it open, and afterwards.

    The usual mistake: one end is given to a child and stays open here, too. When the child
    dies the kernel does not tell, because this process could still use that end itself.
    As long as it has not, a wait looks once a second whether anybody else is left.

    What happens once a message has begun is not watched in this way.

    Threads: any. Fork: the copy in the child knows the same.
    """

    __slots__ = (
        "__weakref__", "_channel", "_is_asked", "_mine", "_other", "_owner", "_theirs", "_used",
        "files", "made",
    )  # fmt: skip

    def __init__(
        self, owner: Connection, channel: Channel, other: Channel, used: list[bool]
    ) -> None:
        """*owner* is the end around *channel*, *other* the other end's.

        *used* tells of both ends if they were used in this process.
        """
        # Weak ones: an end that is dropped is closed.
        self._owner = ref(owner)
        self._other = ref(other)
        self._channel = channel
        self._used = used
        self._mine = len(used)
        self._theirs = 1 - self._mine
        #: Whether the channel was asked to call us, and cannot.
        self._is_asked = False
        used.append(False)
        self.files = frozenset((identity(other.holding()),))
        self.made = time.monotonic()

    def send(self, body: Buffer, buffers: Sequence[Buffer] = (), /) -> None:
        """Send through the owner's channel; watch over the wait for room.

        Raises `BrokenByDeathError` as well.
        """
        self._await_room(sum(map(len, buffers), len(body)))
        self._channel.send(body, buffers)

    def send_carrying(
        self, body: Buffer, buffers: Sequence[Buffer], descriptors: Sequence[int], /
    ) -> bool:
        """As `send`, by the channel's `send_carrying`."""
        self._await_room(sum(map(len, buffers), len(body)))
        return self._channel.send_carrying(body, buffers, descriptors)

    def send_reserved(self, body: Buffer, memory: memoryview, /) -> None:
        """As `send`, by the channel's `send_reserved`."""
        self._await_room(len(body))
        self._channel.send_reserved(body, memory)

    def _await_room(self, length: int) -> None:
        if not self._leave_it_to_the_channel():
            self._await(_nothing_goes, self._channel.wait_for_room, length)

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
        """Receive through the owner's channel; watch over the wait for a message.

        Raises `PeerDiedError` as well.
        """
        self._await_message()
        return self._channel.receive(into, limit)

    def receive_leased(self, limit: int | None = None, /) -> Message:
        """As `receive`, by the channel's `receive_leased`."""
        self._await_message()
        return self._channel.receive_leased(limit)

    def _await_message(self) -> None:
        if not self._leave_it_to_the_channel():
            self._await(_nothing_comes, self._channel.wait)

    def _leave_it_to_the_channel(self) -> bool:
        """Have the channel call us while it waits, if it can, so that nothing is between.

        A channel that cannot is waited for before it is used.
        """
        if self._is_asked:
            return False
        self._is_asked = True
        if self.other() is None:
            return False
        me = ref(self)  # the channel must not keep itself
        if not self._channel.watch(_Lookout(me, _nothing_comes), _Lookout(me, _nothing_goes)):
            return False
        self._used[self._mine] = True
        self._stop()
        return True

    def _await(
        self, give_up: Callable[[list[Death]], NoReturn], wait: Callable[..., bool], *length: int
    ) -> None:
        """Wait with *wait*, if that might be for ever although the other side has ended.

        *wait* takes *length* and seconds, and returns whether there is nothing to wait for any
        more.
        """
        if sys.platform == "win32":
            return
        self._used[self._mine] = True
        if self.other() is None:
            self._stop()
        elif not wait(*length, _LONGEST_SLEEP):
            look = _Lookout(ref(self), give_up)
            look()
            while self.other() is not None and not wait(*length, _LONGEST_SLEEP):
                look()

    def _stop(self) -> None:
        """Have the owner use its channel without us."""
        owner = self._owner()
        if owner is not None:
            owner.stop_watching()

    def other(self) -> Channel | None:
        """Return the other end if this process has it, and has not used it."""
        other = self._other()
        if other is None or other.closed or self._used[self._theirs]:
            return None
        return other

    def vigil(self, other: Channel) -> Vigil:
        """Return a vigil over those who have *other*. Raises `OSError` if it is closed."""
        from procession._mailboxes.vigil import Vigil

        return Vigil(other.holding(), self.files, self.made)

    def has_something(self) -> bool:
        """Return whether there is something to receive."""
        return self._channel.readable and self._channel.wait(0)


class _Lookout:
    """What is called once a second during a wait; it raises when that is in vain."""

    __slots__ = ("_give_up", "_twin", "_vigil")

    def __init__(self, twin: ref[Twin], give_up: Callable[[list[Death]], NoReturn]) -> None:
        self._twin = twin
        self._give_up = give_up
        self._vigil: Vigil | None = None

    def __call__(self) -> None:
        twin = self._twin()
        other = None if twin is None else twin.other()
        if twin is None or other is None:
            return
        try:
            if self._vigil is None:
                self._vigil = twin.vigil(other)
        except OSError:
            return  # it was closed meanwhile
        deaths = self._vigil.look()
        # What was sent before is received first.
        if deaths and not (self._give_up is _nothing_comes and twin.has_something()):
            self._give_up(deaths)


def watch_each_other(first: Connection, second: Connection) -> None:
    """Let the two ends of a new pair know of each other."""
    used: list[bool] = []
    one, other = first._channel, second._channel
    first.watch(Twin(first, one, other, used))
    second.watch(Twin(second, other, one, used))


def raise_for_dead(twin: Twin | None, error: OSError | EOFError) -> None:
    """Raise the error that says who has died, if that is known; *error* is its cause.

    *error* is that the other side has gone, *twin* belongs to this one.
    """
    from procession._processes.relatives import relatives

    if twin is None:
        # It was made elsewhere. Only the parent, who gave it to us, is known to have to do
        # with it.
        deaths = relatives.deaths(frozenset(), float("inf"))
    else:
        deaths = relatives.deaths(twin.files, twin.made)
    if not deaths:
        return
    from procession._mailboxes.vigil import died_while_receiving, died_while_sending

    if isinstance(error, EOFError):
        raise died_while_receiving(
            "the other end is gone, and everything was received", deaths
        ) from error
    raise died_while_sending("the other end is gone in the middle", deaths) from error


def _nothing_comes(deaths: list[Death]) -> NoReturn:
    from procession._mailboxes.vigil import died_while_receiving

    raise died_while_receiving(
        "nobody is left who could send anything (the other end is open in this process, too, "
        "which has not used it: close it here when a child has it)",
        deaths,
    )


def _nothing_goes(deaths: list[Death]) -> NoReturn:
    from procession._mailboxes.vigil import died_while_sending

    raise died_while_sending(
        "nobody is left who could receive what is sent (the other end is open in this process, "
        "too, which has not used it: close it here when a child has it)",
        deaths,
    )
