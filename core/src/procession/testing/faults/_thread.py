"""The start method `thread`: a child is a thread of this process."""

from __future__ import annotations

import io
import itertools
import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, ClassVar

from procession._choosing import selection
from procession._ground.handoff import LaunchTakeover, ParcelUnpickler
from procession._processes import sigint
from procession._processes.failure_record import FailureRecord
from procession.child import exit_code_of
from procession.plugin import Child, StartFeatures, StartMethod
from procession.testing.faults import _stage
from procession.testing.faults._home import look_everywhere
from procession.testing.faults._life import SIGKILL, Killed, Life, changed

if TYPE_CHECKING:
    from collections.abc import Callable

    from procession.plugin import LaunchPlan, Parcel, Token
    from procession.process import Process

# No kernel gives a process such a number (Linux: at most 2**22), so that no signal and no look
# into /proc can meet a stranger.
_pids = itertools.count(5_000_001)
_SIGINT, _SIGTERM = 2, 15


class Thread(StartMethod):
    """Carries a plan out in a thread, as a process that is killed where a script says.

    What the child is given is pickled, so that it has copies, and what cannot be pickled is
    refused, as with `spawn`. Others see it end at once by SIGKILL or SIGTERM; its thread is left
    where it touches a message, or calls or leaves a function of the program. SIGINT is a
    KeyboardInterrupt at the next message. Other signals and all options of a process are refused.
    """

    name: ClassVar[str] = "thread"
    features: ClassVar[StartFeatures] = StartFeatures(carries_descriptors=True, shares_memory=True)

    def launch(self, plan: LaunchPlan, /) -> Child:
        """See `StartMethod.launch`."""
        return ThreadChild(plan, plan.pack())


class ThreadChild(Child):
    """A thread in the place of a process. Its sentinel is readable as soon as it is killed."""

    _closed = True  # until there is something to close

    def __init__(self, plan: LaunchPlan, parcel: Parcel) -> None:
        self.pid = next(_pids)
        self._ignores_sigint = plan.process.sigint == sigint.IGNORE
        descriptors: list[int] = []
        try:
            for fd in (*parcel.descriptors, *(() if plan.report is None else (plan.report,))):
                descriptors.append(os.dup(fd))
            self.sentinel, end = os.pipe()
        except BaseException:
            for fd in descriptors:
                os.close(fd)
            raise
        self._closed = False
        self.life = Life(plan.name, end, daemon=plan.daemon)
        part = _Part(self.life, plan, parcel, descriptors)
        thread = threading.Thread(target=part.play, name=plan.name, daemon=True)
        try:
            _stage.enter(self.life, thread)
            thread.start()
        except BaseException:  # no more threads, say
            part.close()
            with changed:
                self.life.end(-SIGKILL)
            self.close()
            raise

    def poll(self) -> int | None:
        """See `Child.poll`."""
        return self.life.exit_code

    def signal(self, number: int, /) -> None:
        """See `Child.signal`. Raises `NotImplementedError` for what a thread cannot get."""
        with changed:
            if number in (SIGKILL, _SIGTERM):
                self.life.end(-number)
            elif number == _SIGINT:
                if not self._ignores_sigint:
                    self.life.interrupt()
            elif number:
                raise NotImplementedError(
                    f"start method 'thread' cannot send {signal.Signals(number).name}: its "
                    f"children are threads, for which SIGINT, SIGTERM and SIGKILL are acted out"
                )

    def close(self) -> None:
        """See `Child.close`."""
        with changed:
            if not self._closed:
                self._closed = True
                os.close(self.sentinel)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():
            self.close()


class _Takeover(LaunchTakeover):
    """The descriptors of a child that it has not taken yet: the kernel closes them as well."""

    def __init__(self, descriptors: list[int], life: Life) -> None:
        super().__init__(descriptors)
        self._life = life
        life.hold(self)

    def take(self, token: Token, /) -> int:
        """See `Takeover.take`."""
        with changed:
            self._life.check_alive()
            return super().take(token)

    def close(self) -> None:
        """Close every descriptor that nobody took."""
        with changed:
            super().close()
            look_everywhere()


class _Part:
    """What the thread of a child does. *descriptors* are taken over: the parcel's, the report."""

    def __init__(
        self, life: Life, plan: LaunchPlan, parcel: Parcel, descriptors: list[int]
    ) -> None:
        self._life = life
        self._data = parcel.data
        count = len(parcel.descriptors)
        self._takeover = _Takeover(descriptors[:count], life)
        self._report = descriptors[count:]
        self._names = plan.bequest["names"]
        self._prints_interrupts = plan.process.sigint == sigint.RAISE

    def play(self) -> None:
        """Be the process, and end."""
        code = 1  # if even the report is left by an exception
        try:
            code = self._carry_out()
        except Killed:
            pass  # it has ended already
        finally:
            self._life.leave()
            self.close()
            with changed:
                self._life.end(code)

    def close(self) -> None:
        """Close what was not taken."""
        self._takeover.close()
        while self._report:
            os.close(self._report.pop())

    def _carry_out(self) -> int:
        """Be the process as long as there is something to do, and return the exit code."""
        try:
            self._run()
        except Killed:
            raise
        except BaseException as error:
            # What a killed one runs into on its way out nobody sees.
            self._life.check_not_ended()
            return self._fail(error)
        return 0

    def _run(self) -> None:
        try:
            self._life.begin()
            process = self._open()
        finally:
            self._takeover.close()
            self._life.is_starting = False
        # The choices of the parent, which may be those of a scope that this thread is not in.
        with selection.use(**self._names):
            process.run()

    def _open(self) -> Process:
        """Return the copy of the process object that the parcel has."""
        with io.BytesIO(self._data) as file:
            # What prepares a process comes first, and then what hooks would do in it.
            if ParcelUnpickler(file, self._takeover).load()["hooks"]:
                ParcelUnpickler(file, self._takeover).load()
            process: Process = ParcelUnpickler(file, self._takeover).load()
        return process

    def _fail(self, error: BaseException) -> int:
        """Leave word of *error*, as `procession.child` does; return the exit code."""
        text, code = "", 1
        if isinstance(error, SystemExit):
            code = exit_code_of(error) & 0xFF
        elif self._prints_interrupts or not isinstance(error, KeyboardInterrupt):
            text = "".join(traceback.format_exception(error))
            with changed:
                # One that was killed meanwhile prints nothing any more.
                if self._life.exit_code is None:
                    head = f"Process {self._life.name}:\n"
                    print(head, text, sep="", end="", file=sys.stderr, flush=True)
        if code and self._report:
            record = FailureRecord(self._report[0], error, text)
            record.write()
            record.add_objects()
        return code
