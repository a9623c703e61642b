"""Start a child as a fork of a small server process."""

from __future__ import annotations

import sys

from procession.plugin import StartFeatures, StartMethod, has_pidfd

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import ClassVar

    from procession.plugin import Child, LaunchPlan


class ForkServer(StartMethod):
    """Start a child as a fork of a small server process that has no threads.

    Nearly as cheap as fork, from a process of any size and with any threads. What the
    child gets is pickled. The server is started with the first child and ends with this
    process; when it is killed, the next start brings a new one, and children of the old
    one go on.
    """

    name: ClassVar[str] = "forkserver"
    features: ClassVar[StartFeatures] = StartFeatures(
        inherits_memory=False, carries_descriptors=True, same_host=True
    )

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why this method cannot work here, or None."""
        return None if has_pidfd() else f"no pidfds on this {sys.platform} (Linux 5.3 has them)"

    def __init__(self) -> None:
        if sys.platform == "linux":
            from procession_forkserver._client import Client

            self._client = Client()

    def launch(self, plan: LaunchPlan, /) -> Child:
        """See `StartMethod.launch`."""
        if sys.platform != "linux":
            raise OSError(self.unavailable())
        return self._client.launch(plan)

    def collect(self) -> None:
        """See `StartMethod.collect`."""
        if sys.platform == "linux":
            self._client.collect()

    def close(self) -> None:
        """See `StartMethod.close`."""
        if sys.platform == "linux":
            self._client.close()

    def abandon(self) -> None:
        """See `StartMethod.abandon`."""
        if sys.platform == "linux":
            self._client.abandon()
