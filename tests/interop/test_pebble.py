"""pebble: pools whose tasks have timeouts, with one pipe for all workers."""

from __future__ import annotations

import os
import sys
from concurrent.futures import TimeoutError
from pathlib import Path
from typing import Any

import pytest
from pebble import ProcessExpired, ProcessPool, concurrent

from procession.testing import clients
from procession.testing.forked import until

pytestmark = [
    pytest.mark.beyond("it takes the standard package's own contexts"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
    pytest.mark.filterwarnings("ignore:process .* forks while"),
]

DEADLINE = 30.0


def test_a_pool_computes(ctx: Any) -> None:
    """Workers share a pipe under our lock, and end by the standard package's exit function."""
    with ProcessPool(2, context=ctx, max_tasks=4) as pool:
        futures = [pool.schedule(clients.square, args=(number,)) for number in range(10)]
        assert [number**2 for number in range(10)] == [each.result(DEADLINE) for each in futures]
        with pytest.raises(ArithmeticError, match="wrong"):
            pool.schedule(clients.fail, args=("wrong",)).result(DEADLINE)


@pytest.mark.one_pair_per("method")
def test_a_killed_worker_and_a_slow_task_fail_alone(ctx: Any, tmp_path: Path) -> None:
    """The pool notices the death, ends what takes too long, and goes on."""
    if sys.platform == "win32":
        pytest.skip("no named pipes")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ProcessPool(1, context=ctx) as pool:
        killed = pool.schedule(clients.kill_me_when_told, args=(str(fifo),))
        until(killed.running)  # it would not know whose task it was, and say that it is broken
        fifo.write_text("", encoding="ascii")
        with pytest.raises(ProcessExpired) as raised:
            killed.result(DEADLINE)
        assert raised.value.exitcode == -9
        slow = pool.schedule(clients.hang, timeout=0.3)
        with pytest.raises(TimeoutError):
            slow.result(DEADLINE)
        assert pool.schedule(clients.square, args=(3,)).result(DEADLINE) == 9


@pytest.mark.one_pair_per("method")
def test_a_function_runs_in_a_process(ctx: Any) -> None:
    """The decorator takes a context, too."""
    run = concurrent.process(context=ctx)(clients.square)
    assert run(4).result(DEADLINE) == 16
