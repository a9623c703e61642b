"""The contract of a start method: one way of bringing a child to life."""

from __future__ import annotations

from abc import ABC, abstractmethod

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import ClassVar

    from procession._contracts.child_handle import Child
    from procession._contracts.features import StartFeatures
    from procession._starting.launch_plan import LaunchPlan


class StartMethod(ABC):
    """One way of bringing a child to life.

    A plugin's hook returns the class. Core makes one instance in each process that
    uses the method, without arguments, when its first child is launched, and calls
    `close` when that process ends. A forked copy of the process calls `abandon` on the
    instance that it inherited and makes its own when it needs one.
    """

    #: The name users select; equals the name of the entry point.
    name: ClassVar[str]
    #: What children of this method can be given; core refuses what is not declared.
    features: ClassVar[StartFeatures]

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why this method cannot work here, as a noun phrase, or None."""
        return None

    @abstractmethod
    def launch(self, plan: LaunchPlan, /) -> Child:
        """Start a process that carries out *plan* and return its handle.

        Either ``plan.fork()`` is called here, or ``plan.run()`` in a new process that
        has this one's memory; or ``plan.pack()`` is called here and the parcel is opened
        in a fresh interpreter by `procession.child`.

        May be called from any thread, by several at once. Whatever is raised here
        reaches the caller of ``start()``; no process and no descriptor is left
        behind then. Descriptors of the plan stay the plan's.
        """

    def collect(self) -> None:
        """Collect helper processes that have ended, so that none stays a zombie.

        Called whenever the end of a child is noticed, and in `active_children`. Must not
        wait, and may be called from any thread.
        """
        return None

    def close(self) -> None:
        """Stop helper processes, if there are any; children go on. Idempotent."""
        return None

    def abandon(self) -> None:
        """Give back, in a forked copy of the process, the descriptors it inherited.

        Helper processes are the original's and must not be touched.
        """
        return None
