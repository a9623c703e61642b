"""Start a child in a fresh interpreter."""

from __future__ import annotations

import os
import sys

from procession.plugin import (
    PidChild,
    StartFeatures,
    StartMethod,
    has_pidfd,
    spawn_interpreter,
)

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar

    from procession.plugin import Child, LaunchPlan


class Spawn(StartMethod):
    """Start a child in a fresh interpreter, with what it needs and nothing else.

    Works from a process with threads, and costs the same in one of any size. What the
    child gets is pickled, and the main module is imported again.
    """

    name: ClassVar[str] = "spawn"
    features: ClassVar[StartFeatures] = StartFeatures(
        inherits_memory=False,
        carries_descriptors=True,
        same_host=True,
        options=frozenset({"interpreter_env"}),
    )

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why this method cannot work here, or None."""
        return None if hasattr(os, "posix_spawn") else f"no posix_spawn on {sys.platform}"

    def launch(self, plan: LaunchPlan, /) -> Child:
        """See `StartMethod.launch`."""
        if has_pidfd():
            return PidChild(_spawn(plan))
        reader, writer = os.pipe()
        try:
            return PidChild(_spawn(plan, keep=(writer,)), reader)
        except BaseException:
            os.close(reader)
            raise
        finally:
            # The child's copy is now the only one: it closes when the child ends.
            os.close(writer)


def _spawn(plan: LaunchPlan, keep: Sequence[int] = ()) -> int:
    """Start the interpreter that carries *plan* out; return its process id."""
    parcel = plan.pack(keep=keep)
    file = parcel.open()
    try:
        return spawn_interpreter(
            lambda numbers: parcel.command(numbers[0], numbers[1:]),
            (file, *parcel.descriptors),
            plan.environment,
        )
    finally:
        os.close(file)
