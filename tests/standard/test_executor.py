"""`concurrent.futures.ProcessPoolExecutor` with a context of ours, or the package itself."""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

import procession
from procession.testing import payloads, standard

pytestmark = [
    pytest.mark.beyond("the executor is the standard package's own"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
    pytest.mark.filterwarnings("ignore:process .* forks while"),
]
per_method = pytest.mark.one_pair_per("method")

DEADLINE = 30.0


def test_it_maps(ctx: Any) -> None:
    """On every start method and transport; workers have names and are who they are."""
    with ProcessPoolExecutor(2, mp_context=ctx) as executor:
        assert [1, 1, 4, 27] == list(executor.map(pow, range(4), range(4), timeout=DEADLINE))
        pid, name = executor.submit(standard.pid_and_name).result(DEADLINE)
        assert pid != os.getpid()
        assert "Process-" in name
        large = b"x" * 300_000
        assert large == executor.submit(bytes, large).result(DEADLINE)


@per_method
def test_an_exception_comes_back(ctx: Any) -> None:
    """With its class and text; the pool goes on."""
    with ProcessPoolExecutor(1, mp_context=ctx) as executor:
        with pytest.raises(ArithmeticError, match="wrong"):
            executor.submit(standard.raise_error, "wrong").result(DEADLINE)
        assert executor.submit(abs, -1).result(DEADLINE) == 1


@per_method
def test_workers_are_initialized_with_a_standard_lock(ctx: Any, pair: Any) -> None:
    """As tqdm does it: the lock is an argument of each worker."""
    theirs = multiprocessing.get_context("fork" if pair.method == "fork" else "spawn")
    options: Any = {"initializer": standard.initialize, "initargs": (theirs.RLock(), "text")}
    with ProcessPoolExecutor(2, mp_context=ctx, **options) as executor:
        found = list(executor.map(standard.what_was_initialized, range(3), timeout=DEADLINE))
    assert [(0, ["text"]), (1, ["text"]), (2, ["text"])] == found


@per_method
def test_a_killed_worker_breaks_it(ctx: Any) -> None:
    """All that waits fails with BrokenProcessPool, and shutting down does not hang."""
    barrier = ctx.Barrier(2)
    with ProcessPoolExecutor(2, mp_context=ctx) as executor:
        # Both workers run before one dies: up to 3.12 the executor forgets to end one that is
        # started meanwhile.
        for future in [executor.submit(standard.meet, barrier) for _ in range(2)]:
            future.result(DEADLINE)
        futures = [
            executor.submit(function) for function in (payloads.hold_for_ever, standard.kill_me)
        ]
        for future in futures:
            with pytest.raises(BrokenProcessPool):
                future.result(DEADLINE)
        with pytest.raises(BrokenProcessPool):
            executor.submit(abs, -1)


def compute_for_ever(executor: ProcessPoolExecutor) -> None:
    """Give it one task after the other."""
    while True:
        assert executor.submit(abs, -1).result(DEADLINE) == 1


@per_method
def test_an_idle_worker_that_is_killed_breaks_it(ctx: Any) -> None:
    """It waits with the lock of the queue in its hand, which nobody has to give back."""
    with ProcessPoolExecutor(2, mp_context=ctx) as executor:
        pid, _ = executor.submit(standard.pid_and_name).result(DEADLINE)
        os.kill(pid, 9)
        with pytest.raises(BrokenProcessPool):
            compute_for_ever(executor)


@per_method
def test_workers_can_be_replaced_by_others(ctx: Any, pair: Any) -> None:
    """`max_tasks_per_child` starts new ones, where the executor allows it."""
    if pair.method == "fork":
        with pytest.raises(ValueError, match="max_tasks_per_child"):
            ProcessPoolExecutor(1, mp_context=ctx, max_tasks_per_child=1)
        return
    with ProcessPoolExecutor(1, mp_context=ctx, max_tasks_per_child=1) as executor:
        found = {executor.submit(standard.pid_and_name).result(DEADLINE)[0] for _ in range(3)}
    assert len(found) == 3


def test_the_package_is_a_context_too() -> None:
    """Where a client takes a module for a context."""
    package: Any = procession
    with ProcessPoolExecutor(1, mp_context=package) as executor:
        assert executor.submit(abs, -1).result(DEADLINE) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="children are killed by a signal")
@per_method
def test_contexts_pass_for_standard_ones(ctx: Any) -> None:
    """Libraries that insist on the class, such as PyTorch, accept ours."""
    assert isinstance(ctx, multiprocessing.context.BaseContext)
    assert isinstance(procession.get_context(), multiprocessing.context.BaseContext)
    assert type(ctx).__name__ == ctx.__class__.__name__
    assert isinstance(ctx, type(ctx))
