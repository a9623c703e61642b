"""Workers that die, or are stopped, between two steps of a task or within a message."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

import procession
from procession._pools import member as _pool_member
from procession.connection import wait
from procession.errors import MaybeEncodingError, TaskCancelledError, WorkerDiedError
from procession.testing import pooled

SIGKILL = 9
pytestmark = [
    pytest.mark.once,
    pytest.mark.one_pair_per("transport"),
    pytest.mark.beyond("multiprocessing's pools hang instead"),
]


def _recorded(journal: Any) -> list[int]:
    return [number for (number,) in struct.iter_unpack("<Q", journal.read_bytes())]


def test_workers_without_descriptors(make: Callable[..., Any]) -> None:
    """A worker that can open nothing does its tasks all the same, however it waits for them."""
    pool = make(2, pooled.open_no_more)
    members = list(pool._crew.members)

    with pytest.raises(OSError, match="Too many open files"):
        pool.apply(os.dup, (0,))
    for _ in range(3):
        assert list(range(300)) == pool.map(abs, range(300), chunksize=1)
        assert 3 == pool.apply(abs, (-3,))
    pool.close()
    pool.join()
    assert [0, 0] == [member.exit_code for member in members]


def test_errors_of_workers_without_descriptors() -> None:
    """What a task has raised arrives, although nothing can be imported to describe it."""
    pytest.importorskip("procession_spawn")
    with procession.get_context("spawn").Pool(1, pooled.open_no_more) as pool:
        worker = pool.apply(os.getpid)
        with pytest.raises(ValueError, match="bad") as caught:
            pool.apply(pooled.fail, (1,))
        assert "in fail" in str(caught.value.__cause__)
        with pytest.raises(MaybeEncodingError):
            pool.apply(pooled.unpicklable)
        assert worker == pool.apply(os.getpid)


def test_a_limit_of_memory_without_descriptors() -> None:
    """A pool that cannot look at its workers for want of descriptors goes on, and looks later."""
    pytest.importorskip("procession_fork")
    program = """
import os, resource, procession
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
with procession.get_context("fork").Pool(1, max_rss=1) as pool:
    while not pool._crew.members[0].ready:
        pass
    worker, held = pool._crew.members[0].pid, []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    assert [worker] * 3 == [pool.apply_async(os.getpid).get(20) for _ in range(3)]
    for fd in held:
        os.close(fd)
    assert worker != pool.apply_async(os.getpid).get(20)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ("", 0) == (done.stderr, done.returncode)


