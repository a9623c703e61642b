"""What only procession promises of locks: the dead are noticed, and locks can be sent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import procession
from procession.connection import wait
from procession.errors import BrokenBarrierError, OwnerDiedError
from procession.testing import locking
from procession.testing.leaks import descriptors

if sys.platform != "linux":
    pytest.skip("these tests need /proc", allow_module_level=True)

pytestmark = [
    pytest.mark.beyond("multiprocessing's locks stay held by the dead"),
    pytest.mark.usefixtures("primitive"),
]

DEADLINE = 30.0
#: "Promptly", on a machine that has a lot else to do.
SOON = 5.0
Make = Callable[..., Any]
one_pair = pytest.mark.one_pair_per("method")
LOCKS = pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])


@one_pair
@LOCKS
def test_the_next_one_hears_of_a_dead_holder(ctx: Any, kind: str, start: Make, pipe: Make) -> None:
    """Who waits is told who died and how, at once, and the lock is free again."""
    lock = getattr(ctx, kind)()
    here, there = pipe()
    child = start(locking.acquire_and_hold, lock, there, name="holder")
    assert "held" == here.recv()
    killer = threading.Timer(0.1, os.kill, (child.pid, signal.SIGKILL))
    killer.start()
    begun = time.monotonic()
    with pytest.raises(OwnerDiedError, match="'holder'") as caught:
        lock.acquire()
    killer.join()
    assert time.monotonic() - begun < SOON
    assert ("holder", child.pid) == (caught.value.process, caught.value.pid)
    # A fork server may not have reported the end yet.
    assert caught.value.exitcode in (-signal.SIGKILL, None)
    assert lock.acquire(False)
    lock.release()


@one_pair
@LOCKS
def test_an_acquire_without_waiting_hears_of_it(
    ctx: Any, kind: str, finish: Make, pipe: Make
) -> None:
    """It is told once, also if it does not wait; the lock is free then, and stays healthy."""
    lock = getattr(ctx, kind)()
    child = finish(locking.acquire_and_exit, lock, 3)
    with pytest.raises(OwnerDiedError) as caught:
        lock.acquire(False)
    # Its parent has collected it, and knows.
    assert (child.name, child.pid, 3) == (
        caught.value.process,
        caught.value.pid,
        caught.value.exitcode,
    )
    with lock:
        assert lock.locked()
    assert not lock.locked()


@one_pair
def test_only_one_waiter_hears_of_it(ctx: Any, start: Make, pipe: Make) -> None:
    """One error for each dead holder; the others get the lock."""
    lock = ctx.Lock()
    here, there = pipe()
    child = start(locking.acquire_and_hold, lock, there)
    assert "held" == here.recv()
    results: list[str] = []

    def acquire() -> None:
        try:
            with lock:
                results.append("held")
        except OwnerDiedError:
            results.append("died")

    threads = [threading.Thread(target=acquire) for _ in range(4)]
    for thread in threads:
        thread.start()
    child.kill()
    for thread in threads:
        thread.join(DEADLINE)
    assert ["died", "held", "held", "held"] == sorted(results)


@one_pair
def test_all_units_of_a_dead_process_come_back(ctx: Any, start: Make, pipe: Make) -> None:
    """Each process that held units is reported once, and its units are free then."""
    semaphore = ctx.BoundedSemaphore(3)
    semaphore.acquire()
    lines = [pipe() for _ in range(2)]
    children = [start(locking.acquire_and_hold, semaphore, there) for _, there in lines]
    assert ["held", "held"] == [here.recv() for here, _ in lines]
    for child in children:
        child.kill()
        child.join()
    for _ in children:
        with pytest.raises(OwnerDiedError):
            semaphore.acquire(False)
        assert semaphore.acquire(False)
    for _ in range(3):
        semaphore.release()
    assert 3 == semaphore.get_value()


@one_pair
def test_a_consumer_of_signals_is_no_holder(ctx: Any, finish: Make) -> None:
    """Units that others make are used up, not held: the consumer's end gives none back."""
    semaphore = ctx.Semaphore(0)
    semaphore.release()
    finish(locking.acquire_and_exit, semaphore, 0)
    assert not semaphore.acquire(timeout=0.3)
    # The same for one that begins with room, once it was used so.
    room = ctx.Semaphore(2)
    room.acquire()
    finish(locking.release, room)
    finish(locking.acquire_and_exit, room, 0)
    finish(locking.acquire_and_exit, room, 0)
    assert not room.acquire(timeout=0.3)
    room.release()
    assert room.acquire(False)


