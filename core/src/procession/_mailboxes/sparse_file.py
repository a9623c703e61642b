"""A file in memory whose parts can be given back to the system one by one."""

from __future__ import annotations

import mmap
import os
import sys

from procession.framing import MOST_VIEWS, cut

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence

    from procession._contracts.channel import Buffer


#: How much is copied at once: longer pieces are not quicker (measured).
_PIECE = 1 << 20


def write_all(fd: int, pieces: Sequence[Buffer], offset: int) -> None:
    """Write *pieces* one after the other from *offset* on.

    Raises `OSError` when memory has run out, with a part written.
    """
    if sys.platform in ("win32", "darwin"):
        raise OSError("this platform cannot write many pieces at an offset")
    left = [memoryview(piece) for piece in pieces if len(piece)]
    while left:
        written = os.pwritev(fd, left[:MOST_VIEWS], offset)
        offset += written
        left = cut(left, written)[1]


def read_all(fd: int, pieces: Sequence[memoryview], offset: int) -> None:
    """Fill *pieces* with what lies from *offset* on."""
    if sys.platform in ("win32", "darwin"):
        raise OSError("this platform cannot read many pieces at an offset")
    left = [piece for piece in pieces if len(piece)]
    while left:
        count = os.preadv(fd, left[:MOST_VIEWS], offset)
        if not count:
            raise OSError("the file is shorter than its own records say")
        offset += count
        left = cut(left, count)[1]


def copy(target: Buffer, source: Buffer) -> None:
    """Copy *source* into *target*, which is mapped memory, say, and as long.

    That is several times as quick as reading or writing the file. Other threads get their turn
    after each piece.
    """
    into, out_of = memoryview(target), memoryview(source)
    for start in range(0, len(into), _PIECE):
        into[start : start + _PIECE] = out_of[start : start + _PIECE]


def give_back(fd: int, start: int, end: int) -> None:
    """Free the memory of the file from *start* to *end*, both multiples of the page size."""
    if sys.platform != "linux":
        raise OSError("this platform cannot free a part of a file")
    end = min(end, os.fstat(fd).st_size)  # nothing can be mapped behind the end
    if start < end:
        with mmap.mmap(fd, end - start, offset=start) as window:
            window.madvise(mmap.MADV_REMOVE)


def page_end(offset: int) -> int:
    """Return the first multiple of the page size that is not below *offset*."""
    return -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
