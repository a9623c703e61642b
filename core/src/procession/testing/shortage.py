"""What runs in children of tests of resources that run out."""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count as numbers
from typing import Any

from procession._starting import launch
from procession.errors import ResourceError
from procession.testing import leaks, payloads

assert sys.platform == "linux", "limits are set and looked up as Linux does"

# An operation that has succeeded so often with few descriptors does with more of them.
_ENOUGH = 3


@contextmanager
def limited(number: int, soft: int) -> Iterator[None]:
    """Set a resource limit of this process for a while."""
    before = resource.getrlimit(number)
    resource.setrlimit(number, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(number, before)


@contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """Leave this process *count* descriptors that it can still open."""
    fillers: list[int] = []
    highest = max(leaks.descriptors()) + 1
    with limited(resource.RLIMIT_NOFILE, highest + count):
        try:
            _fill_holes(fillers, highest)
            yield
        finally:
            for fd in fillers:
                os.close(fd)


def _fill_holes(fillers: list[int], highest: int) -> None:
    """Open descriptors as long as their numbers are below *highest*."""
    while True:
        try:
            fd = os.dup(0)
        except OSError:  # all below are open, and none above may be
            return
        if fd >= highest:
            os.close(fd)
            return
        fillers.append(fd)


def fill_directory(directory: str) -> str:
    """Make files in *directory* until there is no room for another; return one of them."""
    for number in numbers():
        try:
            open(os.path.join(directory, f"filler-{number}"), "wb").close()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            break
    return os.path.join(directory, "filler-0")


def start_and_join(ctx: Any) -> None:
    """Start a process and join it."""
    process = ctx.Process(target=payloads.nothing)
    process.start()
    process.join()
    code = process.exitcode
    process.close()
    assert code == 0, code


def make_pipe(ctx: Any) -> None:
    """Make a pipe and send something through it."""
    here, there = ctx.Pipe()
    with here, there:
        here.send(1)
        assert there.recv() == 1


def use_queue(ctx: Any) -> None:
    """Make a queue and put something through it."""
    queue = ctx.JoinableQueue(2)
    try:
        queue.put(1)
        assert queue.get() == 1
    finally:
        queue.close()


def use_locks(ctx: Any) -> None:
    """Make one of each kind of lock."""
    for name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"):
        with getattr(ctx, name)():
            pass
    ctx.Event().set()
    ctx.Barrier(1)


def use_pool(ctx: Any) -> None:
    """Make, use and end a pool."""
    with ctx.Pool(1) as pool:
        assert [1, 2] == pool.map(abs, [-1, -2])
    pool.join()


def try_with_few_descriptors(report: Any, spec: tuple[str, str, str], most: int) -> None:
    """Try everything with 0 to *most* free descriptors, and once more with enough of them.

    Sends for each operation how often it failed, the last message, and what is left open.
    """
    ctx = payloads.context(spec)
    for operation in (start_and_join, make_pipe, use_queue, use_locks, use_pool):
        operation(ctx)  # loads what it needs
        before = leaks.descriptors()
        failures, message, successes = 0, "", 0
        for count in range(most + 1):
            with free_descriptors(count):
                try:
                    operation(ctx)
                except ResourceError as error:
                    failures, message = failures + 1, str(error)
                else:
                    successes += 1
            if successes >= _ENOUGH:
                break
        operation(ctx)
        after = leaks.descriptors()
        more = len(after) - len(before)
        report.send((operation.__name__, failures, message, more))


def try_as_crowded_user(report: Any, spec: tuple[str, str, str], uid: int) -> None:
    """Become user *uid*, who may have no more processes, and try to start one."""
    ctx = payloads.context(spec)
    start_and_join(ctx)
    launch.methods.close()  # a fork server of the time before would not be this user's
    os.setresuid(uid, uid, 0)
    report.send(_result_under(resource.RLIMIT_NPROC, 0, lambda: start_and_join(ctx)))
    os.setresuid(0, 0, 0)
    start_and_join(ctx)
    report.send("again")


def try_with_little_memory(report: Any, spec: tuple[str, str, str]) -> None:
    """Try to put and to receive what the address space has no room for, and go on."""
    ctx = payloads.context(spec)
    queue = ctx.Queue()
    queue.put(bytes(100))
    assert queue.get() == bytes(100)
    with open("/proc/self/statm", encoding="ascii") as file:
        in_use = int(file.read().split()[0]) * resource.getpagesize()
    big = bytes(64 << 20)
    queue.put(big)

    def receive() -> None:
        queue.get()

    report.send(_result_under(resource.RLIMIT_AS, in_use + (80 << 20), receive))
    assert len(queue.get()) == len(big)
    queue.put("small")
    assert queue.get() == "small"
    queue.close()
    report.send("again")


def try_to_start_with_little_memory(report: Any, spec: tuple[str, str, str]) -> None:
    """Try to start a process where the address space has room for hardly anything, and go on."""
    ctx = payloads.context(spec)
    start_and_join(ctx)
    with open("/proc/self/statm", encoding="ascii") as file:
        in_use = int(file.read().split()[0]) * resource.getpagesize()
    report.send(
        [
            _result_under(resource.RLIMIT_AS, in_use + more, lambda: start_and_join(ctx))
            for more in (0, 1 << 14, 1 << 16, 1 << 20)
        ]
    )
    start_and_join(ctx)
    report.send("again")


def try_with_small_files(report: Any, spec: tuple[str, str, str]) -> None:
    """Put what the limit on the size of files allows, and what it does not."""
    with limited(resource.RLIMIT_FSIZE, 16 << 20):
        ctx = payloads.context(spec)
        queue = ctx.Queue()
        queue.put(bytes(4 << 20))
        assert len(queue.get()) == 4 << 20
        report.send(_result(lambda: queue.put(bytes(32 << 20))))
        queue.put(bytes(4 << 20))
        assert len(queue.get()) == 4 << 20
    queue.close()
    report.send("again")


def _result_under(number: int, soft: int, operation: Callable[[], object]) -> tuple[str, str]:
    with limited(number, soft):
        return _result(operation)


def _result(operation: Callable[[], object]) -> tuple[str, str]:
    try:
        operation()
    except Exception as error:
        return type(error).__name__, str(error)
    return "nothing", ""
