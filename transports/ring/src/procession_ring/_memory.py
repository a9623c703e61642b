"""The memory of a ring: anonymous, reserved in full, and never to shrink."""

from __future__ import annotations

import os
import sys

from ._layout import BEGINNING, HEADER_SIZE, LANE_MAGIC, STREAM_BEGINNING, STREAM_MAGIC

_FIRST_FREE = 3


def new_lane_memory(size: int) -> int:
    """Return a descriptor of the memory for a lane of *size* bytes.

    Every page is reserved, so that what the machine or a limit does not have is an
    `OSError` here, and never a SIGBUS later. The size is sealed: a process that would cut
    the memory short cannot harm the others. The caller owns the descriptor.
    """
    return _new_memory("procession-lane", BEGINNING.pack(LANE_MAGIC, size), size, size, 1)


def new_stream_memory(size: int, full: int, streams: int) -> int:
    """Return a descriptor of the memory for *streams* streams of *size* bytes each.

    As for a lane; but there is place for each of them to become *full* bytes large, which is
    not reserved.
    """
    beginning = STREAM_BEGINNING.pack(STREAM_MAGIC, size, 0, full)
    return _new_memory("procession-ring", beginning, size, full, streams)


def _new_memory(label: str, beginning: bytes, size: int, full: int, streams: int) -> int:
    if sys.platform != "linux":
        raise OSError("only Linux has memory files")
    import fcntl

    fd = os.memfd_create(label, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        fd = _above_standard(fd)
        each = HEADER_SIZE + full
        os.ftruncate(fd, streams * each)
        for number in range(streams):
            os.posix_fallocate(fd, number * each, HEADER_SIZE + size)
            os.pwrite(fd, beginning, number * each)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except BaseException:
        os.close(fd)
        raise
    return fd


def new_bell() -> int:
    """Return a silent bell: an eventfd, which the caller owns."""
    if sys.platform != "linux":
        raise OSError("only Linux has eventfd")
    return _above_standard(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))


def _above_standard(fd: int) -> int:
    """Return *fd*, moved away from 0, 1 and 2, which a child takes for its streams."""
    if fd >= _FIRST_FREE or sys.platform == "win32":
        return fd
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(fd)
