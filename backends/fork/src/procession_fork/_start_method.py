"""Start a child as a copy of this process."""

from __future__ import annotations

import _thread
import os
import sys

from procession.errors import ForkWithThreadsWarning
from procession.plugin import PidChild, StartFeatures, StartMethod, has_pidfd

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import ClassVar

    from procession.plugin import Child, LaunchPlan

# start() of the user's, then core's, then launch: the warning points at the first.
_STACK_LEVEL = 5


class Fork(StartMethod):
    """Start a child as a copy of this process, with everything that is in memory.

    The cheapest start of a small process, and nothing needs pickling. Unsafe in a process with
    threads: they do not exist in the child, but the locks that they held do, for ever.
    """

    name: ClassVar[str] = "fork"
    features: ClassVar[StartFeatures] = StartFeatures(
        inherits_memory=True, carries_descriptors=True, same_host=True
    )

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why this method cannot work here, or None."""
        return None if hasattr(os, "fork") else f"no fork on {sys.platform}"

    def launch(self, plan: LaunchPlan, /) -> Child:
        """See `StartMethod.launch`."""
        if not plan.tolerates_threads:
            _warn_of_threads()
        if has_pidfd():
            return PidChild(plan.fork())
        reader, writer = os.pipe()
        try:
            child = PidChild(plan.fork(), reader)
        except BaseException:
            os.close(reader)
            raise
        finally:
            # The child's copy is now the only one: it closes when the child ends.
            os.close(writer)
        return child


def _warn_of_threads() -> None:
    """Name the threads that a forked child would miss."""
    if not _thread._count():
        return  # there is none but the main thread
    # Not at the top: a child of a process that has imported threading copies 120 pages more.
    import threading
    import warnings

    this = threading.current_thread()
    others = [thread.name for thread in threading.enumerate() if thread is not this]
    if others:
        warnings.warn(
            f"process {os.getpid()} forks while {len(others)} other thread"
            f"{'s are' if len(others) > 1 else ' is'} alive ({', '.join(others)}): locks they "
            f"hold stay locked in the child for ever; start processes before threads, or use "
            f"the start method 'forkserver' or 'spawn'",
            ForkWithThreadsWarning,
            stacklevel=_STACK_LEVEL,
        )
