"""Locks, semaphores and events: alone, wanted by several, and waking who waits."""

from __future__ import annotations

import functools
import time
from statistics import median
from typing import TYPE_CHECKING

import payloads
from children import join, started
from payloads import READY
from subject import NOTHING, Case, Effort, Figure, Subject, board

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from contenders import Contender

#: How often a lock that several processes want is taken in all: for some 50 milliseconds. They
#: look every millisecond whether they may begin, and must not have done before all of them have.
TIMES_WANTED = 400_000
#: Between two events when waking is measured: long enough for the waiter to fall asleep.
PAUSE_SECONDS = 0.002


def alone(kind: str, contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Acquire and release what nobody else wants."""
    lock = getattr(contender.context(), kind)()
    count = effort.of(50_000, 2_000)
    acquire, release = lock.acquire, lock.release
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter_ns()
        for _ in range(count):
            acquire()
            release()
        best = min(best, (time.perf_counter_ns() - begin) / count)
    return {"acquire and release": best}


def wanted(workers: int, contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Acquire and release one lock from *workers* processes as fast as they can."""
    context = contender.context()
    count = effort.of(TIMES_WANTED, 500) // workers
    lock = context.Lock()
    gate = 0
    with board(1 + 2 * workers) as (path, numbers):
        processes = [
            started(context, payloads.want_lock, lock, path, gate, 1 + 2 * k, 2 + 2 * k, count)
            for k in range(workers)
        ]
        for k in range(workers):
            numbers.wait(1 + 2 * k)
        begin = time.monotonic_ns()
        numbers[gate] = READY
        join(processes)
        end = max(numbers[2 + 2 * k] for k in range(workers))
    return {"acquire and release": (end - begin) / (count * workers)}


def event(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Set an event for a process that sleeps until then."""
    there = contender.context().Event()
    return {"set to awake": _wake(contender, effort, payloads.time_wakings, there, there.set)}


def semaphore(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Give a semaphore a unit for which a process sleeps."""
    there = contender.context().Semaphore(0)
    took = _wake(contender, effort, payloads.time_acquires, there, there.release)
    return {"release to awake": took}


def condition(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Notify a process that sleeps until then, with the lock of the condition."""
    there = contender.context().Condition()

    def notify() -> None:
        with there:
            there.notify()

    return {"notify to awake": _wake(contender, effort, payloads.time_notices, there, notify)}


def _wake(
    contender: Contender,
    effort: Effort,
    target: Callable[..., object],
    there: object,
    wake: Callable[[], None],
) -> float:
    """Return the microseconds from *wake* until the sleeping process is awake."""
    context = contender.context()
    warming = effort.of(20, 5)
    count = warming + effort.of(500, 20)
    back = context.Event()
    # One slot for the time of each call, one for the time of each waking, one for "ready".
    with board(2 * count + 1) as (path, numbers):
        process = started(context, target, there, back, path, count)
        numbers.wait(2 * count)
        for index in range(count):
            time.sleep(PAUSE_SECONDS)
            numbers[index] = time.monotonic_ns()
            wake()
            back.wait()
            back.clear()
        join([process])
        delays = [(numbers[count + k] - numbers[k]) / 1e3 for k in range(warming, count)]
    return median(delays)


PAIR = (Figure("acquire and release", "ns"),)
SUBJECT = Subject(
    name="locks",
    title="Locks and events",
    cases=(
        *(
            Case(f"{kind} alone", PAIR, functools.partial(alone, kind), NOTHING)
            for kind in ("Lock", "RLock", "Semaphore")
        ),
        *(
            Case(f"Lock wanted by {workers}", PAIR, functools.partial(wanted, workers), NOTHING)
            for workers in (2, 4)
        ),
        Case("Event", (Figure("set to awake", "us"),), event, NOTHING),
        Case("Semaphore", (Figure("release to awake", "us"),), semaphore, NOTHING),
        Case("Condition", (Figure("notify to awake", "us"),), condition, NOTHING),
    ),
)
