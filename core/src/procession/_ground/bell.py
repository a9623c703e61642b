"""A bell between processes: who waits for it is woken when somebody rings."""

from __future__ import annotations

import os
import sys

from procession._ground.anonymous_file import above_standard
from procession._ground.handoff import Exportable
from procession._ground.waiting import wait_readable

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    import select
    from collections.abc import Callable
    from typing import Self

    from procession._ground.handoff import Handoff, Recipe, Takeover


class Bell(Exportable):
    """A descriptor that is readable from `ring` until `silence`, in every process.

    Rung twice is rung once. Any number of threads and processes may ring, wait and
    silence at once; none of it blocks but `wait`. An eventfd on Linux, elsewhere a
    pipe that holds at most a few bytes.

    `wait` wakes one waiter for a ring, where the kernel can do that (epoll), and the
    woken one may be killed before it does anything about it: wait with a timeout and
    look again. Owns its descriptors.
    """

    if sys.platform == "linux":
        _poll: select.epoll | None

    __slots__ = ("_poll", "_reader", "_writer")

    def __init__(self, reader: int = -1, writer: int = -1) -> None:
        self._poll = None
        self._reader, self._writer = reader, writer
        if reader < 0:
            self._reader, self._writer = _make()

    def ring(self) -> None:
        """Make it readable and wake a waiter."""
        try:
            os.write(self._writer, _ONE)
        except BlockingIOError:
            pass  # it could not be louder

    def silence(self) -> None:
        """Make it unreadable until the next ring."""
        try:
            os.read(self._reader, _ALL)
        except BlockingIOError:
            pass  # somebody else was faster

    def wait(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds for a ring; return whether there was one."""
        if sys.platform != "linux":
            return self.wait_with_others(timeout)
        poll = self._poll
        if poll is None:
            import select

            poll = select.epoll()
            poll.register(self._reader, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            # Two threads may come here at once: the later one's stays, the other's is
            # closed when its thread has done waiting.
            self._poll = poll
        return bool(poll.poll(timeout))

    def wait_with_others(self, timeout: float) -> bool:
        """As `wait`, but every waiter is woken by a ring."""
        return wait_readable(self._reader, timeout)

    def fileno(self) -> int:
        """Return the descriptor that is readable while the bell rings."""
        return self._reader

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        if self._reader == self._writer:
            return (handoff.give(self._reader),)
        return handoff.give(self._reader), handoff.give(self._writer)

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        reader = takeover.take(recipe[0])
        return cls(reader, takeover.take(recipe[1]) if len(recipe) > 1 else reader)

    def close(self) -> None:
        """Close this process's descriptors. Idempotent."""
        reader, writer = self._reader, self._writer
        self._reader = self._writer = -1
        if sys.platform == "linux" and self._poll is not None:
            self._poll.close()
            self._poll = None
        if reader >= 0:
            os.close(reader)
        if writer not in (-1, reader):
            os.close(writer)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        # A constructor that ran out of descriptors leaves nothing to close.
        if getattr(self, "_reader", -1) >= 0:
            self.close()


# What an eventfd takes as one more; a pipe takes it as eight bytes.
_ONE = (1).to_bytes(8, sys.byteorder)
# All that may be there to read.
_ALL = 8 if sys.platform == "linux" else 65536


def _make() -> tuple[int, int]:
    if sys.platform == "linux":
        fd = above_standard(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        return fd, fd
    reader, writer = os.pipe()
    if sys.platform == "win32":
        raise OSError("bells need a POSIX system")
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer
