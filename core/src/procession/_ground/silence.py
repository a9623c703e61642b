"""Finding out that the host at the other end of a connection has vanished.

A host that crashes, or whose cable is cut, says nothing: no end, no reset. When nothing is
on its way to it, the kernel's keepalive asks, and finds out. When something is, keepalive
rests, and the kernel sends it again and again for a quarter of an hour. So we look
ourselves whether the host owes us an acknowledgement.

The kernel's own limit for that, TCP_USER_TIMEOUT, would not do: Linux applies it also to
a host that is well and acknowledges everything, but whose program does not receive for a
while (measured). Such a one never counts as silent here.
"""

from __future__ import annotations

import socket
import sys
from struct import pack
from time import monotonic

from procession._ground.sockets import BorrowedSocket
from procession._ground.waiting import wait_for_any

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: How often a wait looks, in seconds.
LOOK_SECONDS = 1.0

#: How often the kernel asks an idle host at the end, before it gives up.
_QUESTIONS = 3
#: Of the kernel's `struct tcp_info`: how often what was sent last was sent again, and how many
#: questions to a receiver without room are unanswered, one byte each.
_RETRANSMITS, _PROBES = 2, 3
_INFO_SIZE = 8
#: One unanswered question may be a moment old.
_TELLING_PROBES = 2


def ask_when_idle(peer: socket.socket, seconds: float) -> None:
    """Have the kernel find out within *seconds* that the host of an idle peer has vanished.

    The kernel counts in seconds: the shortest limit that it keeps is 3.
    """
    interval = max(1, int(seconds) // (2 * _QUESTIONS))
    idle = max(1, int(seconds) - interval * (_QUESTIONS - 1))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", max(1, idle - interval)),
        ("TCP_KEEPINTVL", interval),
        ("TCP_KEEPCNT", _QUESTIONS),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            peer.setsockopt(socket.IPPROTO_TCP, option, value)


def wake_up_to_look(peer: socket.socket) -> None:
    """Have a system call that waits for *peer* fail (EAGAIN) after `LOOK_SECONDS`."""
    if sys.platform == "win32":
        return
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        peer.setsockopt(socket.SOL_SOCKET, option, pack("@ll", int(LOOK_SECONDS), 0))


def owes_answer(fd: int) -> bool:
    """Return whether the host at the other end has left something unanswered by now.

    False where the kernel does not tell, and of what is no TCP socket.
    """
    if sys.platform != "linux":
        return False
    try:
        with BorrowedSocket(fd) as peer:
            info = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    except OSError:
        return False
    return info[_RETRANSMITS] > 0 or info[_PROBES] >= _TELLING_PROBES


def wait_and_look(
    fds: Iterable[int], looks: Mapping[int, Callable[[], None]], timeout: float | None
) -> set[int]:
    """Wait like `wait_for_any`; a descriptor is ready, too, when its *look* raises `OSError`."""
    deadline = None if timeout is None else monotonic() + timeout
    fds = list(fds)
    while True:
        left = LOOK_SECONDS
        if deadline is not None:
            left = min(left, deadline - monotonic())
        ready = wait_for_any(fds, left)
        if ready:
            return ready
        for fd, look in looks.items():
            try:
                look()
            except OSError:
                ready.add(fd)
        if ready or left < LOOK_SECONDS:
            return ready


class Silence:
    """How long the other host has owed an answer, by what was seen of it.

    A look is one system call. Threads: any; one at a time is enough to find out.
    """

    __slots__ = ("_next", "_since", "limit")

    def __init__(self, limit: float) -> None:
        """*limit*: how long is too long, in seconds."""
        self.limit = limit
        self._since: float | None = None
        self._next = 0.0

    def is_over(self, fd: int, now: float) -> bool:
        """Return whether the host at the other end of *fd* counts as vanished at time *now*.

        Looks at most once in `LOOK_SECONDS`.
        """
        if now < self._next:
            return False
        self._next = now + LOOK_SECONDS
        if not owes_answer(fd):
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self.limit
