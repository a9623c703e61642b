"""Reading and writing many pieces of memory at once, all of them."""

from __future__ import annotations

import os
import sys

from procession.errors import BrokenConnectionError
from procession.framing import cut

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence


def fill(fd: int, views: Sequence[memoryview]) -> None:
    """Read from *fd* until all of *views* are full; there are at most `MOST_VIEWS`.

    Each read has room for all that is still missing. Raises `BrokenConnectionError`
    when the end of the file comes first.
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
            count = os.readv(fd, views)
        if not count:
            raise BrokenConnectionError("got end of file during message")
        if len(views) == 1:
            if count == len(views[0]):
                return
            views = [views[0][count:]]
        else:
            views = cut(views, count)[1]


def read_more(fd: int, length: int) -> bytes:
    """Read up to *length* bytes of a message from *fd*, as `fill` does; none at its end."""
    try:
        return os.read(fd, length)
    except ConnectionResetError:
        return os.read(fd, length)


def write_all(fd: int, views: Sequence[memoryview]) -> None:
    """Write all the bytes behind *views* to *fd*; there are at most `MOST_VIEWS`."""
    if sys.platform == "win32":
        raise OSError("this platform has no vectored writing")
    while views:
        written = os.writev(fd, views)
        if len(views) == 1 and written == len(views[0]):
            return
        views = cut(views, written)[1]