@one_pair
def test_a_lock_released_by_another_has_no_holder(ctx: Any, finish: Make, start: Make) -> None:
    """Who has acquired a lock that somebody else has released may die without being noticed."""
    lock = ctx.Lock()
    finish(locking.acquire_and_exit, lock, 0)
    lock.release()
    assert lock.acquire(False)
    lock.release()


@LOCKS
def test_sent_through_a_connection(ctx: Any, kind: str, start: Make, pipe: Make) -> None:
    """A running process can be given a lock in a message."""
    lock = getattr(ctx, kind)()
    here, there = pipe()
    child = start(locking.use_sent, there)
    lock.acquire()
    here.send(lock)
    assert "received" == here.recv()
    assert not here.poll(0.05)
    lock.release()
    assert "held" == here.recv()
    assert not lock.acquire(False)
    here.send("release")
    assert lock.acquire(timeout=DEADLINE)
    child.join(DEADLINE)


@one_pair
@pytest.mark.parametrize("kind", ["Event", "Condition", "Barrier"])
def test_others_sent_through_a_queue(ctx: Any, kind: str, queue: Make) -> None:
    """What was put into a queue is, taken out again, the same thing."""
    original = ctx.Barrier(1) if kind == "Barrier" else getattr(ctx, kind)()
    items = queue()
    items.put(original)
    copy = items.get()
    if kind == "Event":
        original.set()
        assert copy.is_set()
    elif kind == "Barrier":
        original.abort()
        assert copy.broken
    else:
        with original:
            thread = threading.Thread(target=copy.acquire, args=(False,))
            thread.start()
            thread.join()
            assert "<Condition(<RLock(MainProcess, 1)>, 0)>" == repr(copy)


@one_pair
def test_the_same_lock_twice_excludes_itself(ctx: Any, queue: Make) -> None:
    """Two objects for one lock in one process are one lock to its threads."""
    lock = ctx.Lock()
    items = queue()
    items.put(lock)
    copy = items.get()
    with lock:
        assert not copy.acquire(False)
        assert not copy.acquire(timeout=0.01)
    assert copy.acquire(False)
    lock.release()


def test_locks_of_one_context_work_everywhere(ctx: Any, pipe: Make, cleanup: Any) -> None:
    """A lock made by one start method's context is good for processes of all of them."""
    lock = procession.get_context(procession.get_all_start_methods()[0]).Lock()
    for method in procession.get_all_start_methods():
        here, there = pipe()
        child = procession.get_context(method).Process(
            target=locking.acquire_and_hold, args=(lock, there)
        )
        child.start()
        assert "held" == here.recv()
        assert not lock.acquire(False)
        here.send("release")
        child.join(DEADLINE)
        child.close()


@one_pair
def test_a_dead_waiter_swallows_no_notification(ctx: Any, start: Make, pipe: Make) -> None:
    """notify wakes one who lives, whoever has waited longer and died, before it or after."""
    condition = ctx.Condition()
    lines = [pipe() for _ in range(3)]
    children = []
    for _, there in lines:
        children.append(start(locking.wait_for_condition, condition, there))
        assert "waits" == lines[len(children) - 1][0].recv()
    with condition:  # all of them wait
        pass
    children[0].kill()
    children[0].join()
    with condition:
        condition.notify()
        # The second one has it, but cannot act before it has the lock.
        children[1].kill()
        children[1].join()
    assert lines[2][0].poll(SOON)
    assert lines[2][0].recv()
    lines[2][0].send("release")


