"""A child that is a subinterpreter, run by a thread of this process."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from procession.plugin import Child

from ._inside import run

# Every process of the machine would get what is sent to its number, this one included: children
# have numbers that no kernel gives a process (Linux: at most 2**22).
_pids = itertools.count(6_000_001)

#: The exit code of a child that could not begin.
_FAILED = 1


class SubinterpreterChild(Child):
    """A child that *interpreter*, just created, is to be. It is taken over, as is *descriptors*.

    They are the file of a parcel and the parcel's own, each a duplicate. Raises `RuntimeError`
    when there can be no more threads, and `OSError` when descriptors have run out.
    """

    _closed = True  # until there is something to close

    def __init__(self, name: str, interpreter: Any, descriptors: list[int]) -> None:
        self.pid = next(_pids)
        self._exit_code: int | None = None
        self._lock = threading.Lock()
        self.sentinel, end = os.pipe()
        self._closed = False
        # Not a daemon: an interpreter that is still at work when its process ends is an error.
        thread = threading.Thread(
            target=self._work, args=(interpreter, descriptors, end), name=name, daemon=False
        )
        try:
            thread.start()
        except BaseException:
            os.close(end)
            self.close()
            raise

    def _work(self, interpreter: Any, descriptors: list[int], end: int) -> None:
        code = _FAILED
        try:
            try:
                # It has begun with the path that this program had at its start.
                interpreter.exec(f"import sys; sys.path[:] = {sys.path!r}")
                parcel, *others = descriptors
                descriptors.clear()
                code = interpreter.call(run, parcel, tuple(others)) & 0xFF
            finally:
                for fd in descriptors:
                    os.close(fd)
                interpreter.close()
        except Exception:
            # The program's own errors do not come here: this is what surrounds it.
            traceback.print_exc()
        finally:
            self._exit_code = code
            os.close(end)

    def poll(self) -> int | None:
        """See `Child.poll`."""
        return self._exit_code

    def signal(self, number: int, /) -> None:
        """See `Child.signal`. Raises `NotImplementedError`, as long as the child runs."""
        if number and self._exit_code is None:
            raise NotImplementedError(
                f"start method 'subinterpreter' cannot send {signal.Signals(number).name}: its "
                f"children are not processes, and an interpreter cannot be ended from outside; "
                f"ask it to end, by a message or an event"
            )

    def close(self) -> None:
        """See `Child.close`."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.sentinel)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():
            self.close()
