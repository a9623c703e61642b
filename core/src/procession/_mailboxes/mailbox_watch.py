"""A wait without limit in a mailbox, from the first second on that nothing has happened."""

from __future__ import annotations

import _thread

from procession._ground.holders import identity, other_holders
from procession._mailboxes.vigil import Vigil
from procession._processes.relatives import relatives

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable

    from procession._mailboxes.roster import Roster
    from procession._processes.relatives import Death


EMPTY = "nobody is left who could put anything into this queue"
FULL = "this queue is full and nobody is left who could get anything out of it"
UNDONE = "nobody is left who could report what is undone in this queue as done"


def sleep(wait: Callable[[float], bool], seconds: float, watch: MailboxWatch | None) -> bool:
    """Return what *wait* does, as a sleep that *watch*, if there is one, knows of."""
    return wait(seconds) if watch is None else watch.sleep(wait, seconds)


class MailboxWatch:
    """Tells who has died when nobody is left who could end a wait in a mailbox.

    *fd* is the mailbox's own file, which all that use it have open; *roster* is in it,
    and this process has been given a place there. *made*: see `Vigil`.
    """

    __slots__ = ("_fd", "_made", "_roster", "_vigil", "deaths")

    #: Who has died, when the wait is over for good; otherwise empty.
    deaths: list[Death]

    def __init__(self, fd: int, roster: Roster, made: float) -> None:
        self._fd = fd
        self._made = made
        self._roster = roster
        self._vigil = Vigil(fd, (identity(fd),), made)
        self.deaths = []

    def sleep(self, wait: Callable[[float], bool], seconds: float) -> bool:
        """Return what *wait* does; the others can see meanwhile that this process sleeps."""
        if _thread._count():
            return wait(seconds)  # its other threads are awake, for all we know
        self._roster.sleep()
        try:
            return wait(seconds)
        finally:
            self._roster.wake()

    def look(self, *, served: bool) -> None:
        """Find out whether the wait is over for good; see `Vigil.look`."""
        self.deaths = self._vigil.look(self._roster.asleep, served=served)

    def look_for_undone(self, undone: dict[int, int]) -> None:
        """Find out whether all that is *undone* (see `Roster.undone`) was taken by the dead."""
        try:
            holders, unknown = other_holders(self._fd)
        except OSError:
            return  # no descriptor to look with: nothing is known
        if not undone or undone.keys() & {-1, self._roster.owner, *holders, *unknown}:
            return
        self.deaths = [relatives.end_of(pid) for pid in undone]
