"""Reading and writing many pieces of memory at once, all of them."""

from __future__ import annotations

import os
import sys

from procession._ground.waiting import wait_readable, wait_writable
from procession.errors import BrokenConnectionError
from procession.framing import cut

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    #: Waits until a descriptor may be used again, which has just refused; with what waits for it.
    WaitAgain: TypeAlias = "Callable[[int, Callable[[int, float], bool]], object]"


def fill(fd: int, views: Sequence[memoryview], again: WaitAgain | None = None) -> None:
    """Read from *fd* until all of *views* are full; there are at most `MOST_VIEWS`.

    Each read has room for all that is still missing. *again* is called when *fd* would
    block, which otherwise is an error. Raises `BrokenConnectionError` when the end of the
    file comes first.
    """
    if sys.platform == "win32":
        raise OSError("this platform has no vectored reading")
    views = [view for view in views if view]
    while views:
        try:
            count = os.readv(fd, views)
        except ConnectionResetError:
            # The peer closed without reading everything that we had sent. A socket says so
            # once, and may do so before it gives the rest of what the peer had sent to us.
            continue
        except BlockingIOError:
            if again is None:
                raise
            again(fd, wait_readable)
            continue
        if not count:
            raise BrokenConnectionError("got end of file during message")
        if len(views) == 1:
            if count == len(views[0]):
                return
            views = [views[0][count:]]
        else:
            views = cut(views, count)[1]


def read_more(fd: int, length: int, again: WaitAgain | None = None) -> bytes:
    """Read up to *length* bytes of a message from *fd*, as `fill` does; none at its end."""
    while True:
        try:
            return os.read(fd, length)
        except ConnectionResetError:
            continue
        except BlockingIOError:
            if again is None:
                raise
            again(fd, wait_readable)


def write_all(fd: int, views: Sequence[memoryview], again: WaitAgain | None = None) -> None:
    """Write all the bytes behind *views* to *fd*; there are at most `MOST_VIEWS`.

    *again* as for `fill`.
    """
    if sys.platform == "win32":
        raise OSError("this platform has no vectored writing")
    while views:
        try:
            written = os.writev(fd, views)
        except BlockingIOError:
            if again is None:
                raise
            again(fd, wait_writable)
            continue
        if len(views) == 1 and written == len(views[0]):
            return
        views = cut(views, written)[1]
