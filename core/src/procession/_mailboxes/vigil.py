"""Watching, during a wait without limit, over those who could end it."""

from __future__ import annotations

import _thread

from procession._ground.holders import other_holders
from procession._processes.relatives import relatives
from procession.errors import BrokenByDeathError, PeerDiedError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from procession._processes.relatives import Death, Identity


class Vigil:
    """One wait that only other processes can end, looked after about once a second.

    The wait is over for good when all of this holds, at two looks in a row:

    * a child of this process that may have had the object has died, or the parent has;
    * nobody else who has the object open, by the kernel's account, is awake: there is
      nobody, or all of them sleep in a wait of their own for the same object;
    * this process does not start a child at the moment and has not since the last look;
    * no other thread of this process could end the wait (the caller knows which).
    """

    __slots__ = ("_before", "_fd", "_files", "_made")

    def __init__(self, fd: int, files: Iterable[Identity], made: float) -> None:
        """*fd* is held by whoever could end the wait; the dead had one of *files*.

        *made* is when the object was made, or came to this process.
        """
        self._fd = fd
        self._files = frozenset(files)
        self._made = made
        self._before: int | None = None

    def look(
        self, asleep: Callable[[], Iterable[int]] = tuple, *, served: bool = False
    ) -> list[Death]:
        """Return who has died if the wait is over for good, else nobody.

        *asleep* returns processes that wait for the object, too. *served*: whether this
        process has done itself what ends such waits, so that another thread may again.
        """
        before, self._before = self._before, None
        start = relatives.last_start()
        if start is None or (served and _thread._count()):
            return []
        deaths = relatives.deaths(self._files, self._made)
        if not deaths:
            return []
        try:
            holders, unknown = other_holders(self._fd)
        except OSError:
            return []  # no descriptor to look with: nothing is known
        if holders.difference(asleep()) or unknown & relatives.pids():
            return []
        self._before = start
        return deaths if start == before else []


def died_while_receiving(waiting: str, deaths: list[Death]) -> PeerDiedError:
    """Return the error of a wait for something to come, *waiting*, that nobody can end."""
    latest = deaths[0]
    return PeerDiedError(
        _text(waiting, deaths), process=latest.name, pid=latest.pid, exitcode=latest.exit_code
    )


def died_while_sending(waiting: str, deaths: list[Death]) -> BrokenByDeathError:
    """Return the error of a wait for somebody to take something."""
    latest = deaths[0]
    return BrokenByDeathError(
        _text(waiting, deaths), process=latest.name, pid=latest.pid, exitcode=latest.exit_code
    )


def _text(waiting: str, deaths: list[Death]) -> str:
    return f"{waiting}: {'; '.join(map(str, deaths))}"
