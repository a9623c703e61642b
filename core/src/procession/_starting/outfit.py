"""What a parent has ready for a child that it is about to fork; `_starting.forked` says why."""

from __future__ import annotations

import gc
import itertools
import os
import sys

from procession._ground.anonymous_file import above_standard
from procession._processes.end_with_parent import Tie
from procession._processes.report_file import Dump
from procession._processes.variables import variable
from procession._starting.loop_signals import loop_signals
from procession.child import DUMP_SIGNAL
from procession.process import ParentProcess

try:
    import faulthandler  # imported in a forked child, it would copy a hundred pages there
except ImportError:  # a subinterpreter, which cannot have it, cannot fork either
    faulthandler = None  # type: ignore[assignment]

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import Any, TextIO

    from procession._starting.launch_plan import LaunchPlan

# So many objects a child may make, with all that procession does in it, before the garbage
# collector comes: it writes to each object that it looks at, which copies the page.
_ROOM = 300


class Outfit:
    """Made right before one fork: put on by the child, and closed by the parent afterwards.

    Threads: one. Raises `OSError` when descriptors have run out.
    """

    __slots__ = ("arguments", "tie")

    def __init__(self, plan: LaunchPlan) -> None:
        _make_room()
        child = plan.process
        dumps = [] if plan.report is None else [Dump(plan.report)]
        options = None if plan.surroundings is None else plan.surroundings.data()
        stdin = _null_input.get()
        self.tie = Tie(plan.lifeline) if child._daemon else None
        #: What `procession._starting.forked.begin` is called with. In one step: it is a tuple.
        self.arguments: tuple[Any, ...] = (
            child,
            ParentProcess(child._parent_name, child._parent_pid, plan.lifeline),
            child._parent_pid,
            loop_signals() if "asyncio.unix_events" in sys.modules else (),
            itertools.count(1),
            self.tie,
            child._sigint,
            plan.report,
            faulthandler,
            dumps,
            plan.bequest,
            variable(DUMP_SIGNAL) is not None,
            stdin,
            options,
            plan.hooks,
        )

    def close(self) -> None:
        """Give back, in the parent, what only the child needs. Idempotent."""
        if self.tie is not None:
            self.tie.close()


def _make_room() -> None:
    """Collect the youngest garbage now if that would be due in the child before long."""
    threshold = gc.get_threshold()[0]
    if threshold > 2 * _ROOM and gc.get_count()[0] > threshold - _ROOM and gc.isenabled():
        gc.collect(0)


class _NullInput:
    """What forked children have as `sys.stdin`: the null device, opened once for all of them.

    The descriptor is kept. Threads: any. Fork: a child has it, too, and may use it up.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._device = 0
        self._stream: TextIO | None = None

    def get(self) -> TextIO | None:
        """Return it; None where the child had better open one itself.

        That is where standard input is closed: the child's takes its number.
        """
        if sys.stdin is None:
            return None
        stream = self._stream
        if stream is None or stream is sys.stdin:
            return self._open()
        try:
            # A program may have closed all descriptors that it did not know, and opened files of
            # its own under the same numbers.
            if not stream.closed and _device_of(self._fd) == self._device:
                return stream
        except (OSError, ValueError):
            pass  # closed, or detached
        return self._open()

    def _open(self) -> TextIO:
        fd = above_standard(os.open(os.devnull, os.O_RDONLY))
        stream = open(fd, encoding="utf-8", closefd=False)  # noqa: SIM115 - for later children
        self._device = _device_of(fd)
        self._fd, self._stream = fd, stream
        return stream


def _device_of(fd: int) -> int:
    if sys.platform == "win32":
        raise OSError("there is no fork on Windows")
    return os.fstat(fd).st_rdev


#: This process's own.
_null_input = _NullInput()
