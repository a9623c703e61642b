"""Finding out, after the end of a child, how it failed."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` would bring `enum`
import marshal
import os
import sys
from _thread import RLock

from procession._ground.anonymous_file import anonymous_file
from procession._processes.failure_record import HEADER_SIZE, lengths
from procession._processes.report_file import DUMP_AT
from procession._starting.failure import ExceptionReport, FailureReport
from procession._starting.oom_kills import oom_kills

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from procession.process import BaseProcess

# faulthandler bounds the frames and threads that it shows, but not by much.
_LONGEST_DUMP = 1 << 20
_MIB = 1 << 20
_SIGKILL = 9
# The signals at which faulthandler writes: SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV. Written
# out, as not every platform has them all.
_DUMPED = (4, 6, 7, 8, 10, 11)


class PostMortem:
    """What a parent keeps for one start, to know afterwards how the child failed.

    Threads: any. Fork: a copy of the parent may only drop it. Raises `OSError` when
    descriptors or memory have run out.
    """

    # In the class, as most starts never get further. Nothing is held before __init__ has
    # run to its end.
    report = -1
    #: The child's process id, once it has one.
    pid = 0
    _exit_code: int | None = None
    _record = b""
    _dump = b""
    _oom_kills_meanwhile = 0
    _failure: FailureReport | None = None

    def __init__(self, label: str) -> None:
        self._lock = RLock()  # a signal handler may ask while we do
        self._oom_kills = oom_kills.recent()
        #: The file for the child, with this label, which stays this object's.
        self.report = anonymous_file(label)

    def collect(self, exit_code: int) -> None:
        """Keep what there is to know, now that the child has ended; give the file back.

        Idempotent.
        """
        with self._lock:
            if self._exit_code is not None:
                return
            if exit_code:
                self._record, dump = _read(self.report)
                # A copy that the child has made of itself by os.fork may have left a dump.
                self._dump = dump if -exit_code in _DUMPED else b""
            if exit_code == -_SIGKILL and self._oom_kills is not None:
                self._oom_kills_meanwhile = (oom_kills.now() or 0) - self._oom_kills
            self._exit_code = exit_code
            self.close()

    def close(self) -> None:
        """Give the file back. Idempotent."""
        # In this order: a copy of this process that is forked in between must not close a
        # descriptor that is somebody else's by then.
        fd, self.report = self.report, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():
            self.close()

    def failure(self, process: BaseProcess) -> FailureReport | None:
        """Return how *process*, whose start this was for, has failed, if it has."""
        with self._lock:
            if self._exit_code and self._failure is None:
                self._failure = self._examine(process, self._exit_code)
            return self._failure

    def _examine(self, process: BaseProcess, exit_code: int) -> FailureReport:
        text, error = _decode(self._record)
        limit_exceeded = process.limit_exceeded
        return FailureReport(
            process=process.name,
            pid=self.pid,
            exitcode=exit_code,
            signal=_signal_name(-exit_code) if exit_code < 0 else None,
            error=error,
            traceback=text or None,
            dump=self._dump.decode(errors="backslashreplace") or None,
            limit_exceeded=limit_exceeded,
            hint=str(limit_exceeded) if limit_exceeded else self._hint(process, error, exit_code),
        )

    def _hint(
        self, process: BaseProcess, error: ExceptionReport | None, exit_code: int
    ) -> str | None:
        """Return the likely cause, when something is known beyond the rest."""
        limits = {} if process._own_options is None else process._own_options.limits
        if exit_code == -_SIGKILL and self._oom_kills_meanwhile > 0:
            return _killed_for_memory(self._oom_kills_meanwhile)
        if exit_code < 0 and process._last_signal == -exit_code:
            return "this program sent the signal itself: terminate(), kill() or stop()"
        if exit_code == -_SIGKILL and self._oom_kills is not None:
            return (
                "this process did not send the signal, and the kernel has killed "
                "no process of this control group for want of memory meanwhile"
            )
        if exit_code < 0:
            return _signal_hint(_signal_name(-exit_code), limits)
        if error is None:
            return (
                "it left no word of why: it ended by os._exit or in the interpreter itself, or "
                "could not write (limit file_size), or its exit code was lost (255)"
            )
        if error.type_name == "MemoryError":
            return _memory_limit(limits)
        return None


def _killed_for_memory(kills: int) -> str:
    limit = oom_kills.limit()
    allowed = "" if limit is None else f", which may use {limit / _MIB:.0f} MB,"
    others = "this one" if kills == 1 else f"this one among {kills}"
    return (
        f"most likely the kernel's out-of-memory killer did it: it has killed {others} in the "
        f"control group of this program{allowed} since the process was started"
    )


def _signal_hint(name: str, limits: Any) -> str | None:
    if name == "SIGXCPU":
        seconds = limits.get("cpu_seconds")
        given = "" if seconds is None else f" of {seconds} s (limits: cpu_seconds)"
        return f"its limit of CPU time{given or ', RLIMIT_CPU,'} was reached"
    if name == "SIGXFSZ":
        return "it wrote a file beyond its limit of file size, RLIMIT_FSIZE"
    return None


def _memory_limit(limits: Any) -> str | None:
    """Return which limit a process that ran out of memory most likely met."""
    if sys.platform == "win32":
        return None
    import resource

    for name, constant in (("address_space", resource.RLIMIT_AS), ("data", resource.RLIMIT_DATA)):
        amount, source = limits.get(name), f"limits: {name}"
        if amount is None:
            amount, source = resource.getrlimit(constant)[0], "inherited from this program"
        if amount != resource.RLIM_INFINITY:
            return f"most likely its limit of memory, {amount / _MIB:.0f} MB ({source}), was met"
    return None


def _read(fd: int) -> tuple[bytes, bytes]:
    """Return what was written of the record, and of the dump."""
    size = os.fstat(fd).st_size
    if sys.platform == "win32" or not size:
        return b"", b""
    # There is nothing in front of the dump, which is at the end.
    dump = os.pread(fd, _LONGEST_DUMP, max(DUMP_AT, size - _LONGEST_DUMP))
    return os.pread(fd, DUMP_AT, 0), dump.lstrip(b"\0")


def _decode(data: bytes) -> tuple[str, ExceptionReport | None]:
    """Return the text that was printed and the exception, of a record as it was written."""
    found = lengths(data)
    if found is None:
        return "", None
    middle = HEADER_SIZE + found[0]
    text, links = marshal.loads(data[HEADER_SIZE:middle])
    objects = marshal.loads(data[middle : middle + found[1]]) if found[1] else [None] * len(links)
    return text, _link(links, objects, 0, {})


def _link(
    links: list[Any], objects: list[bytes | None], number: int, made: dict[int, Any]
) -> ExceptionReport | None:
    """Return the exception *number* with those that it comes from.

    Chains can be circular: an exception does not appear among its own causes.
    """
    if number in made:
        found: ExceptionReport | None = made[number]
        return found
    made[number] = None
    type_name, message, traceback, notes, cause, context, suppress = links[number]
    made[number] = ExceptionReport(
        type_name=type_name,
        message=message,
        traceback=traceback,
        notes=notes,
        cause=None if cause is None else _link(links, objects, cause, made),
        context=None if context is None else _link(links, objects, context, made),
        suppress_context=suppress,
        pickled=objects[number],
    )
    return _link(links, objects, number, made)


def _signal_name(number: int) -> str:
    names = [
        name
        for name, value in vars(_signal).items()
        if name.startswith("SIG") and "_" not in name and value == number
    ]
    return min(names, default=f"signal {number}")  # of several, the one that `signal` shows, too
