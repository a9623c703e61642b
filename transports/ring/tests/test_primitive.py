"""`RingPrimitive`: what only it promises; the contract's own tests are those of core."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from functools import partial
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("rings are a Linux thing", allow_module_level=True)

from procession.errors import OwnerDiedError
from procession.plugin import LOCK, RECURSIVE, SEMAPHORE, Handoff, Takeover
from procession.testing.forked import DEADLINE, Forked, crew, until
from procession_ring._implementation import NATIVE
from procession_ring._primitive import RingPrimitive

#: Where csrc/lock.c has the process id that the name belongs to.
PID_WORD = 5
KILLS = int(os.environ.get("PROCESSION_KILLS", "5"))
KINDS = pytest.mark.parametrize(
    "kind", [LOCK, RECURSIVE, SEMAPHORE], ids=["lock", "recursive", "semaphore"]
)


@pytest.fixture(autouse=True)
def native(implementation: str) -> None:
    """There is no twin of this one: core's own primitive takes its place."""
    if implementation != NATIVE:
        pytest.skip("only the compiled half has it")


def test_there_is_none_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be used the reason is given, so that another one is chosen."""
    assert RingPrimitive.unavailable() is None
    monkeypatch.setenv("PROCESSION_RING_IMPLEMENTATION", "python")
    assert "the compiled extension" in str(RingPrimitive.unavailable())


class _Duplicates(Handoff, Takeover):
    """A crossing into this same process."""

    def give(self, fd: int, /) -> int:
        return os.dup(fd)

    def take(self, token: int, /) -> int:
        return token


def test_a_process_without_the_extension_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is sent cannot be used there, and that is an error with advice."""
    one = RingPrimitive.make(LOCK, 1, 1)
    crossing = _Duplicates()
    recipe = one.export(crossing)
    monkeypatch.setitem(sys.modules, "procession_ring._native", None)
    monkeypatch.delattr("procession_ring._native")
    with pytest.raises(OSError, match="PROCESSION_PRIMITIVE=python"):
        RingPrimitive.attach(recipe, crossing)
    one.close()


def guard_of(one: RingPrimitive) -> int:
    """The process that holds the lock, or is at work on the semaphore, at this moment; or 0."""
    return int(one._space.words[one._at]) >> 32


def caught_at_work(one: RingPrimitive, process: Forked) -> None:
    """Stop *process* again and again, until it is in the middle of a change to *one*."""
    end = threading.Event()
    timer = threading.Timer(DEADLINE, end.set)
    timer.start()
    while not end.is_set():
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        if guard_of(one) == process.pid:
            timer.cancel()
            timer.join()
            return
        os.kill(process.pid, signal.SIGCONT)
        select.select([], [], [], 0.0001)
    pytest.fail("it was never caught")


def acquire_after(one: RingPrimitive, dead: int) -> None:
    """Acquire *one*, which the process *dead* may have held, and nobody else."""
    try:
        assert one.acquire(timeout=DEADLINE)
    except OwnerDiedError as error:
        found = error.pid
    else:
        return
    assert dead == found
    assert one.acquire(False)


@KINDS
@pytest.mark.parametrize("watched", [False, True])
def test_killed_in_the_middle_of_a_change(kind: int, watched: bool) -> None:
    """The next one takes over what the dead was at, and finds a unit held, or free."""
    if watched and kind != SEMAPHORE:
        pytest.skip("only semaphores have a descriptor")
    for _ in range(KILLS):
        one = RingPrimitive.make(kind, 1, 1)
        if watched:
            one.fileno()

        def work(one: RingPrimitive = one) -> None:
            while True:
                one.acquire()
                one.release()

        with crew() as fork:
            process = fork(work)
            caught_at_work(one, process)
            process.kill()
        acquire_after(one, process.pid)
        assert (1, 0) == (one.count(), one.value())
        assert [os.getpid()] == [holder.pid for holder in one.holders()]
        one.release()
        assert 1 == one.value()
        if watched:
            assert select.select([one.fileno()], [], [], 0)[0]
        one.close()


@pytest.mark.parametrize("kind", [LOCK, RECURSIVE])
def test_killed_before_it_could_write_its_name_down(kind: int) -> None:
    """That it holds the lock is one word, and so is who it was; its name may be missing."""
    one = RingPrimitive.make(kind, 1, 1)

    def hold() -> None:
        one.acquire()
        os._exit(3)

    with crew() as fork:
        process = fork(hold)
        assert 3 == process.join()
    one._space.words[one._at + PID_WORD] = 0
    assert [process.pid] == [holder.pid for holder in one.holders()]
    with pytest.raises(OwnerDiedError, match=rf"^a process \(pid {process.pid}\)") as caught:
        one.acquire()
    assert (None, process.pid) == (caught.value.process, caught.value.pid)
    assert one.acquire(False)
    assert [os.getpid()] == [holder.pid for holder in one.holders()]
    one.close()


