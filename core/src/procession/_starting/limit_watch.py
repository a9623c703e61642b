"""Ends processes that live too long or use too much memory.

One thread watches for a whole program. It is there only while such a process runs, holds
no descriptor, and is stopped around every fork, so that a forked child misses no thread.
"""

from __future__ import annotations

import _thread
import os
import sys
import time
from threading import Condition
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from procession._contracts.child_handle import Child
    from procession._starting.process_options import ProcessOptions

_SIGKILL = 9
# How often the memory of processes is looked at; 0.01 ms of work for each.
_MEMORY_SECONDS = 0.05
# An end that nobody asks about is noticed after so long.
_IDLE_SECONDS = 5.0
_MIB = 1 << 20


@attrs.frozen(kw_only=True)
class LimitExceeded:
    """Why procession killed a process."""

    option: str
    """The name of the option, ``max_seconds`` or ``max_rss``."""

    limit: float
    """What was allowed: seconds or bytes."""

    used: float
    """What was used when it was noticed."""

    def __str__(self) -> str:
        if self.option == "max_rss":
            used, limit = (f"{amount / _MIB:.0f} MB" for amount in (self.used, self.limit))
            return f"killed: used {used}, limit was {limit}"
        return f"killed: ran for {self.used:.1f} s, limit was {self.limit:g} s"


class Watch:
    """One process with limits. Threads: any."""

    def __init__(self, child: Child, options: ProcessOptions) -> None:
        self._child = child
        self._max_rss = options.max_rss
        self._max_seconds = options.max_seconds
        self._started = time.monotonic()
        self._exceeded: LimitExceeded | None = None

    @property
    def exceeded(self) -> LimitExceeded | None:
        """The limit that the process was killed for; None while it runs, and otherwise."""
        # It may have ended by itself in the moment before it was to be killed.
        if self._exceeded is not None and self._child.poll() == -_SIGKILL:
            return self._exceeded
        return None

    def check(self, now: float) -> float | None:
        """Kill the process if it has to be; return when to look again, None for never."""
        if self._exceeded is not None or self._child.poll() is not None:
            return None
        age = now - self._started
        if self._max_seconds is not None and age >= self._max_seconds:
            self._kill("max_seconds", self._max_seconds, age)
            return None
        again = now + _IDLE_SECONDS
        if self._max_seconds is not None:
            again = min(again, self._started + self._max_seconds)
        if self._max_rss is not None:
            used = resident(self._child.pid, self._max_rss)
            # Asked again: only while the child has not ended is the number its own.
            if used > self._max_rss and self._child.poll() is None:
                self._kill("max_rss", self._max_rss, used)
                return None
            again = min(again, now + _MEMORY_SECONDS)
        return again

    def _kill(self, option: str, limit: float, used: float) -> None:
        self._exceeded = LimitExceeded(option=option, limit=limit, used=used)
        self._child.signal(_SIGKILL)


class LimitWatcher:
    """The watches of a program, and the thread that minds them while there are any.

    Threads: any. Fork: a forked child begins with none; its parent's processes are its
    siblings.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._watches: set[Watch] = set()
        self._runs = False
        self._pauses = 0
        if sys.platform != "win32":
            os.register_at_fork(
                before=self._pause,
                after_in_parent=self._resume,
                after_in_child=self._begin_anew,
            )

    def add(self, watch: Watch) -> None:
        """Mind *watch* until its process has ended, or it is dropped.

        Raises `RuntimeError` when no thread can be started.
        """
        with self._changed:
            self._watches.add(watch)
            try:
                self._run()
            except BaseException:
                self._watches.discard(watch)
                raise
            self._changed.notify_all()

    def drop(self, watch: Watch) -> None:
        """Forget *watch*, whose process has ended. Idempotent."""
        with self._changed:
            self._watches.discard(watch)
            self._changed.notify_all()

    @property
    def runs(self) -> bool:
        """Whether there is a thread."""
        with self._changed:
            return self._runs

    def wait_idle(self) -> None:
        """Wait until there is no thread any more, once all watches are dropped."""
        with self._changed:
            while self._runs:
                self._changed.wait()

    def _run(self) -> None:
        """Have a thread while there is something to mind; the lock is held."""
        if self._watches and not self._runs and not self._pauses:
            # Not a threading.Thread: it would be joined, listed, and warned of at a fork,
            # for which it is stopped.
            _thread.start_new_thread(self._mind, ())
            self._runs = True

    def _mind(self) -> None:
        with self._changed:
            try:
                while self._watches and not self._pauses:
                    now = time.monotonic()
                    times = {watch: watch.check(now) for watch in self._watches}
                    self._watches -= {watch for watch, again in times.items() if again is None}
                    again = min((each for each in times.values() if each is not None), default=now)
                    if self._watches:
                        self._changed.wait(max(0.0, again - now))
            finally:
                self._runs = False
                self._changed.notify_all()

    def _pause(self) -> None:
        self._changed.acquire()
        self._pauses += 1
        self._changed.notify_all()
        while self._runs:
            self._changed.wait()

    def _resume(self) -> None:
        self._pauses -= 1
        self._run()
        self._changed.release()

    def _begin_anew(self) -> None:
        self._changed = Condition()
        self._watches = set()
        self._runs = False
        self._pauses = 0


#: This program's own.
watcher = LimitWatcher()


def watch(child: Child, options: ProcessOptions) -> Watch:
    """Mind the limits of *options* for *child*, which was started just now."""
    made = Watch(child, options)
    watcher.add(made)
    return made


def resident(pid: int, limit: float) -> int:
    """Return how many bytes of a process are resident; 0 when it has ended.

    What it has offered to the system, which takes it when memory is short (`MADV_FREE`), does
    not count. To find out about that takes long, so it is done beyond *limit* only.
    """
    if sys.platform != "linux":
        raise OSError(f"the memory of a process cannot be watched on {sys.platform}")
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            pages = int(file.read().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = pages * os.sysconf("SC_PAGE_SIZE")
    return found if found <= limit else found - _offered(pid)


def _offered(pid: int) -> int:
    """Return how many bytes of a process the system may take; 0 where it does not say."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"LazyFree:"):
                    return int(line.split()[1]) << 10
    except OSError:  # it has ended, or is not ours to be looked at
        return 0
    return 0
