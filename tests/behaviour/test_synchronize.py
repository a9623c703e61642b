"""Locks, semaphores, events, conditions and barriers, as in multiprocessing."""

from __future__ import annotations

import functools
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procession.testing import locking

pytestmark = pytest.mark.usefixtures("primitive")

DEADLINE = 30.0
Make = Callable[..., Any]
one_pair = pytest.mark.one_pair_per("method")
LOCKS = pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])


@one_pair
@LOCKS
def test_excludes_other_processes(ctx: Any, kind: str, start: Make, pipe: Make) -> None:
    """While a child holds it nobody else gets it, and its release lets the next one in."""
    lock = getattr(ctx, kind)()
    here, there = pipe()
    child = start(locking.acquire_and_hold, lock, there)
    assert "held" == here.recv()
    assert not lock.acquire(False)
    assert not lock.acquire(timeout=0.01)
    assert not lock.acquire(True, -1)
    here.send("release")
    assert lock.acquire(timeout=DEADLINE)
    lock.release()
    child.join(DEADLINE)
    assert 0 == child.exitcode


@one_pair
@LOCKS
def test_counts_right(ctx: Any, kind: str, start: Make, tmp_path: Path) -> None:
    """Nothing that is done under the lock by several processes is lost."""
    path = tmp_path / "number"
    path.write_text("0")
    lock = getattr(ctx, kind)()
    children = [start(locking.add_under_lock, lock, str(path), 50) for _ in range(3)]
    locking.add_under_lock(lock, str(path), 50)
    for child in children:
        child.join(DEADLINE)
        assert 0 == child.exitcode
    assert "200" == path.read_text()


def test_rlock_belongs_to_a_thread(ctx: Any, ask: Make) -> None:
    """It may be acquired again by its thread, and released by nobody else."""
    lock = ctx.RLock()
    other: list[bool | str] = []
    with lock, lock:
        assert lock.acquire(False)
        lock.release()
        thread = threading.Thread(
            target=lambda: other.extend([lock.acquire(False), locking.release_error(lock)])
        )
        thread.start()
        thread.join()
        refused = "AssertionError: attempt to release recursive lock not owned by thread"
        assert [False, refused] == other
        assert refused == ask(locking.release_error, lock)
        assert (False, "<RLock(SomeOtherProcess, nonzero)>") == ask(locking.try_lock, lock)
    assert refused == locking.release_error(lock)


@one_pair
def test_lock_is_released_by_anybody(ctx: Any, finish: Make) -> None:
    """A lock that this process holds may be released by another one."""
    lock = ctx.Lock()
    lock.acquire()
    finish(locking.release, lock)
    assert lock.acquire(timeout=DEADLINE)
    lock.release()


@one_pair
def test_released_too_often(ctx: Any) -> None:
    """What is not held cannot be released, but for a semaphore without bounds."""
    refused = "ValueError: semaphore or lock released too many times"
    assert refused == locking.release_error(ctx.Lock())
    assert refused == locking.release_error(ctx.BoundedSemaphore(2))
    semaphore = ctx.Semaphore(2)
    semaphore.release()
    assert 3 == semaphore.get_value()


@one_pair
def test_values_of_semaphores(ctx: Any) -> None:
    """Units are counted, and impossible numbers of them are refused as in multiprocessing."""
    semaphore = ctx.BoundedSemaphore(3)
    assert semaphore.acquire()
    assert semaphore.acquire(timeout=0)
    assert 1 == semaphore.get_value()
    semaphore.release()
    semaphore.release()
    assert 0 == ctx.Semaphore(0).get_value()
    assert not ctx.Semaphore(0).acquire(False)
    for value, error in [(-1, OSError), (1 << 31, OverflowError), (1 << 70, OverflowError),
                         ("1", TypeError), (1.0, TypeError)]:  # fmt: skip
        for kind in (ctx.Semaphore, ctx.BoundedSemaphore):
            with pytest.raises(error):
                kind(value)
    most = ctx.Semaphore((1 << 31) - 1)
    with pytest.raises(ValueError, match="released too many times"):
        most.release()


