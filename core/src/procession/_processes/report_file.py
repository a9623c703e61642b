"""The file in memory in which a child leaves word of how it failed, for its parent.

The parent makes one for each start and reads it when the child has ended; a child that
succeeds writes nothing. It is laid out for whoever is killed in the middle: a record counts
once its header is there, which is written last.

* from 0: the header, and the record of an exception (see `procession._processes.failure_record`);
* somewhere behind `DUMP_AT`: what the interpreter's faulthandler writes at a fatal signal. It
  writes where the descriptor's own position is.

That position is `DUMP_AT` and the child's process id. Others have the descriptor, too, the
parent among them, and who looks from outside learns in this way whose it is. The file's label
says the rest: it is the child's name tag, see `procession._starting.name_tag`.

This module is imported in every child; what writes the record only in those that fail.
"""

from __future__ import annotations

import os
from _weakref import ref
from os import getpid, lseek

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from procession._processes.failure_record import FailureRecord

#: Where the record ends; the dump of a fatal signal comes somewhere behind.
DUMP_AT = 1 << 18


def position_of(pid: int) -> int:
    """Return the position of the descriptor that belongs to process *pid*."""
    return DUMP_AT + pid


class Dump:
    """The file as faulthandler wants it, which keeps this object for as long as it uses it.

    What faulthandler calls is in C: each function in Python costs a forked child two pages.
    """

    __slots__ = ("__weakref__", "fileno", "flush")

    def __init__(self, fd: int) -> None:
        self.fileno: Callable[[], int] = fd.__index__
        self.flush: Callable[[], object] = int  # does nothing: there is no buffer


class ReportFile:
    """This process's own file, seen from the child that it is for.

    Threads: only the main one uses it. Fork: a copy of the child is no part of what its
    parent learns; it leaves no word, and one that procession starts is given its own file.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._pid = 0
        self._dump: ref[Dump] | None = None

    def adopt(self, fd: int, faulthandler: Any = None, dump: Dump | None = None) -> None:
        """Use *fd*, which is taken over, from now on; by *faulthandler* for fatal signals, too.

        That is the module, which is given the file as *dump*; the caller lets go of that. One
        that is enabled already, by option, variable or a parent that was copied, stays as
        somebody has chosen it.
        """
        if self._fd >= 0:
            self._abandon()
        self._fd = fd
        self._pid = pid = getpid()
        lseek(fd, DUMP_AT + pid, 0)
        if dump is not None and not faulthandler.is_enabled():
            try:
                faulthandler.enable(dump)
            except (OSError, RuntimeError, MemoryError):
                return  # no memory for a stack of its own: no dump then
            self._dump = ref(dump)

    def begin(self, error: BaseException, text: str) -> FailureRecord | None:
        """Leave word of *error*, printed as *text*; return what can add more. Never raises.

        None when there is no file any more, or no room to write.
        """
        try:
            if self._pid != os.getpid() or not self._is_ours():
                return None
            from procession._processes.failure_record import FailureRecord

            record = FailureRecord(self._fd, error, text)
            record.write()
            return record
        except Exception:
            # There is nobody to tell: the traceback on stderr and the exit code remain.
            return None

    def give_back(self) -> None:
        """Close the file, as the end of the process would. Idempotent."""
        if self._fd >= 0:
            self._abandon()

    def _abandon(self) -> None:
        """Give back the file that this process does not use any more."""
        if self._dump is not None and self._dump() is not None:
            import faulthandler

            faulthandler.disable()  # nobody has enabled it otherwise since
        if self._is_ours():
            os.close(self._fd)
        self._fd, self._dump = -1, None

    def _is_ours(self) -> bool:
        """Return whether the descriptor still is what it was.

        Something in this process may have closed all that it did not know, and opened files
        of its own under the same numbers. Ours is positioned for the dump, and has no name.
        """
        try:
            ours = os.lseek(self._fd, 0, 1) == position_of(self._pid)
            return ours and not os.fstat(self._fd).st_nlink
        except OSError:
            return False


#: This process's own.
report_file = ReportFile()