def test_death_just_before_more_is_sent(
    make: Callable[..., Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool that learns of a death by sending has not read what the worker had answered."""
    journal = tmp_path / "journal"
    journal.touch()
    pool = make(1)
    crew = pool._crew
    pool.map(pooled.same, range(300), chunksize=1)  # known to be quick: given out ahead
    killed = threading.Event()
    deadline = time.monotonic() + 30

    def kill_who_has_answered() -> None:
        # In the pool's thread, after it has listened and before it sends.
        member = crew.members[0]
        look_at_the_clock()
        if killed.is_set() or not member.may_recall():
            return  # what was recalled is skipped
        if len(member.outstanding) > crew._backlog.ahead() // 2:
            return  # it will not be sent any more
        given = {task.arguments[0][1] for task in member.outstanding}
        while not given.issubset(_recorded(journal)):
            assert time.monotonic() < deadline
        os.kill(member.pid, SIGKILL)
        assert wait([member.sentinel], 30)
        killed.set()

    look_at_the_clock = crew._look_at_the_clock
    monkeypatch.setattr(crew, "_look_at_the_clock", kill_who_has_answered)
    died = count = 0
    while not killed.is_set():  # on a busy machine it takes a while until tasks count as short
        assert time.monotonic() < deadline
        numbers = range(count, count + 1000)
        count += 1000
        results = [pool.apply_async(pooled.record, (str(journal), number)) for number in numbers]
        for number, result in zip(numbers, results, strict=True):
            try:
                assert number == result.get(30)
            except WorkerDiedError:
                died += 1  # killed between the last record and its answer

    assert died <= 1
    assert list(range(count)) == sorted(_recorded(journal))


def test_death_within_an_answer_that_others_could_end(
    make: Callable[..., Any], tmp_path: Any
) -> None:
    """A child of the dead worker does not keep the pool waiting for the rest of its message."""
    flag = str(tmp_path / "flag")
    pool = make(2)
    dead = threading.Event()
    result = pool.apply_async(pooled.die_while_answering, (flag, str(tmp_path / "copy")))

    def watch_it_die(_: object) -> None:
        # In the pool's thread, which takes nothing of the answer meanwhile.
        (member,) = [each for each in pool._crew.members if each.outstanding]
        pooled.touch(flag)
        if wait([member.sentinel], 30):
            dead.set()

    pool.apply_async(pooled.same, (1,), callback=watch_it_die).wait(30)
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        result.get(30)
    assert dead.is_set()
    assert [1, 2] == pool.map(pooled.same, [1, 2])
    pool.terminate()
    os.kill(int((tmp_path / "copy").read_text()), SIGKILL)


def _is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"T"


def test_worker_stopped_within_its_answer(make: Callable[..., Any], tmp_path: Any) -> None:
    """A worker that is stopped in the middle of a long message holds up no other one."""
    if sys.platform == "win32":
        pytest.skip("no SIGSTOP")
    flag = str(tmp_path / "flag")
    pool = make(2)
    result = pool.apply_async(pooled.stop_while_answering, (flag,))
    stopped: list[int] = []

    def watch_it_stop(_: object) -> None:
        # In the pool's thread, which takes nothing of the answer meanwhile.
        (member,) = [each for each in pool._crew.members if each.outstanding]
        pooled.touch(flag)
        deadline = time.monotonic() + 30
        while not _is_stopped(member.pid) and time.monotonic() < deadline:
            time.sleep(0.005)
        stopped.append(member.pid)

    pool.apply_async(pooled.same, (1,), callback=watch_it_stop).wait(30)
    for number in range(20):
        assert number == pool.apply_async(pooled.same, (number,)).get(30)
    assert stopped
    assert not result.ready()
    os.kill(stopped[0], signal.SIGCONT)
    assert 8 << 20 == len(result.get(30))
    assert [1, 2] == pool.map(pooled.same, [1, 2])


def test_worker_stopped_before_a_long_task(make: Callable[..., Any]) -> None:
    """Nor does one that is stopped while long arguments are sent to it."""
    if sys.platform == "win32":
        pytest.skip("no SIGSTOP")
    pool = make(2)
    pids = {member.pid for member in pool._crew.members}
    assert 2 == len({pool.apply(pooled.pid) for _ in range(50)} | pids)
    pid = pool.apply(pooled.pid)
    os.kill(pid, signal.SIGSTOP)
    long_ones = [pool.apply_async(pooled.length, (bytes(8 << 20),)) for _ in range(2)]
    for number in range(20):
        assert number == pool.apply_async(pooled.same, (number,)).get(30)
    while not any(each.ready() for each in long_ones):
        pool.apply_async(pooled.same, (1,)).get(30)
    assert not all(each.ready() for each in long_ones)
    os.kill(pid, signal.SIGCONT)
    assert [8 << 20] * 2 == [each.get(30) for each in long_ones]


@pytest.mark.parametrize("end", ["timeout", "cancel", "terminate"])
def test_end_of_a_task_that_is_on_its_way(make: Callable[..., Any], end: str) -> None:
    """A task whose arguments a stopped worker does not take can be ended; so can the pool."""
    if sys.platform == "win32":
        pytest.skip("no SIGSTOP")
    pool = make(1)
    pid = pool.apply(pooled.pid)
    os.kill(pid, signal.SIGSTOP)
    timeout = 0.3 if end == "timeout" else None
    result = pool.apply_async(pooled.length, (bytes(8 << 20),), timeout=timeout)
    if end == "cancel":
        assert result.cancel()
    elif end == "terminate":
        pool._crew.terminate(wait=False)
        for member in list(pool._crew.members):
            os.kill(member.pid, SIGKILL)  # as the pool does after some seconds
    if end == "timeout":  # it was not begun: the next worker does it
        assert 8 << 20 == result.get(30)
    else:
        with pytest.raises(TaskCancelledError):
            result.get(30)
    if end != "terminate":
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)  # it was not killed if nothing was sent to it yet
        assert 1 == pool.apply(pooled.same, (1,))


@pytest.mark.parametrize("busy", ["sending", "receiving"])
def test_kill_within_a_long_message(make: Callable[..., Any], tmp_path: Any, busy: str) -> None:
    """A worker that is killed while stopped in the middle of a message is one that has died."""
    if sys.platform == "win32":
        pytest.skip("no SIGSTOP")
    pool = make(1)
    pid = pool.apply(pooled.pid)
    if busy == "sending":
        os.kill(pid, signal.SIGSTOP)
        result = pool.apply_async(pooled.length, (bytes(8 << 20),))
    else:
        result = pool.apply_async(pooled.stop_while_answering, (pooled.touch(str(tmp_path / "f")),))
        deadline = time.monotonic() + 30
        while not _is_stopped(pid):
            assert time.monotonic() < deadline
    os.kill(pid, SIGKILL)
    if busy == "sending":
        assert 8 << 20 == result.get(30)  # it was not begun
    else:
        try:
            assert 8 << 20 == len(result.get(30))  # all of it was sent before the stop
        except WorkerDiedError as error:
            assert pid == error.pid  # noqa: PT017
    assert 1 == pool.apply(pooled.same, (1,))


def test_terminate_beside_a_stopped_worker(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool that is in the middle of sending to a stopped worker can be terminated."""
    if sys.platform == "win32":
        pytest.skip("no SIGSTOP")
    monkeypatch.setattr(_pool_member, "_ENDING_SECONDS", 0.5)
    pool = make(1)
    os.kill(pool.apply(pooled.pid), signal.SIGSTOP)
    result = pool.apply_async(pooled.length, (bytes(64 << 20),))
    result.wait(0.1)
    pool.terminate()

    with pytest.raises(TaskCancelledError):
        result.get(30)


def test_death_while_a_task_is_recalled(make: Callable[..., Any], tmp_path: Any) -> None:
    """What waits behind a task that kills its worker is done by another one, and once."""
    journal = tmp_path / "journal"
    journal.touch()
    pool = make(1)
    for _ in range(20):
        journal.write_bytes(b"")
        pool.map(pooled.same, range(300), chunksize=1)
        results = [pool.apply_async(pooled.record, (str(journal), number)) for number in range(40)]
        fatal = pool.apply_async(pooled.die_later, (0.0105,))  # just when it is recalled
        results += [pool.apply_async(pooled.record, (str(journal), 40 + n)) for n in range(40)]

        with pytest.raises(WorkerDiedError):
            fatal.get(30)
        assert list(range(80)) == [result.get(30) for result in results]
        assert list(range(80)) == sorted(_recorded(journal))


def test_worker_that_the_program_has_closed(pool: Any, ctx: Any, tmp_path: Any) -> None:
    """A program may end and close a worker that it has from `active_children`."""
    flag = str(tmp_path / "flag")
    busy = pool.apply_async(pooled.begin_and_hang, (flag,))
    pooled.wait_for(flag)  # only now is it sure who does the next task
    pid = pool.apply(pooled.pid)
    for process in ctx.active_children():
        if process.pid != pid:
            process.kill()
            process.join()
            process.close()
    with pytest.raises(WorkerDiedError, match=r"in the middle of begin_and_hang\(\)"):
        busy.get(30)

    assert [1, 2] == pool.map(pooled.same, [1, 2])


def test_signal_handler_that_ends_the_pool(pool: Any) -> None:
    """A handler may terminate the pool that its thread is just giving tasks to."""
    if sys.platform == "win32":
        pytest.skip("no SIGALRM")
    ended = []
    results = []

    def give() -> NoReturn:
        while True:
            results.append(pool.apply_async(pooled.same, (1,)))
            next(pool.imap(pooled.same, range(100), buffersize=3))

    def end(*_: object) -> None:
        pool.terminate()
        ended.append(True)

    before = signal.signal(signal.SIGALRM, end)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises((ValueError, TaskCancelledError), match=r"Pool not running|terminated"):
            give()
    finally:
        signal.signal(signal.SIGALRM, before)

    assert ended
    for result in results:
        result.wait(30)
        assert result.ready()
