"""How far a map is, told to the program or shown on the terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from procession._ground.deque import deque
from procession._pools.outcomes import call_back

if TYPE_CHECKING:
    from collections.abc import Callable

#: A display is renewed so often, in seconds.
_PAUSE = 0.1


class Progress(NamedTuple):
    """How far a map is."""

    #: How many calls have ended, those that have failed among them.
    done: int
    failed: int
    #: How many there are; None while that is not known.
    total: int | None
    #: Whether there will be no more; this is told once, and last.
    is_over: bool


class Watch:
    """Counts what is done of one map.

    Threads: any; what it tells comes from one at a time, in order.
    """

    def __init__(self, show: Callable[[Progress], object], total: int | None) -> None:
        self._show = show
        self._total = total
        self._done = self._failed = 0
        self._chunks_done = 0
        self._chunks: int | None = None
        # One tells at a time, and nobody waits for that: it may be code of the program that waits.
        self._permits = deque((True,))
        self._has_news = False
        self._is_told = False

    def expect(self, chunks: int) -> None:
        """Learn how many chunks there are."""
        self._chunks = chunks

    def note(self, size: int, succeeded: bool) -> None:
        """Count a chunk of *size* calls, which fail together."""
        self._done += size
        if not succeeded:
            self._failed += size
        self._chunks_done += 1

    def tell(self) -> None:
        """Say how far it is. Runs code of the program; what that raises is shown."""
        self._has_news = True
        while self._has_news:
            try:
                self._permits.pop()
            except IndexError:
                return  # whoever is just telling looks again
            try:
                self._has_news = False
                self._tell_once()
            finally:
                self._permits.append(True)

    def _tell_once(self) -> None:
        if self._is_told:
            return
        is_over = self._is_told = self._chunks is not None and self._chunks_done >= self._chunks
        total = self._done if is_over else self._total
        call_back(self._show, Progress(self._done, self._failed, total, is_over))


def watch(progress: bool | Callable[[Progress], object], name: str, total: int | None) -> Watch:
    """Return what watches a map of the function *name*, as *progress* says, which is not False.

    Raises `TypeError` when it is neither True nor callable.
    """
    if progress is True:
        return Watch(_display(name), total)
    if not callable(progress):
        raise TypeError(
            f"progress must be True, to show a bar, or a function that is called with each "
            f"Progress, not {progress!r}"
        )
    return Watch(progress, total)


def _display(name: str) -> Callable[[Progress], None]:
    try:
        import rich.progress
    except ImportError:
        return _Line(name)
    return _Bar(name, rich.progress)


class _Bar:
    """A bar of rich on standard error. It has no thread: it is drawn when there is news."""

    def __init__(self, name: str, rich_progress: Any) -> None:
        from rich.console import Console

        self._name = name
        self._bar = rich_progress.Progress(
            "{task.description}",
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self._task: Any = None
        self._drawn_at = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if not progress.is_over and now < self._drawn_at + _PAUSE:
            return
        self._drawn_at = now
        if self._task is None:
            self._task = self._bar.add_task(self._name)
            self._bar.start()
        description = _described(self._name, progress)
        self._bar.update(
            self._task, completed=progress.done, total=progress.total, description=description
        )
        self._bar.refresh()
        if progress.is_over:
            self._bar.stop()


class _Line:
    """A line on standard error that is written over again; elsewhere only the last one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._drawn_at = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        is_terminal = sys.stderr.isatty()
        if not progress.is_over and (not is_terminal or now < self._drawn_at + _PAUSE):
            return
        self._drawn_at = now
        total = "" if progress.total is None else f"/{progress.total}"
        line = f"{_described(self._name, progress)}: {progress.done}{total}"
        begin, end = ("\r" if is_terminal else ""), ("\n" if progress.is_over else "")
        print(begin + line, end=end, file=sys.stderr, flush=True)


def _described(name: str, progress: Progress) -> str:
    return f"{name} ({progress.failed} failed)" if progress.failed else name
