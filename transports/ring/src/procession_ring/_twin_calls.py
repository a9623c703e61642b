"""What the calls of the pure-Python twin of an end share: its sides, waiting, closing.

The protocol is the compiled end's, but the locks are those of the kernel's files. So one
connection is used by one kind only; which one made it is written in its header. It
relies on a processor that keeps stores in order (`Ring.unavailable` sees to that); where the
protocol needs a store to be seen before a load, it takes a lock.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import socket
import sys
import time

from procession.errors import BusyConnectionError
from procession.plugin import LockFile

from ._twin_half import ARMED, LEFT, TAIL, WATCHED, Half, is_in_the_middle, ring, silence

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn, TypeVar

    from procession.plugin import Buffer, Message

    T = TypeVar("T")

# As in `csrc`: the longest sleep and how often a wait looks whether anybody is left who could
# end it, in seconds, and how long a ring may take in milliseconds.
LONGEST_SLEEP = 0.25
_LOOK_AGAIN = 1.0
_LONGEST_RINGING = 20


class TwinCalls:
    """An end as both directions need it; takes over the descriptors if it can be made."""

    if sys.platform == "linux":
        _epoll: select.epoll | None

    __slots__ = (
        "_alone",
        "_descriptors",
        "_epoll",
        "_file",
        "_in",
        "_in_bell",
        "_left_seen",
        "_looked",
        "_luggage",
        "_out",
        "_out_bell",
        "_peer",
        "_pid",
        "_take",
        "_users",
        "closed",
        "readable",
        "torn",
        "writable",
    )

    def __init__(
        self,
        memory: int,
        in_bell: int,
        out_bell: int,
        peer: int,
        in_offset: int,
        out_offset: int,
        take: Callable[[int], memoryview],
        create: bool,
        /,
    ) -> None:
        self.closed = True  # as long as nothing is ours
        self.torn = False
        view = memoryview(mmap.mmap(memory, 0))
        # Of new memory, no lock has to be made.
        self._file = LockFile(memory)
        self._users = 0
        self._in = Half(view, in_offset, self._file, 1) if in_offset >= 0 else None
        self._out = Half(view, out_offset, self._file, 0) if out_offset >= 0 else None
        self._take = take
        self._luggage: Callable[[Sequence[Buffer]], Message] | None = None
        self._in_bell, self._out_bell = in_bell, out_bell
        self._epoll = None
        self._pid = os.getpid()
        self._alone = False
        self._looked = 0.0
        self._left_seen = self._out.words[LEFT] if self._out else 0
        self.readable = self._in is not None
        self.writable = self._out is not None
        # Of a duplicate, which is thus not inheritable and closed with its object.
        self._peer = socket.socket(fileno=peer)
        self._peer.setblocking(False)
        self._descriptors = (memory, in_bell, out_bell, peer)
        self.closed = False

    # -- beginning a call --------------------------------------------------------------

    def _receiving(self) -> Half:
        half = self._in
        if half is None or not self.readable or self.closed:
            self._refuse_closed()
        if self._pid != os.getpid():
            self._renew()
        return half

    def _sending(self) -> Half:
        half = self._out
        if half is None or self.closed:
            self._refuse_closed()
        if self._pid != os.getpid():
            self._renew()
        return half

    def _renew(self) -> None:
        for half in (self._in, self._out):
            if half is not None:
                half.renew()
        self._pid = os.getpid()
        self._users = 0

    def _refuse_closed(self) -> NoReturn:
        raise OSError(errno.EBADF, "handle is closed")

    def _refuse_busy(self, doing: str) -> NoReturn:
        raise BusyConnectionError(
            f"cannot be used here: a signal handler has interrupted this thread while it was "
            f"{doing} a longer message through this very connection"
        )

    def _corrupt(self) -> NoReturn:
        self.close()
        raise OSError("bad message: the memory of the ring is corrupt")

    def watch(self, receiving: Callable[[], object], sending: Callable[[], object], /) -> bool:
        """See `procession.plugin.Channel.watch`."""
        for half, look in ((self._in, receiving), (self._out, sending)):
            if half is not None:
                half.look = look
        return True

    def _look_around(self, half: Half) -> None:
        """In a wait for a message to begin: look after the other side when it is time to."""
        if half.look is None:
            return
        now = time.monotonic()
        if not half.since:
            half.since = now
        elif now - half.since >= _LOOK_AGAIN:
            half.since = now
            half.look()

    def carry(self, luggage: Callable[[Sequence[Buffer]], Message], /) -> None:
        """Have *luggage* called, with the buffers, for a message that has some and no body.

        What it returns is received then. It is called with the side taken.
        """
        self._luggage = luggage

    def _call_out(self, function: Callable[..., T], *arguments: object) -> T:
        """Call *function* with a side taken; it may run any code."""
        result = function(*arguments)
        if self._pid != os.getpid():
            raise BusyConnectionError(
                "cannot go on here: this process was forked in the middle of a call, which is the "
                "parent's to finish"
            )
        return result

    # -- the sides ---------------------------------------------------------------------

    def _exclusively(
        self, half: Half, end: float | None, critical: Callable[..., T], *arguments: Any
    ) -> T:
        """Call *critical* with *half* and *arguments*, with its side taken from other processes.

        Its lock is held. Raises `BlockingIOError` if the side cannot be had until *end*.
        """
        if half.relying:  # by the code that this signal handler has interrupted
            return critical(half, *arguments)
        self._users += 1
        try:
            while not self.closed:
                soon = time.monotonic() + LONGEST_SLEEP
                until = soon if end is None else min(end, soon)
                try:
                    return half.side.run_within(until, _relying, half, critical, arguments)
                except BlockingIOError:
                    if end is not None and time.monotonic() >= end:
                        raise
                self._look_around(half)
                if half is self._out and self._peer_has_gone():
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            self._refuse_closed()
        finally:
            self._users -= 1
            if self.closed:
                self._give_back_memory()

    def _is_cut(self, half: Half, word: int) -> bool:
        """Return whether the other side has left in the middle of a message for good.

        *word* is its position.
        """
        if not is_in_the_middle(half.longs[word]):
            return False
        try:
            return half.other_side.run_within(0.0, lambda: is_in_the_middle(half.longs[word]))
        except (BlockingIOError, RuntimeError):
            return False  # it is at work, or we are looking already

    # -- waiting -----------------------------------------------------------------------

    def _wait_for_data(self, half: Half, longest: float | None) -> bool:
        """Sleep until there may be data; return whether the peer has gone."""
        self._settle(half)
        if half.has_data():
            return False
        if self.closed:
            self._refuse_closed()
        if longest is None or longest > LONGEST_SLEEP:
            longest = LONGEST_SLEEP
        gone = self._poll([self._in_bell], longest)
        return gone or (not half.has_data() and self._is_cut(half, TAIL))

    def _settle(self, half: Half) -> None:
        """Make the bell silent, and be sure that it rings for the next message."""
        words = half.words
        armed, watched = words[ARMED], words[WATCHED]
        if watched and not armed:
            # Whoever took `armed` rings or is about to.
            self._poll([self._in_bell], _LONGEST_RINGING / 1000)
        if watched or not armed:
            silence(self._in_bell)  # also what came too late
            words[ARMED] = 1
        half.fence()
        if half.has_data() and words[ARMED]:
            words[ARMED] = 0
            ring(self._in_bell)

    def _poll(self, bells: list[int], timeout: float, *, tokens: bool = False) -> bool:
        """Wait for *bells* or the peer; return whether the peer has gone."""
        if sys.platform == "win32":
            raise OSError("waiting needs poll(), which Windows does not have")
        poller = select.poll()
        try:
            poller.register(self._peer, select.POLLIN if tokens else 0)
        except ValueError:  # another thread has closed this end since it was looked at
            self._refuse_closed()
        for bell in bells:
            poller.register(bell, select.POLLIN)
        gone = select.POLLHUP | select.POLLERR
        peer = self._descriptors[3]
        return any(fd == peer and event & gone for fd, event in poller.poll(timeout * 1000))

    def _peer_has_gone(self) -> bool:
        return self._poll([], 0)

    # -- descriptors -------------------------------------------------------------------

    def descriptors(self) -> tuple[int, int, int, int]:
        """Return memory, bell in, bell out and peer; they stay this end's."""
        if self.closed:
            self._refuse_closed()
        return self._descriptors

    def close(self) -> None:
        """See `procession.plugin.Channel.close`."""
        if self.closed:
            return
        self.closed = True
        if self._pid != os.getpid():
            self._users = 0  # they are the parent's
        if self._in is not None:
            self._in.words[LEFT] = (self._in.words[LEFT] + 1) & 0xFFFFFFFF
            self._in.words[ARMED] = 0
            ring(self._in_bell)  # threads of ours that sleep look up
        # The memory goes with the last view of it, which a thread may be using.
        self._in = self._out = None
        if sys.platform == "linux" and self._epoll is not None:
            self._epoll.close()
        self._peer.close()
        for bell in (self._in_bell, self._out_bell):
            if bell >= 0:
                os.close(bell)
        self._give_back_memory()

    def _give_back_memory(self) -> None:
        """Close the file of the locks, as soon as nobody needs them."""
        if self._users > 0:
            return
        memory, in_bell, out_bell, peer = self._descriptors
        self._descriptors = (-1, in_bell, out_bell, peer)
        if memory >= 0:
            self._file.close()
            os.close(memory)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        if getattr(self, "_descriptors", None):
            self._users = 0
            self.close()
            self._give_back_memory()


def _relying(half: Half, critical: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    """Call *critical* while signal handlers can see that the side is taken."""
    half.relying = True
    try:
        return critical(half, *arguments)
    finally:
        half.relying = False
