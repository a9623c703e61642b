"""What the methods of a pool may be told about the tasks that they make."""

from __future__ import annotations

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypedDict

    from procession._pools.progress import Progress, Watch
    from procession._pools.task import FunctionReference, Task

    class TaskOptions(TypedDict, total=False):
        """Options of every method, for processes only."""

        timeout: float | None
        retries: int

    class MapOptions(TaskOptions, total=False):
        """Options of those that make many tasks."""

        progress: bool | Callable[[Progress], object]


class Terms:
    """Options that were checked.

    Raises `ValueError` for values that make no sense, and `TypeError` for what is no option.
    """

    __slots__ = ("_retries", "timeout")

    def __init__(self, timeout: float | None = None, retries: int = 0, **unknown: object) -> None:
        if unknown:
            raise TypeError(
                f"{next(iter(unknown))!r} is no option of this method: options are timeout and "
                f"retries, and for maps progress"
            )
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, or None, not {timeout!r}")
        if retries < 0:
            raise ValueError(f"retries must be 0 or more, not {retries!r}")
        self.timeout = timeout
        self._retries = retries

    @property
    def ends_tasks(self) -> bool:
        """Whether workers may have to be killed for it."""
        return self.timeout is not None or self._retries > 0

    def apply_to(self, task: Task) -> None:
        """Give *task* its time, for each of its calls, and its other tries."""
        if self.timeout is not None:
            task.timeout = self.timeout * task.size
        if self._retries:
            task.retries = self._retries


class MapTerms(Terms):
    """Those of a map. Raises `TypeError` for a *progress* that is neither a bool nor a function."""

    __slots__ = ("_progress",)

    def __init__(
        self,
        timeout: float | None = None,
        retries: int = 0,
        progress: bool | Callable[[Progress], object] = False,
        **unknown: object,
    ) -> None:
        super().__init__(timeout, retries, **unknown)
        self._progress = progress

    def watch(self, function: FunctionReference, total: int | None) -> Watch | None:
        """Return what tells how far a map of *total* calls is, if that was asked for."""
        if self._progress is False or self._progress is None:
            return None
        from procession._pools.progress import watch

        return watch(self._progress, function.name, total)
