"""Start a child as `spawn` does, and be nice to everybody else."""

from __future__ import annotations

import sys
from typing import ClassVar

from procession.plugin import Child, LaunchPlan, StartFeatures, StartMethod
from procession_spawn import Spawn

LOWER_BY = 5


class Niced(StartMethod):
    """A start method that composes another one: its children yield to other processes.

    The child is started by `spawn`, so what is true of spawn is true here: what it fails with,
    what it leaves behind, that any thread may call it. The priority is lowered right after the
    start, while the child's interpreter is still loading.
    """

    name: ClassVar[str] = "niced"
    features: ClassVar[StartFeatures] = Spawn.features

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why this method cannot work here, or None."""
        if sys.platform == "win32":
            return "Windows has no nice values"
        return Spawn.unavailable()

    def __init__(self) -> None:
        self._spawn = Spawn()

    def launch(self, plan: LaunchPlan, /) -> Child:
        """Start a child with *plan* and lower its priority."""
        child = self._spawn.launch(plan)
        _be_nice(child)
        return child

    def close(self) -> None:
        """Stop what the composed method may have started."""
        self._spawn.close()


def _be_nice(child: Child) -> None:
    """Lower the priority of *child*, unless it has ended already."""
    if sys.platform == "win32":
        raise NotImplementedError(Niced.unavailable())
    import os

    try:
        lowered = os.getpriority(os.PRIO_PROCESS, child.pid) + LOWER_BY
        os.setpriority(os.PRIO_PROCESS, child.pid, lowered)
    except ProcessLookupError:
        return  # nobody is left to be nice
