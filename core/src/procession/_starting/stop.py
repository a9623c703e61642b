"""Stopping a process step by step: ask it, tell it, kill it."""

from __future__ import annotations

import time
from enum import StrEnum

from procession._processes.sigint import IGNORE
from procession._starting.process_tree import ProcessTree
from procession.errors import TimeoutError

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from procession._contracts.child_handle import Child

# Written out, as Windows has no SIGKILL.
_SIGINT, _SIGTERM, _SIGKILL = 2, 15, 9
# SIGKILL takes effect at once, unless the process is stuck in a device driver.
_KILLING_SECONDS = 10.0


class StopStage(StrEnum):
    """What it took to stop a process."""

    #: It had ended before.
    ENDED = "ended"
    #: It was asked, by SIGINT, and ended in its own way.
    ASKED = "asked"
    #: It was told to, by SIGTERM.
    TERMINATED = "terminated"
    #: It was killed, by SIGKILL.
    KILLED = "killed"


def stop(child: Child, sigint: str, grace: float, *, tree: bool) -> StopStage:
    """Stop *child*, whose SIGINT policy is *sigint*. See `procession.Process.stop`."""
    if child.poll() is not None:
        return StopStage.ENDED
    target = _Tree(child) if tree else _Single(child)
    try:
        if sigint != IGNORE:
            child.signal(_SIGINT)
            if target.wait(grace):
                return StopStage.ASKED
        target.signal(_SIGTERM)
        if target.wait(grace):
            return StopStage.TERMINATED
        target.signal(_SIGKILL)
        if target.wait(_KILLING_SECONDS):
            return StopStage.KILLED
    finally:
        target.close()
    raise TimeoutError(
        f"process {child.pid} was killed and has not ended in {_KILLING_SECONDS:.0f} seconds: it "
        f"is stuck in the kernel, as in a device driver or a network file system"
    )


class _Single:
    """A child alone."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def signal(self, number: int) -> None:
        self._child.signal(number)

    def wait(self, timeout: float) -> bool:
        return self._child.wait(timeout) is not None

    def close(self) -> None:
        """Hold nothing."""


class _Tree(_Single):
    """A child and its descendants; those present at the beginning are never lost sight of."""

    def __init__(self, child: Child) -> None:
        super().__init__(child)
        self._tree = ProcessTree(child)
        self._tree.look()

    def signal(self, number: int) -> None:
        self._tree.signal(number)

    def wait(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        self._tree.look()
        return (
            self._tree.wait(deadline) and self._child.wait(deadline - time.monotonic()) is not None
        )

    def close(self) -> None:
        self._tree.close()
