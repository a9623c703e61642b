"""Word that is left for the thread of a pool, and the bell that wakes it."""

from __future__ import annotations

from procession._ground.bell import Bell
from procession._ground.deque import deque

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable


class Word:
    """What others leave for one thread to do.

    Threads: any, and signal handlers: there is no lock. The bell is closed when it was
    forgotten and nobody is ringing it any more.
    """

    def __init__(self) -> None:
        #: Workers ring it, too. None once it was forgotten.
        self.bell: Bell | None = Bell()
        self._left: deque[Callable[[], None]] = deque()
        # How often it was silenced, and at which of these times somebody has rung it.
        self._silences = 0
        self._rung_at = -1

    def __bool__(self) -> bool:
        return bool(self._left)

    def leave(self, function: Callable[[], None]) -> None:
        """Have *function* called by the thread."""
        self._left.append(function)
        self.ring()

    def ring(self) -> None:
        """Wake the thread, unless somebody has."""
        silences = self._silences
        if self._rung_at == silences:
            return
        bell = self.bell  # kept open by this, whoever ends the pool now
        if bell is not None:
            bell.ring()
        # Only now: who interrupts us before may wait for the thread.
        self._rung_at = silences

    def silence(self) -> None:
        """Have the bell ring no more. Who leaves word afterwards rings again."""
        assert self.bell is not None
        self.bell.silence()
        self._silences += 1

    def act(self) -> None:
        """Do what was left."""
        while self._left:
            self._left.popleft()()

    def forget(self) -> None:
        """Have no bell any more."""
        self.bell = None
