"""Start a child in a fresh interpreter that bubblewrap has put into a sandbox."""

from __future__ import annotations

import os
import sys
from typing import ClassVar

from procession.plugin import (
    Child,
    LaunchPlan,
    Parcel,
    StartFeatures,
    StartMethod,
    has_pidfd,
    spawn_interpreter,
)

from . import _sandbox
from ._child import SandboxedChild


class Bubblewrap(StartMethod):
    """Fresh interpreters that can read all files, write none, and reach no network.

    Descriptors are handed through, so that connections, queues, locks and shared memory that a
    child is given work as with `spawn`. The environment variables of `_sandbox` loosen or
    tighten the sandbox; they are read at each start.
    """

    name: ClassVar[str] = "bubblewrap"
    features: ClassVar[StartFeatures] = StartFeatures(
        carries_descriptors=True, options=frozenset({"interpreter_env"})
    )

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why this method cannot work here, or None. Tries a sandbox out."""
        if sys.platform != "linux":
            return f"bubblewrap needs Linux, and this is {sys.platform}"
        if not has_pidfd():
            return "no pidfds on this system (Linux 5.3 has them)"
        return _sandbox.obstacle()

    def launch(self, plan: LaunchPlan, /) -> Child:
        """See `StartMethod.launch`. Raises `ValueError` for a setting that cannot be right."""
        parcel = plan.pack()
        status, writer = os.pipe()
        try:
            keeper = _start(plan, parcel, status, writer)
        except BaseException:
            os.close(status)
            raise
        finally:
            os.close(writer)
        return SandboxedChild(keeper, status, plan.lifeline)


def _start(plan: LaunchPlan, parcel: Parcel, status: int, writer: int) -> int:
    """Start bubblewrap, which writes to *writer*, the other end of *status*; return its id.

    It gets both: if this process is killed in the middle, bubblewrap must not fail for want of a
    reader, as it would leave a child that waits for it for ever.
    """
    file = parcel.open()
    try:
        return spawn_interpreter(
            lambda numbers: [
                *_sandbox.arguments(os.environ, numbers[1]),
                *parcel.command(numbers[2], numbers[3:]),
            ],
            (status, writer, file, *parcel.descriptors),
            plan.environment,
        )
    finally:
        os.close(file)
