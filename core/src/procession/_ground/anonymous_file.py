"""A file without a name: gone with its last descriptor, whoever is killed."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession._contracts.channel import Buffer

_FIRST_FREE = 3


def anonymous_file(label: str, data: Buffer = b"") -> int:
    """Return a descriptor of a file in memory that holds *data*, positioned at its start.

    *label* shows in ``/proc/PID/fd``. Where the platform has no memfd the file lies in
    the temporary directory, unlinked. The descriptor is not inheritable and the caller
    owns it. Raises `OSError` when memory, space or descriptors have run out.
    """
    fd = above_standard(_create(label))
    if not data:
        return fd
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def above_standard(fd: int) -> int:
    """Return *fd*, moved away from 0, 1 and 2; takes it over.

    In a program with stdin closed a new descriptor is number 0, and a child would take
    it for its standard input.
    """
    if fd >= _FIRST_FREE or sys.platform == "win32":
        return fd
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(fd)


def _create(label: str) -> int:
    if sys.platform == "linux":
        return os.memfd_create(label)
    import tempfile

    with tempfile.TemporaryFile(prefix=label) as file:
        return os.dup(file.fileno())
