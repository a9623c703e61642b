"""What runs in children of tests of signals and of parents that die."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from procession.testing import payloads
from procession.testing.forked import sleeps, until

Spec = tuple[str, str, str]

_INTERVAL = 0.0005
_ROUNDS = 30
_ALARMS = 100
_LAST = b"last"


def work_under_alarms(report: Any, spec: Spec) -> None:
    """Do everything that blocks while a signal handler runs two thousand times a second.

    Until it has run a hundred times; then say how often it was.
    """
    if sys.platform == "win32":
        raise OSError("Windows has no interval timers")
    ctx = payloads.context(spec)
    alarms = 0

    def count(*_: Any) -> None:
        nonlocal alarms
        alarms += 1

    signal.signal(signal.SIGALRM, count)
    queue, bounded, joinable = ctx.Queue(), ctx.Queue(1), ctx.JoinableQueue()
    here, there = ctx.Pipe()
    helper = ctx.Process(target=answer_slowly, args=(os.getpid(), there, queue, bounded, joinable))
    signal.setitimer(signal.ITIMER_REAL, _INTERVAL, _INTERVAL)
    helper.start()
    there.close()
    number = 0
    while number < _ROUNDS or alarms < _ALARMS:
        here.send(bytes(300_000))
        assert here.recv() == bytes(300_000)
        assert queue.get() == number
        bounded.put(number)
        joinable.put(number)
        joinable.join()
        number += 1
    here.send(_LAST)
    assert here.poll(60)
    assert here.recv() == _LAST
    helper.join()
    assert helper.exitcode == 0
    signal.setitimer(signal.ITIMER_REAL, 0)
    for each in (here, queue, bounded, joinable):
        each.close()
    helper.close()
    report.send(alarms)


def answer_slowly(asker: int, connection: Any, queue: Any, bounded: Any, joinable: Any) -> None:
    """Be the other side of `work_under_alarms`: answer when process *asker* sleeps for it."""

    def let_it_wait() -> None:
        until(lambda: sleeps(asker))

    number = 0
    let_it_wait()
    while (message := connection.recv()) != _LAST:
        connection.send(message)
        let_it_wait()
        queue.put(number)
        let_it_wait()
        bounded.get()
        joinable.get()
        let_it_wait()
        joinable.task_done()
        number += 1
        let_it_wait()
    connection.send(_LAST)
    let_it_wait()


def start_for_ever(report: Any, spec: Spec) -> None:
    """Start daemonic children that block, one after the other, and say so of each."""
    ctx = payloads.context(spec)
    targets = (payloads.hold_for_ever, sleep_in_c, payloads.compute_for_ever)
    children = []
    for number in range(1000):
        child = ctx.Process(target=targets[number % len(targets)], daemon=True)
        child.start()
        children.append(child)
        report.send(child.pid)


def sleep_in_c() -> None:
    """Block in the C library, where no Python code runs and no signal handler of Python."""
    import ctypes

    ctypes.CDLL(None).sleep(1000)


def start_one_that_watches(report: Any, spec: Spec) -> None:
    """Start a child that is no daemon and waits for the end of this process, and live on."""
    ctx = payloads.context(spec)
    child = ctx.Process(target=report_end_of_parent, args=(report,), daemon=False)
    child.start()
    payloads.hold_for_ever()


def report_end_of_parent(report: Any) -> None:
    """Say who we are, wait for the parent's end, and say that it has come."""
    import procession
    from procession.connection import wait

    parent = procession.parent_process()
    assert parent is not None
    report.send(os.getpid())
    sentinel = getattr(parent, "sentinel", -1)
    assert wait([sentinel], 60) == [sentinel]
    report.send("the parent has ended")


def be_a_deep_tree(report: Any, spec: Spec, depth: int) -> None:
    """Start a child that does the same, *depth* levels of them; report every pid."""
    report.send(os.getpid())
    if depth:
        ctx = payloads.context(spec)
        child = ctx.Process(target=be_a_deep_tree, args=(report, spec, depth - 1), daemon=False)
        child.start()
    payloads.hold_for_ever()


def fork_for_ever(report: Any) -> None:
    """Say that it begins, and fork thirty generations, each with a child that stays."""
    if sys.platform == "win32":
        raise OSError("there is no fork on Windows")
    report.send("begins")
    for _ in range(30):
        if os.fork():
            break  # the child goes on in our place
        if os.fork() == 0:
            break
    payloads.hold_for_ever()
