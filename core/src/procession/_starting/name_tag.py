"""The name tag of a child: how a program that looks from outside knows who it is.

It is the label of the file in memory that a child has anyway (`_processes.report_file`), which
can be read in ``/proc/PID/fd``: the parent's pid, the start method and the name. Whose file it
is, among all those that have a copy of the descriptor, its position says, in
``/proc/PID/fdinfo``. So the tag costs next to nothing, goes with the process however that ends,
and needs nobody to answer questions.

Only parents import this, and children that give themselves another name.
"""

from __future__ import annotations

import os
import sys

from procession._ground.after_fork import in_forked_children
from procession._ground.anonymous_file import anonymous_file
from procession._processes.report_file import position_of

PREFIX = "procession-process"
#: The same for the tag of a child that has given itself another name. It has both then.
RENAMED = "procession-renamed"
# The kernel allows 249 bytes for all of it.
_LONGEST_NAME = 180


def tag(name: str, method: str | None, parent: int | None, prefix: str = PREFIX) -> str:
    """Return the label that says *name*, start *method* and the pid of the *parent*."""
    if not name.isascii() or len(name) > _LONGEST_NAME or "\0" in name:
        # In ASCII, whatever the child's locale can encode; and no label may have a zero in it.
        shown = name.encode("ascii", "backslashreplace").replace(b"\0", b"?")[:_LONGEST_NAME]
        name = shown.decode()
    return f"{prefix}:{parent or 0}:{method or ''}:{name}"


class NewTag:
    """The tag of this process, if it has given itself another name.

    Threads: any, the last name stays. Fork: a child has its own name.
    """

    def __init__(self) -> None:
        self._worn: tuple[int, int] | None = None
        self._watches_forks = False

    def wear(self, name: str, method: str | None, parent: int | None) -> None:
        """Be known as *name* from now on.

        Without a descriptor to spare, or on a platform without memfd, the process keeps its
        old tag: it must not fail for that.
        """
        if sys.platform != "linux":
            return
        if not self._watches_forks:
            in_forked_children(self.take_off)
            self._watches_forks = True
        self.take_off()
        try:
            fd = anonymous_file(tag(name, method, parent, RENAMED))
        except OSError:
            return
        os.lseek(fd, position_of(os.getpid()), os.SEEK_SET)
        self._worn = fd, os.fstat(fd).st_ino

    def take_off(self) -> None:
        """Close the tag, also one that was inherited by a fork."""
        worn, self._worn = self._worn, None
        if worn is None:
            return
        fd, inode = worn
        try:
            # A program may have closed everything, and the number may be something else now.
            if os.fstat(fd).st_ino == inode:
                os.close(fd)
        except OSError:
            return  # closed by the program


#: This process's own.
new_tag = NewTag()
