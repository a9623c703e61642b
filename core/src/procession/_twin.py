"""What an end of a connection knows of the other one, which was made together with it."""

from __future__ import annotations

import select
import sys
import time
from _weakref import ref

from procession._holders import identity

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from procession._channel import Channel
    from procession._relatives import Death, Identity
    from procession._vigil import Vigil

# How often a wait looks whether somebody is left who could end it.
_SLEEP_MS = 1000


class Twin:
    """The other end of a pair, as long as this process has it open, and afterwards.

    The usual mistake: one end is given to a child and stays open here, too. When the child
    dies the kernel does not tell, because this process could still use that end itself.
    As long as it has not, a wait looks once a second whether anybody else is left.

    What happens once a message has begun is not watched in this way.

    Threads: any. Fork: the copy in the child knows the same.
    """

    __slots__ = ("_channel", "_mine", "_theirs", "_used", "files", "made")

    def __init__(self, channel: Channel, files: frozenset[Identity], used: list[bool]) -> None:
        """*channel* is the other end; *used* tells of both ends if they were used here."""
        self._channel = ref(channel)
        self.files = files
        self.made = time.monotonic()
        self._used = used
        self._mine = len(used)
        self._theirs = 1 - self._mine
        used.append(False)

    def await_message(self, channel: Channel) -> bool:
        """Wait for a message, or the end, on *channel*, the end that this belongs to.

        Returns false at once when the kernel will tell of the other side's end: nothing has
        to be waited for in this way any more. Raises `PeerDiedError`.
        """
        return self._await(channel.fileno, 1, _nothing_comes)  # POLLIN

    def await_room(self, channel: Channel) -> bool:
        """Likewise for room to send to *channel*. Raises `BrokenByDeathError`."""
        return self._await(lambda: int(getattr(channel, "writer", -1)), 4, _nothing_goes)  # POLLOUT

    def _await(
        self,
        descriptor: Callable[[], int],
        event: int,
        give_up: Callable[[list[Death]], NoReturn],
    ) -> bool:
        self._used[self._mine] = True
        if sys.platform == "win32":
            return False
        vigil: Vigil | None = None
        while True:
            other = self._channel()
            fd = descriptor()
            if other is None or other.closed or self._used[self._theirs] or fd < 0:
                return False
            poller = select.poll()
            poller.register(fd, event)
            if poller.poll(_SLEEP_MS):
                return True
            if vigil is None:
                from procession._vigil import Vigil

                vigil = Vigil(other.fileno(), self.files, self.made)
            deaths = vigil.look()
            if deaths and not poller.poll(0):
                give_up(deaths)


def make_twins(first: Channel, second: Channel) -> tuple[Twin, Twin]:
    """Return what the two ends of a new pair know of each other, in this order."""
    used: list[bool] = []
    return (
        Twin(second, frozenset((identity(second.fileno()),)), used),
        Twin(first, frozenset((identity(first.fileno()),)), used),
    )


def raise_for_dead(twin: Twin | None, error: OSError | EOFError) -> None:
    """Raise the error that says who has died, if that is known; *error* is its cause.

    *error* is that the other side has gone, *twin* belongs to this one.
    """
    from procession._relatives import relatives

    if twin is None:
        # It was made elsewhere. Only the parent, who gave it to us, is known to have to do
        # with it.
        deaths = relatives.deaths(frozenset(), float("inf"))
    else:
        deaths = relatives.deaths(twin.files, twin.made)
    if not deaths:
        return
    from procession._vigil import died_while_receiving, died_while_sending

    if isinstance(error, EOFError):
        raise died_while_receiving(
            "the other end is gone, and everything was received", deaths
        ) from error
    raise died_while_sending("the other end is gone in the middle", deaths) from error


def _nothing_comes(deaths: list[Death]) -> NoReturn:
    from procession._vigil import died_while_receiving

    raise died_while_receiving(
        "nobody is left who could send anything (the other end is open in this process, too, "
        "which has not used it: close it here when a child has it)",
        deaths,
    )


def _nothing_goes(deaths: list[Death]) -> NoReturn:
    from procession._vigil import died_while_sending

    raise died_while_sending(
        "nobody is left who could receive what is sent (the other end is open in this process, "
        "too, which has not used it: close it here when a child has it)",
        deaths,
    )