@one_pair
def test_killed_in_the_condition_s_lock(ctx: Any, start: Make) -> None:
    """Who waits is told, with the lock held, that a process has died holding it."""
    condition = ctx.Condition()
    with condition:
        start(locking.notify_and_die, condition)
        with pytest.raises(OwnerDiedError):
            condition.wait(DEADLINE)
        assert "<Condition(<RLock(MainProcess, 1)>, 0)>" == repr(condition)
    with condition:
        assert not condition.wait(0)


@one_pair
def test_a_barrier_names_who_died(ctx: Any, start: Make, pipe: Make) -> None:
    """It breaks for all who wait, soon after one of them has died."""
    barrier = ctx.Barrier(4)
    lines = [pipe() for _ in range(2)]
    children = [
        start(locking.wait_at_barrier, barrier, there, name=f"party-{number}")
        for number, (_, there) in enumerate(lines)
    ]
    while barrier.n_waiting < 2:
        time.sleep(0.001)
    killer = threading.Timer(0.1, os.kill, (children[0].pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(BrokenBarrierError, match="'party-0'") as caught:
        barrier.wait()
    killer.join()
    assert ("party-0", children[0].pid) == (caught.value.process, caught.value.pid)
    assert "comes" == lines[1][0].recv()
    assert ("BrokenBarrierError", "party-0") == lines[1][0].recv()[:2]
    barrier.reset()
    assert not barrier.broken


@one_pair
def test_a_pulse_wakes_all(ctx: Any) -> None:
    """Who waits while an event is set and cleared at once does not wait any longer."""
    event = ctx.Event()
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(event.wait(DEADLINE))) for _ in "ab"]
    for thread in threads:
        thread.start()
    # Until both have surely begun to wait, as only they can tell: pulse until they are gone.
    while any(thread.is_alive() for thread in threads):
        event.set()
        event.clear()
        time.sleep(0.001)
    assert [True, True] == results


@one_pair
def test_waited_for_with_others(ctx: Any, pipe: Make) -> None:
    """Events and semaphores can be waited for together with connections, and in asyncio."""
    event, semaphore = ctx.Event(), ctx.Semaphore(1)
    here, there = pipe()
    assert [semaphore] == wait([event, semaphore, here], 0)
    semaphore.acquire()
    assert [] == wait([event, semaphore, here], 0)
    event.set()
    there.send(1)
    assert [event, here] == wait([event, semaphore, here], 0)
    event.clear()
    assert [here] == wait([event, semaphore, here], 0)
    semaphore.release()
    assert [semaphore, here] == wait([event, semaphore, here], 0)
    semaphore.acquire()

    async def acquired() -> bool:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(semaphore.fileno(), readable.set)
        threading.Timer(0.05, semaphore.release).start()
        await asyncio.wait_for(readable.wait(), DEADLINE)
        loop.remove_reader(semaphore.fileno())
        return bool(semaphore.acquire(False))

    assert asyncio.run(acquired())


@one_pair
def test_locked(ctx: Any) -> None:
    """locked, as from Python 3.14 on, says whether an acquire would have to wait."""
    for kind in ("Lock", "RLock", "Semaphore"):
        lock = getattr(ctx, kind)()
        assert not lock.locked()
        with lock:
            assert lock.locked()


@one_pair
def test_nothing_has_a_name(ctx: Any) -> None:
    """No files in shared memory, and no helper process: what is anonymous leaves nothing."""
    things = [
        ctx.Lock(),
        ctx.RLock(),
        ctx.Semaphore(),
        ctx.Condition(),
        ctx.Event(),
        ctx.Barrier(2),
    ]
    assert not [what for what in descriptors().values() if what.startswith("/dev/shm")]
    assert all(things)