@one_pair
def test_reprs(ctx: Any) -> None:
    """They look as in multiprocessing: who holds it, how often, what is left."""
    lock, rlock, semaphore = ctx.Lock(), ctx.RLock(), ctx.Semaphore(3)
    assert "<Lock(owner=None)> <RLock(None, 0)>" == f"{lock} {rlock}"
    with lock, rlock, rlock, semaphore:
        assert "<Lock(owner=MainProcess)> <RLock(MainProcess, 2)>" == f"{lock} {rlock}"
        assert "<Semaphore(value=2)>" == repr(semaphore)
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(f"{lock} {rlock}"))
        thread.start()
        thread.join()
        assert ["<Lock(owner=SomeOtherThread)> <RLock(SomeOtherThread, nonzero)>"] == seen
        thread = threading.Thread(
            target=lambda: seen.append(f"{mine.acquire()} {mine!r}"), name="T"
        )
        mine = ctx.Lock()
        thread.start()
        thread.join()
        assert "True <Lock(owner=MainProcess|T)>" == seen[1]
    assert "<BoundedSemaphore(value=2, maxvalue=2)>" == repr(ctx.BoundedSemaphore(2))
    assert "<Condition(<RLock(None, 0)>, 0)>" == repr(ctx.Condition())
    event = ctx.Event()
    assert f"<Event at {id(event):#x} unset>" == repr(event)
    event.set()
    assert f"<Event at {id(event):#x} set>" == repr(event)
    assert repr(ctx.Barrier(2)).endswith("waiters=0/2>")


@one_pair
def test_timeouts_are_kept(ctx: Any) -> None:
    """A wait with a timeout is over then: not before, and not long after."""
    lock, event, condition = ctx.Lock(), ctx.Event(), ctx.Condition()
    lock.acquire()
    condition.acquire()
    for wait in (functools.partial(lock.acquire, True), event.wait, condition.wait):
        begun = time.monotonic()
        assert not wait(0.25)
        assert 0.24 <= time.monotonic() - begun < 5
    condition.release()
    lock.release()


@one_pair
@pytest.mark.skipif(sys.platform == "win32", reason="needs setitimer")
@pytest.mark.parametrize("kind", ["Lock", "Semaphore", "Event", "Condition", "Barrier"])
def test_a_signal_interrupts_a_wait(ctx: Any, kind: str) -> None:
    """A handler runs at once while we wait; what it raises ends the wait (KeyboardInterrupt)."""

    class Interrupted(BaseException):
        pass

    calls: list[float] = []

    def handle(*_: object) -> None:
        calls.append(time.monotonic())
        if len(calls) == 2:
            raise Interrupted

    thing = ctx.Barrier(2) if kind == "Barrier" else getattr(ctx, kind)()
    if kind != "Event":
        wait = thing.wait if kind in ("Barrier", "Condition") else thing.acquire
        if kind != "Barrier":
            thing.acquire()
    else:
        wait = thing.wait
    if sys.platform == "win32":
        raise NotImplementedError
    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    begun = time.monotonic()
    try:
        with pytest.raises(Interrupted):
            wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begun < 5
    if kind not in ("Event", "Barrier"):
        thing.release()
        assert thing.acquire(False)
        thing.release()


def test_event_wakes_all(ctx: Any, start: Make, pipe: Make) -> None:
    """set wakes everybody who waits, in every process, and those who come later."""
    event = ctx.Event()
    lines = []
    for _ in range(2):
        here, there = pipe()
        start(locking.wait_for_event, event, there)
        lines.append(here)
    assert ["waits"] * 2 == [here.recv() for here in lines]
    assert not event.is_set()
    event.set()
    assert [True, True] == [here.recv() for here in lines]
    assert event.wait()
    event.clear()
    assert not event.wait(0)
    assert not event.is_set()


