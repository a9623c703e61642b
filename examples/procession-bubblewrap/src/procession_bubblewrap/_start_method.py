"""Start a child in a fresh interpreter that bubblewrap has put into a sandbox."""

from __future__ import annotations

import os
import sys
from typing import ClassVar

from procession.plugin import (
    Child,
    LaunchPlan,
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
            file = parcel.open()
            try:
                keeper = spawn_interpreter(
                    lambda numbers: [
                        *_sandbox.arguments(os.environ, numbers[0]),
                        *parcel.command(numbers[1], numbers[2:]),
                    ],
                    (writer, file, *parcel.descriptors),
                    plan.environment,
                )
            finally:
                os.close(file)
                os.close(writer)
        except BaseException:
            os.close(status)
            raise
        return SandboxedChild(keeper, status)