def test_stopped_in_the_middle_of_a_change() -> None:
    """It is waited for, as it lives, and nothing is taken from it."""
    one = RingPrimitive.make(SEMAPHORE, 1, 1)
    one.fileno()
    stop, stopper = os.pipe()

    def work() -> None:
        while not select.select([stop], [], [], 0)[0]:
            for _ in range(1000):
                one.acquire()
                one.release()

    with crew() as fork:
        process = fork(work)
        caught_at_work(one, process)
        waiting = threading.Thread(target=one.acquire)
        waiting.start()
        waiting.join(0.05)
        assert guard_of(one) == process.pid
        os.kill(process.pid, signal.SIGCONT)
        waiting.join(DEADLINE)
        assert not waiting.is_alive()
        one.release()
        os.write(stopper, b"x")
        assert 0 == process.join()
    assert (0, 1) == (one.count(), one.value())
    one.close()
    os.close(stop)
    os.close(stopper)


def test_a_waiter_is_killed_with_the_ring_that_was_for_it() -> None:
    """The others look again within moments, so that no unit stays unused."""
    for _ in range(KILLS):
        one = RingPrimitive.make(LOCK, 1, 1)
        one.acquire()
        with crew() as fork:

            def wait(one: RingPrimitive = one) -> None:
                try:
                    one.acquire()
                except OwnerDiedError:  # it had got it already
                    one.acquire()
                one.release()

            waiters = [fork(wait) for _ in range(3)]
            for waiter in waiters:
                until(partial(is_asleep, waiter.pid))
            one.release()
            waiters[0].kill()
            assert [0, 0] == [waiter.join() for waiter in waiters[1:]]
        acquire_after(one, waiters[0].pid)
        one.close()


@KINDS
def test_whoever_was_woken_wakes_the_next(kind: int) -> None:
    """Those who wait get in one after another, and not when they happen to look again."""
    one = RingPrimitive.make(kind, 1, 1)
    one.acquire()
    ready, told = os.pipe()

    def wait() -> None:
        os.write(told, b"x")
        one.acquire()
        one.release()

    with crew() as fork:
        waiters = [fork(wait) for _ in range(4)]
        for _ in waiters:
            os.read(ready, 1)
        for waiter in waiters:
            until(partial(is_asleep, waiter.pid))
        one.release()
        assert [0] * 4 == [waiter.join() for waiter in waiters]
    assert 5 == wakings_of(one)
    one.close()
    os.close(ready)
    os.close(told)


def wakings_of(one: RingPrimitive) -> int:
    """How often a release has woken somebody who was asleep, or might have been."""
    return int(one._space.words[one._at + 1]) & 0xFFFFFFFF


def is_asleep(pid: int) -> bool:
    """Whether process *pid* sleeps in the kernel."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"S"


def test_a_dead_holder_is_noticed_under_a_storm_of_signals() -> None:
    """However often a wait is interrupted, it looks after the holder now and then."""
    one = RingPrimitive.make(LOCK, 1, 1)
    ready, told = os.pipe()

    def hold() -> None:
        one.acquire()
        os.write(told, b"x")
        signal.pause()

    usual = signal.signal(signal.SIGALRM, lambda *_: None)
    with crew() as fork:
        process = fork(hold)
        os.read(ready, 1)
        timer = threading.Timer(0.25, process.kill)
        timer.start()
        signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
        try:
            with pytest.raises(OwnerDiedError):
                one.acquire(timeout=DEADLINE)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, usual)
        timer.join()
    os.close(ready)
    os.close(told)
    one.close()


def test_arguments_are_those_of_multiprocessing() -> None:
    """By position or name, and what is wrong is a TypeError."""
    one: Any = RingPrimitive.make(LOCK, 1, 1)
    assert one.acquire(block=True, timeout=None)
    assert not one.acquire(False)
    assert not one.acquire(block=False)
    assert not one.acquire(True, 0.001)
    assert not one.acquire(True, timeout=0.001)
    assert not one.acquire(True, -1)
    assert not one.acquire(0, 100)
    with pytest.raises(TypeError, match="at most 2"):
        one.acquire(1, 2, 3)
    with pytest.raises(TypeError, match="multiple values"):
        one.acquire(1, block=True)
    with pytest.raises(TypeError, match="unexpected keyword"):
        one.acquire(blocking=True)
    with pytest.raises(TypeError):
        one.acquire(True, "soon")
    one.release()
    with pytest.raises(ValueError, match="too many times"):
        one.release()
    one.close()


def test_it_is_chosen_where_it_can_be_used() -> None:
    """A program that has the extension gets it without asking, and is told."""
    environment = {k: v for k, v in os.environ.items() if k != "PROCESSION_PRIMITIVE"}
    found = subprocess.run(
        [sys.executable, "-m", "procession", "plugins"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "locks are made of:     ring" in found.stdout
