"""A gong between processes: each stroke wakes everybody who listens."""

from __future__ import annotations

import os
import sys
import time

from procession._anonymous_file import above_standard
from procession._handoff import Exportable
from procession._waiting import wait_readable

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, TypeAlias

    from procession._handoff import Handoff, Recipe, Takeover

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

    __slots__ = ("_fd", "_idle", "_pid")

    def __init__(self, fd: int = -1) -> None:
        self._fd = fd
        # Epolls that nobody listens with now, and what they report besides.
        self._idle: list[tuple[int, Epoll]] = []
        self._pid = os.getpid()
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
            return Ear(self, other)
        if self._pid != os.getpid():
            # Edges that one process is told of the other one is not.
            self._idle, self._pid = [], os.getpid()
        try:
            return Ear(self, *self._idle.pop())
        except IndexError:
            pass
        import select

        poll = select.epoll()
        try:
            poll.register(self._fd, select.EPOLLIN | select.EPOLLET)
            if other >= 0:
                poll.register(other, select.EPOLLIN)
        except BaseException:
            poll.close()
            raise
        return Ear(self, other, poll)

    def put_back(self, other: int, poll: Epoll) -> None:
        """Keep an epoll for the next listener."""
        if self._pid == os.getpid() and len(self._idle) < _MOST_IDLE:
            self._idle.append((other, poll))
        else:
            poll.close()

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
            self._idle.pop()[1].close()
        if fd >= 0:
            os.close(fd)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        if getattr(self, "_fd", -1) >= 0:
            self.close()


_MOST_IDLE = 4


class Ear:
    """One thread's way of hearing a gong; a context manager that closes it."""

    __slots__ = ("_gong", "_other", "_poll")

    def __init__(self, gong: Gong, other: int, poll: Epoll | None = None) -> None:
        self._gong = gong
        self._other = other
        self._poll = poll

    def wait(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds for a stroke or for the other descriptor.

        Returns whether the other one is readable. May return early for nothing.
        """
        if self._poll is None:
            if self._other >= 0:
                return wait_readable(self._other, min(timeout, _NAP))
            time.sleep(max(0.0, min(timeout, _NAP)))
            return False
        return any(fd == self._other for fd, _ in self._poll.poll(timeout))

    def __enter__(self) -> Ear:
        """Return the ear."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Hear nothing any more."""
        if self._poll is not None:
            self._gong.put_back(self._other, self._poll)
            self._poll = None
