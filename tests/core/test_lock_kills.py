"""Processes killed with SIGKILL at random points while they use locks and their relatives.

Each case prints its seed when it fails; ``PROCESSION_SEED`` replays it, and ``PROCESSION_KILLS``
sets how many processes are killed in each case.
"""

from __future__ import annotations

import mmap
import os
import random
import select
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("these tests need fork and pidfds", allow_module_level=True)

from procession._holder import has_died
from procession._process_status import start_of
from procession.errors import BrokenBarrierError, OwnerDiedError
from procession.synchronize import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock
from procession.testing.forked import DEADLINE, Forked, crew, until
from procession.testing.leaks import descriptors

KILLS = int(os.environ.get("PROCESSION_KILLS", "25"))
WORKERS = 4
UNITS = 2


class Board:
    """Words that all workers share: what they do now, and what they have done."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, mmap.PAGESIZE)
        self.words = memoryview(self._map).cast("Q")
        self.stop = self.words[0:1]
        self.tokens = self.words[1:2]
        #: For each worker, the process that is in a critical section, and its start.
        self.inside = self.words[8 : 8 + 2 * WORKERS]
        self.done = self.words[64 : 64 + WORKERS]

    def enter(self, worker: int, limit: int) -> None:
        """Be inside, where at most *limit* living processes may be."""
        self.inside[2 * worker + 1] = start_of(os.getpid())
        self.inside[2 * worker] = os.getpid()
        others = [
            self.inside[2 * each]
            for each in range(WORKERS)
            if each != worker
            and self.inside[2 * each]
            and not has_died(self.inside[2 * each], self.inside[2 * each + 1])
        ]
        # A worker that leaves, or is killed, between two of these looks does no harm.
        assert len(others) < limit, f"{others} and {os.getpid()} are inside at once"

    def leave(self, worker: int) -> None:
        """Be outside again."""
        self.inside[2 * worker] = 0

    def close(self) -> None:
        """Free the memory."""
        for view in (self.stop, self.tokens, self.inside, self.done, self.words):
            view.release()
        self._map.close()


def use_lock(lock: Any, limit: int, board: Board, worker: int) -> None:
    """Enter and leave the critical section for ever, in all the ways there are."""
    chance = random.Random(os.getpid())
    while not board.stop[0]:
        try:
            how = chance.randrange(4)
            if how == 0:
                taken = lock.acquire(timeout=chance.random() * 0.005)
            else:
                taken = lock.acquire(how != 1)
        except OwnerDiedError:
            continue
        if not taken:
            continue
        if isinstance(lock, RLock) and chance.random() < 0.5:
            lock.acquire()
            lock.release()
        board.enter(worker, limit)
        for _ in range(chance.randrange(30)):
            pass
        board.leave(worker)
        lock.release()
        board.done[worker] += 1


def use_condition(condition: Condition, board: Board, worker: int) -> None:
    """Make tokens, or take them, with nothing but a notification to go by."""
    while not board.stop[0]:
        try:
            with condition:
                if worker % 2:
                    board.tokens[0] += 1
                    condition.notify()
                else:
                    while not board.tokens[0] and not board.stop[0]:
                        condition.wait()
                    if board.tokens[0]:
                        board.tokens[0] -= 1
        except OwnerDiedError:
            continue
        board.done[worker] += 1
        if worker % 2:
            time.sleep(0.0002)


def use_event(event: Event, board: Board, worker: int) -> None:
    """Wait for an event that others set and clear."""
    chance = random.Random(os.getpid())
    while not board.stop[0]:
        if worker % 2:
            event.set()
            if chance.random() < 0.5 and not board.stop[0]:
                event.clear()
        else:
            assert event.wait()
            if not board.stop[0]:
                event.clear()
        board.done[worker] += 1
    event.set()


def use_barrier(barrier: Barrier, board: Board, worker: int) -> None:
    """Go on together, and mend what a death has broken."""
    while not board.stop[0]:
        try:
            assert 0 <= barrier.wait() < WORKERS
        except BrokenBarrierError as error:
            if error.process not in (None, "MainProcess"):
                raise
            if not board.stop[0]:
                barrier.reset()
            continue
        board.done[worker] += 1


def check_lock(lock: Any) -> None:
    """Nothing is held by the dead any more, once they were noticed; all is as when it was new."""
    most = 1 if isinstance(lock, (Lock, RLock)) else UNITS
    errors = 0
    for _ in range(most):
        while True:
            try:
                assert lock.acquire(timeout=DEADLINE)
                break
            except OwnerDiedError:
                errors += 1
    assert errors <= most
    if not isinstance(lock, RLock):
        assert not lock.acquire(False)
    for _ in range(most):
        lock.release()
    with pytest.raises((ValueError, AssertionError)):
        lock.release()
    assert [] == lock._primitive.holders()


def check_condition(condition: Condition) -> None:
    """Nobody is in the line, once the dead were noticed, and it works."""
    try:
        condition.acquire()
    except OwnerDiedError:
        condition.acquire()
    condition.notify_all()
    assert not condition.wait(0.01)
    condition.release()
    check_lock(condition._lock)


def check_event(event: Event) -> None:
    """It is set, can be cleared and be set."""
    assert event.is_set()
    event.clear()
    assert not event.wait(0)
    event.set()
    assert event.wait(0)


def check_barrier(barrier: Barrier) -> None:
    """After a reset nobody waits and it is not broken."""
    barrier.reset()
    assert (0, False) == (barrier.n_waiting, barrier.broken)


SUBJECTS: dict[str, tuple[Callable[[], Any], Callable[..., None], Callable[[Any], None]]] = {
    "lock": (Lock, lambda it, *rest: use_lock(it, 1, *rest), check_lock),
    "rlock": (RLock, lambda it, *rest: use_lock(it, 1, *rest), check_lock),
    "semaphore": (
        lambda: BoundedSemaphore(UNITS),
        lambda it, *rest: use_lock(it, UNITS, *rest),
        check_lock,
    ),
    "condition": (Condition, use_condition, check_condition),
    "event": (Event, use_event, check_event),
    "barrier": (lambda: Barrier(WORKERS), use_barrier, check_barrier),
}


@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.usefixtures("primitive")
def test_killed_users(name: str) -> None:
    """Whoever is killed, and wherever: the others go on, and nothing stays held by the dead."""
    seed = int(os.environ.get("PROCESSION_SEED") or random.SystemRandom().randrange(1 << 32))
    make, use, check = SUBJECTS[name]
    before = descriptors()
    thing, board = make(), Board()
    try:
        run(random.Random(seed), thing, use, board)
        check(thing)
    except BaseException:
        print(f"replay with PROCESSION_SEED={seed}")
        raise
    finally:
        board.close()
    kept = set(descriptors().values()) - set(before.values())
    assert len(kept) <= 6, kept  # its own: memory, bells, what they are waited for with


def run(chance: random.Random, thing: Any, use: Callable[..., None], board: Board) -> None:
    """Kill, replace, see that those who live go on, and let them finish."""
    with crew() as fork:

        def start(worker: int) -> Forked:
            return fork(lambda: use(thing, board, worker))

        workers = [start(worker) for worker in range(WORKERS)]
        for _ in range(KILLS):
            select.select([], [], [], chance.random() * 0.006)
            worker = chance.randrange(WORKERS)
            workers[worker].kill()
            workers[worker] = start(worker)
        before = list(board.done)
        until(lambda: all(now > then for now, then in zip(board.done, before, strict=True)))
        board.stop[0] = 1
        ends = time.monotonic() + DEADLINE
        while not all(each.stopped() for each in workers):
            assert time.monotonic() < ends, "a survivor does not finish"
            wake(thing)
            select.select([], [], [], 0.01)
        assert [0] * WORKERS == [each.join() for each in workers]


def wake(thing: Any) -> None:
    """Have those who wait see that it is time to stop; the only way for some to know."""
    if isinstance(thing, Condition):
        try:
            with thing:
                thing.notify_all()
        except OwnerDiedError:
            return
    elif isinstance(thing, Barrier):
        thing.abort()
    elif isinstance(thing, Event):
        thing.set()