def test_condition_wakes_as_many_as_asked_for(ctx: Any, start: Make, pipe: Make) -> None:
    """notify wakes one, notify_all the rest; each goes on with the lock held."""
    condition = ctx.Condition()
    lines = []
    for _ in range(3):
        here, there = pipe()
        start(locking.wait_for_condition, condition, there)
        assert "waits" == here.recv()
        lines.append(here)
    with condition:
        condition.notify()
    while not (awake := [here for here in lines if here.poll(0.01)]):
        pass
    awake = [here for here in lines if here.poll(0.1)]
    assert [True] == [here.recv() for here in awake]
    awake[0].send("release")
    with condition:
        condition.notify_all()
    rest = [here for here in lines if here is not awake[0]]
    for _ in range(2):
        while not (awake := [each for each in rest if each.poll(0.01)]):
            pass
        here = awake[0]
        assert here.recv()
        assert not condition.acquire(False)
        here.send("release")
        rest.remove(here)


@one_pair
def test_condition_needs_its_lock(ctx: Any) -> None:
    """Using it without the lock is a mistake, with multiprocessing's words."""
    condition = ctx.Condition()
    with pytest.raises(AssertionError, match=r"must acquire\(\) condition before using wait\(\)"):
        condition.wait()
    for use in (condition.notify, condition.notify_all):
        with pytest.raises(AssertionError, match="lock is not owned"):
            use()
    with pytest.raises(AttributeError):
        ctx.Condition(5)


@one_pair
def test_condition_around_a_lock(ctx: Any) -> None:
    """Its lock may be given, acquired repeatedly, and is as before after a wait."""
    for lock in (ctx.Lock(), ctx.RLock()):
        condition = ctx.Condition(lock)
        with condition:
            assert not lock.acquire(False) or lock.release() is None
            assert not condition.wait(0.01)
            assert "MainProcess" in repr(lock)
            assert 7 == condition.wait_for(lambda: 7)
            assert 0 == condition.wait_for(lambda: 0, 0.01)
        assert "None" in repr(lock)
    with condition, condition:
        condition.wait(0.01)
        assert "<RLock(MainProcess, 2)>" == repr(lock)


def test_barrier_lets_all_pass(ctx: Any, start: Make, pipe: Make, tmp_path: Path) -> None:
    """All wait for the last one, whose action is done before anybody goes on; again and again."""
    path = tmp_path / "passed"
    barrier = ctx.Barrier(3, functools.partial(locking.append, str(path)))
    for count in (1, 2):
        lines = []
        for _ in range(2):
            here, there = pipe()
            start(locking.wait_at_barrier, barrier, there)
            lines.append(here)
        numbers = [barrier.wait(DEADLINE)]
        assert ["comes", "comes"] == [here.recv() for here in lines]
        numbers += [here.recv() for here in lines]
        assert {0, 1, 2} == set(numbers)
        assert "passed\n" * count == path.read_text()
    assert (3, 0, False) == (barrier.parties, barrier.n_waiting, barrier.broken)


@one_pair
def test_barrier_breaks(ctx: Any, start: Make, pipe: Make) -> None:
    """A timeout breaks it for all, abort and reset do what they say."""
    barrier = ctx.Barrier(3, timeout=0.2)
    here, there = pipe()
    start(locking.wait_at_barrier, barrier, there)
    assert "comes" == here.recv()
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    assert "BrokenBarrierError" == here.recv()[0]
    assert barrier.broken
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    barrier.reset()
    assert not barrier.broken
    barrier.abort()
    assert barrier.broken
    assert repr(barrier).endswith("broken>")


@one_pair
def test_barrier_of_one_and_its_action(ctx: Any) -> None:
    """One party passes at once; an exception in the action breaks the barrier and is raised."""
    calls: list[int] = []
    assert 0 == ctx.Barrier(1, lambda: calls.append(1)).wait()
    assert [1] == calls
    barrier = ctx.Barrier(1, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        barrier.wait()
    assert barrier.broken
