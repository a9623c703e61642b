"""`Event`: a flag between processes that can be waited for."""

from __future__ import annotations

import time

from procession._ground.bell import Bell
from procession._ground.shared_words import SharedWords, reserve
from procession._locks.gong import Gong

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

# A process killed in `clear`, between its change and its stroke, leaves those asleep who
# should have seen that the event was set for a moment. So nobody sleeps for longer.
_LONGEST_SLEEP = 1.0


class Event:
    """A flag that processes set, clear and wait for.

    A context makes it. The flag is a descriptor that is readable while it is set, so that
    `set` is one system call, which no kill can divide, and may be called by a signal
    handler at any time; and it can be waited for by `procession.connection.wait`, select
    and asyncio.

    Threads: any. Fork: both processes have it. It may be an argument of a process, on every
    start method, and be sent through connections and queues. Closed when it is collected.
    """

    def __init__(self, *, ctx: object = None) -> None:
        # ctx is multiprocessing's, and not needed: all contexts have the same events.
        space, at = reserve(1)
        self._set_up(space, at, Bell(), Gong())

    def _set_up(self, space: SharedWords, at: int, flag: Bell, gong: Gong) -> None:
        self._space = space
        self._at = at
        # How often it was cleared: who waits sees that it was set in between.
        self._clears = space.words[at : at + 1]
        self._guard = space.guard(at)
        self._flag = flag
        self._gong = gong

    def is_set(self) -> bool:
        """Return whether it is set now."""
        return self._flag.wait(0)

    def set(self) -> None:
        """Set it, and wake all who wait for it."""
        self._flag.ring()

    def clear(self) -> None:
        """Clear it. Who has waited until now while it was set does not wait any longer."""
        if self._guard.run(self._clear):
            self._gong.strike()

    def _clear(self) -> bool:
        if not self.is_set():
            return False
        self._clears[0] += 1
        self._flag.silence()
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to *timeout* seconds (None: for ever) until it is set; return whether it was.

        True, too, when it was set and cleared again meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._gong.listen(self._flag.fileno()) as ear:
            clears = self._clears[0]
            left = 0.0
            while not ear.wait(left):
                if self._clears[0] != clears:
                    return True
                left = _LONGEST_SLEEP
                if deadline is not None:
                    left = min(left, deadline - time.monotonic())
                    if left <= 0:
                        return self.is_set()
        return True

    def fileno(self) -> int:
        """Return the descriptor that is readable while the event is set; it stays its own."""
        return self._flag.fileno()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process of this host."""
        return _rebuild, (type(self), self._space, self._at, self._flag, self._gong)

    def __repr__(self) -> str:
        """Return whether it is set."""
        state = "set" if self.is_set() else "unset"
        return f"<{type(self).__name__} at {id(self):#x} {state}>"


def _rebuild(kind: type[Event], space: SharedWords, at: int, flag: Bell, gong: Gong) -> Event:
    event = kind.__new__(kind)
    event._set_up(space, at, flag, gong)
    return event


# The public home: tracebacks print it and pickles refer to it.
Event.__module__ = "procession.synchronize"
