"""Processes that live too long or use too much are killed, and it is known why."""

from __future__ import annotations

import _thread
import mmap
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from procession._starting import limit_watch
from procession.testing import payloads

pytestmark = [
    pytest.mark.one_pair_per("method"),
    pytest.mark.skipif(sys.platform != "linux", reason="memory is watched through /proc"),
]
MIB = 1 << 20
Finish = Callable[..., Any]


def test_wall_clock(finish: Finish) -> None:
    """A child that sleeps for ever is ended; CPU time would not have ended it."""
    process = finish(payloads.hold_for_ever, max_seconds=0.1)
    exceeded = process.limit_exceeded

    assert -9 == process.exitcode
    assert ("max_seconds", 0.1) == (exceeded.option, exceeded.limit)
    assert exceeded.used >= 0.1
    assert "killed: ran for" in str(exceeded)
    assert "limit was 0.1 s" in str(exceeded)


def test_memory(finish: Finish) -> None:
    """The report says what was used and what was allowed."""
    process = finish(payloads.hold_memory, 192 * MIB, max_rss=128 * MIB)
    exceeded = process.limit_exceeded

    assert -9 == process.exitcode
    assert ("max_rss", 128 * MIB) == (exceeded.option, exceeded.limit)
    assert exceeded.used > 128 * MIB
    assert str(exceeded).startswith("killed: used ")
    assert str(exceeded).endswith(" MB, limit was 128 MB")


def test_memory_that_was_offered_to_the_system_does_not_count() -> None:
    """Large messages are received into memory that is used again, and is the system's meanwhile."""
    if sys.platform != "linux":
        pytest.skip("the system takes no such offers")
    with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for page in range(0, len(memory), mmap.PAGESIZE):
            memory[page] = 1
        used = limit_watch.resident(os.getpid(), 0)
        memory.madvise(mmap.MADV_FREE)
        left = limit_watch.resident(os.getpid(), 0)
        unasked = limit_watch.resident(os.getpid(), 1 << 60)

    assert used - left > 60 * MIB
    assert unasked - left > 60 * MIB


def test_cpu_seconds(finish: Finish) -> None:
    """The kernel's own limit ends a busy child with the signal that says why."""
    process = finish(payloads.burn, limits={"cpu_seconds": 1})

    assert -24 == process.exitcode
    assert None is process.limit_exceeded


def test_within_the_limits(finish: Finish) -> None:
    """A child that keeps to its limits ends as it would without."""
    process = finish(payloads.exit_with, 3, max_seconds=60, max_rss=1 << 40)

    assert 3 == process.exitcode
    assert None is process.limit_exceeded


def test_killed_by_somebody_else(start: Finish) -> None:
    """The reason is given only where it is the reason."""
    process = start(payloads.hold_for_ever, max_seconds=60, max_rss=1 << 40)
    process.kill()
    process.join()

    assert -9 == process.exitcode
    assert None is process.limit_exceeded


def test_the_reason_survives_close(finish: Finish) -> None:
    """Reports are written when the process object has been closed already."""
    process = finish(payloads.hold_for_ever, max_seconds=0.05)
    process.close()

    assert "max_seconds" == process.limit_exceeded.option


def test_a_shorter_limit_behind_a_longer_one(start: Finish) -> None:
    """The watcher that sleeps until the first limit is woken for a nearer one."""
    long = start(payloads.hold_for_ever, max_seconds=60)
    short = start(payloads.hold_for_ever, max_seconds=0.05)
    short.join()

    assert "max_seconds" == short.limit_exceeded.option
    assert long.is_alive()


def test_no_thread_stays_or_shows(start: Finish) -> None:
    """The watcher is no thread that a program must know of, and ends with its last process.

    It ends for every fork as well, so that no forked child misses it.
    """
    if sys.platform == "win32":
        return
    before = os.listdir("/proc/self/task")
    process = start(payloads.hold_for_ever, max_seconds=60)
    shown = threading.active_count()
    with_watcher = len(os.listdir("/proc/self/task"))
    pid = os.fork()
    if pid == 0:
        os._exit(len(os.listdir("/proc/self/task")))
    assert 1 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert 1 == shown
    assert len(before) + 1 == with_watcher
    assert limit_watch.watcher.runs
    process.kill()
    process.join()
    limit_watch.watcher.wait_idle()
    assert not limit_watch.watcher.runs


def test_no_thread_to_be_had(start: Finish, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child whose limits nobody minds is not what was asked for: `start` leaves none behind."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    limit_watch.watcher.wait_idle()
    monkeypatch.setattr(_thread, "start_new_thread", refuse)

    with pytest.raises(RuntimeError, match="new thread"):
        start(payloads.hold_for_ever, max_seconds=60)
