"""Who holds a lock: a process, known beyond its number, and whether it still lives."""

from __future__ import annotations

import os
import struct
import sys
from _thread import get_ident

from procession._ground.after_fork import in_forked_children
from procession._ground.process_status import (
    EXIT_STATUS,
    STARTED,
    has_ended,
    start_of,
    start_of_living,
    status_of,
)
from procession._processes.family import family

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession._processes.relatives import Relatives
    from procession.errors import OwnerDiedError

# A holder in shared memory: pid, start, thread, and the name of the process.
_RECORD = struct.Struct("=QQQ40s")
_NAME_BYTES = 40
#: How many words of eight bytes a record of a holder takes.
RECORD_WORDS = _RECORD.size // 8


class Holder:
    """A process that holds units of a primitive, or waits for something.

    `pid` and `start` (when it started, in the kernel's ticks since boot, 0 where that is not
    known) are one process for ever. `process` is its name in procession, as far as there was
    room for it, `thread` the identifier (`threading.get_ident`) of the thread that acquired
    last, `units` how many it holds.
    """

    __slots__ = ("pid", "process", "start", "thread", "units")

    def __init__(self, pid: int, start: int, process: str, thread: int, units: int) -> None:
        self.pid = pid
        self.start = start
        self.process = process
        self.thread = thread
        self.units = units

    @classmethod
    def from_record(cls, words: memoryview, units: int = 1) -> Holder:
        """Return the holder whose record lies in *words*; see `record`."""
        pid, start, thread, name = _RECORD.unpack_from(words)
        return cls(pid, start, name.rstrip(b"\0").decode(errors="replace"), thread, units)

    def write(self, words: memoryview) -> None:
        """Write the record of it into `RECORD_WORDS` words; not in one step."""
        name = self.process.encode()[:_NAME_BYTES]
        _RECORD.pack_into(words, 0, self.pid, self.start, self.thread, name)

    def is_this_process(self) -> bool:
        """Return whether it is the process that asks."""
        return (self.pid, self.start) == myself()

    def has_died(self) -> bool:
        """Return whether the process has ended, collected by its parent or not."""
        return not self.is_this_process() and has_died(self.pid, self.start)

    def __repr__(self) -> str:
        """Return all there is to know."""
        return (
            f"<Holder process={self.process!r} pid={self.pid} start={self.start} "
            f"thread={self.thread} units={self.units}>"
        )


class _Myself:
    """What this process writes where it becomes a holder; begins anew in a forked child."""

    __slots__ = ("_watches_forks", "pid", "start")

    def __init__(self) -> None:
        self.pid = 0
        self.start = 0
        self._watches_forks = False

    def get(self) -> tuple[int, int]:
        """Return this process's id and start time."""
        if not self.pid:
            if not self._watches_forks:
                in_forked_children(self._forget)
                self._watches_forks = True
            pid = os.getpid()
            self.start = start_of(pid)
            self.pid = pid  # last: another thread may be looking
        return self.pid, self.start

    def _forget(self) -> None:
        self.pid = 0


_myself = _Myself()

#: Return the id and the start time of this process: what identifies it as a holder.
myself = _myself.get


def write_record(words: memoryview, at: int = 0) -> None:
    """Write this process and thread into `RECORD_WORDS` *words* from *at* on; not in one step."""
    name = family.current.name.encode()[:_NAME_BYTES]
    _RECORD.pack_into(words, at * 8, *_myself.get(), get_ident(), name)


def has_died(pid: int, start: int) -> bool:
    """Return whether the process *pid* that started at *start* has ended.

    *start* 0 is not known, and only the number is looked at then. A process of which nothing
    can be found out, as no descriptor is free, lives. Costs some 10 microseconds. Processes
    of other pid namespaces than this one look dead.
    """
    if sys.platform == "linux" and start:
        try:
            return start_of_living(pid) != start
        except OSError:
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def owner_died(holder: Holder, what: str) -> OwnerDiedError:
    """Return the error that says that *holder* has died holding *what* (``"a Lock"``)."""
    from procession.errors import OwnerDiedError

    how, code = obituary(holder)
    return OwnerDiedError(
        f"{how} while it held {what}; it is free again, but what it guards may be half done: "
        f"acquire it again and look",
        process=_name_of(holder),
        pid=holder.pid,
        exitcode=code,
    )


def obituary(holder: Holder) -> tuple[str, int | None]:
    """Return that the dead *holder* has ended, in words, and its exit code if it is known."""
    code = _exit_code(holder)
    if code is None:
        how = "has ended"
    else:
        how = f"has ended with exit code {code}" if code >= 0 else f"was ended by signal {-code}"
    name = _name_of(holder)
    who = "a process" if name is None else f"process {name!r}"
    return f"{who} (pid {holder.pid}) {how}", code


def _name_of(holder: Holder) -> str | None:
    """Return its name; None if it had not written it down yet, and is no child of this process."""
    return holder.process or _relatives().end_of(holder.pid).name


def _relatives() -> Relatives:
    from procession._processes.relatives import relatives

    return relatives


def _exit_code(holder: Holder) -> int | None:
    """Return the exit code of a dead holder, negative for a signal, or None."""
    for child in list(family.children):
        if child._child is not None and child._child.pid == holder.pid:
            code = child._exit_code()
            if code is not None:
                return code
    code = _relatives().exit_code_of(holder.pid, _name_of(holder) or "")
    if code is not None:
        return code
    fields = status_of(holder.pid)
    if fields and has_ended(fields) and int(fields[STARTED]) == holder.start:
        # The kernel shows it to those who might trace the process, and 0 to others.
        status = int(fields[EXIT_STATUS])
        if status and sys.platform != "win32":
            return os.waitstatus_to_exitcode(status)
    return None
