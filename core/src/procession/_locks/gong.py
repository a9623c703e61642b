"""A gong between processes: each stroke wakes everybody who listens."""

from __future__ import annotations

import os
import sys
import time

from procession._ground.anonymous_file import above_standard
from procession._ground.handoff import Exportable
from procession._ground.waiting import wait_readable

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, TypeAlias

    from procession._ground.handoff import Handoff, Recipe, Takeover

    # select.epoll, of which other platforms' type checkers know nothing.
    Epoll: TypeAlias = Any

# How often a listener looks where the kernel cannot wake all of them.
_NAP = 0.002
_ONE = (1).to_bytes(8, sys.byteorder)


class Gong(Exportable):
    """Who listens hears every stroke, in whatever process; others hear nothing.

    An eventfd that is only ever written to: each listener has an epoll of its own that
    reports the edges. Strokes are not counted, and one that was made between two waits is
    heard by the second, so there is no moment at which one could be missed. Without epoll
    listeners look again every few milliseconds.

    Threads: any. Fork: a child listens anew. Owns its descriptors.
    """

    __slots__ = ("_fd", "_idle")

    def __init__(self, fd: int = -1) -> None:
        self._fd = fd
        # Those that nobody listens with now.
        self._idle: list[Ear] = []
        if sys.platform == "linux" and fd < 0:
            self._fd = above_standard(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))

    def strike(self) -> None:
        """Wake all who listen."""
        if self._fd >= 0:
            os.write(self._fd, _ONE)

    def listen(self, other: int = -1) -> Ear:
        """Return an ear, to be closed, that hears strokes from now on.

        It hears, too, when the descriptor *other* is readable, which is the same in all
        calls. Raises `OSError` when descriptors have run out.
        """
        if sys.platform != "linux":
            return Ear(self._idle, other)
        pid = os.getpid()
        while self._idle:
            try:
                ear = self._idle.pop()
            except IndexError:
                break  # another thread was faster
            # Edges that one process is told of the other one is not: what a forked child
            # inherited is of no use to it.
            if ear.pid == pid:
                return ear
            ear.close()
        import select

        poll = select.epoll()
        try:
            poll.register(self._fd, select.EPOLLIN | select.EPOLLET)
            if other >= 0:
                poll.register(other, select.EPOLLIN)
        except BaseException:
            poll.close()
            raise
        return Ear(self._idle, other, poll, pid)

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        return (handoff.give(self._fd),) if self._fd >= 0 else ()

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        return cls(takeover.take(recipe[0])) if recipe else cls()

    def close(self) -> None:
        """Close this process's descriptors. Idempotent."""
        fd, self._fd = self._fd, -1
        while self._idle:
            self._idle.pop().close()
        if fd >= 0:
            os.close(fd)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        if getattr(self, "_fd", -1) >= 0:
            self.close()


_MOST_IDLE = 4


class Ear:
    """One thread's way of hearing a gong; a context manager, and idle after it.

    *idle* are the gong's idle ones, *other* and *poll* as in `Gong.listen`, *pid* is the
    process that made it.
    """

    __slots__ = ("_idle", "_other", "_poll", "pid")

    def __init__(
        self, idle: list[Ear], other: int, poll: Epoll | None = None, pid: int = 0
    ) -> None:
        self._idle = idle
        self._other = other
        self._poll = poll
        self.pid = pid

    def wait(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds for a stroke or for the other descriptor.

        Returns whether the other one is readable. May return early for nothing.
        """
        if self._poll is None:
            if self._other >= 0:
                return wait_readable(self._other, min(timeout, _NAP))
            time.sleep(max(0.0, min(timeout, _NAP)))
            return False
        # In one step of C: who waits is awake only after it, on a processor that just woke up.
        return self._other in dict(self._poll.poll(timeout))

    def close(self) -> None:
        """Hear nothing ever again."""
        if self._poll is not None:
            self._poll.close()

    def __enter__(self) -> Ear:
        """Return the ear."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Be idle; the next one to listen has a use for it."""
        if self._poll is None:
            return
        if len(self._idle) < _MOST_IDLE:
            self._idle.append(self)
        else:
            self.close()
