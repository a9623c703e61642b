"""The name tag of a child: how a program that looks from outside knows who it is.

An anonymous file without content, whose label can be read in ``/proc/PID/fd``. It says the pid
(a copy of the descriptor that some other fork inherited is nobody's tag), the parent's pid, the
start method and the name. It costs one system call and one descriptor, goes with the process
however that ends, and needs nobody to answer questions.
"""

from __future__ import annotations

import os
import sys

from procession._anonymous_file import above_standard

PREFIX = "procession-process"
# The kernel allows 249 bytes for all of it.
_LONGEST_NAME = 180

# The descriptor of this process's tag and the file that it was, or None. The one piece of
# module state here: there is one process.
_worn: tuple[int, int] | None = None


def wear(name: str, method: str | None, parent: int | None) -> None:
    """Be known as *name*, started by *method* and *parent*; replaces an earlier tag.

    Without a descriptor to spare, or on a platform without memfd, the process has no tag:
    it must not fail for that.
    """
    global _worn
    if sys.platform != "linux":
        return
    take_off()
    # In ASCII, whatever the child's locale can encode; and no label may have a zero in it.
    shown = name.encode("ascii", "backslashreplace").replace(b"\0", b"?")[:_LONGEST_NAME]
    label = f"{PREFIX}:{os.getpid()}:{parent or 0}:{method or ''}:{shown.decode()}"
    try:
        fd = above_standard(os.memfd_create(label))
    except OSError:
        return
    _worn = fd, os.fstat(fd).st_ino


def take_off() -> None:
    """Close the tag, also one that was inherited by a fork."""
    global _worn
    if _worn is None:
        return
    fd, inode = _worn
    _worn = None
    try:
        # A program may have closed everything, and the number may be something else now.
        if os.fstat(fd).st_ino == inode:
            os.close(fd)
    except OSError:
        return  # closed by the program


def is_worn() -> bool:
    """Return whether this process has a tag."""
    return _worn is not None
