"""What every executor of processes promises, the standard library's as well as ours."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from procession.testing import pooled

pytestmark = pytest.mark.one_pair_per("method")
Make = Callable[..., Any]
SIGKILL = 9


@pytest.fixture
def kind(subject: str) -> Any:
    """The executor under test."""
    if subject == "multiprocessing":
        return concurrent.futures.ProcessPoolExecutor
    from procession.futures import ProcessPoolExecutor

    return ProcessPoolExecutor


@pytest.fixture
def make_executor(ctx: Any, kind: Any) -> Iterator[Make]:
    """Make executors; they are shut down after the test."""
    with ExitStack() as stack:

        def make(workers: int = 2, **options: Any) -> Any:
            executor = kind(workers, mp_context=ctx, **options)
            stack.callback(executor.shutdown, cancel_futures=True)
            return executor

        yield make


@pytest.fixture
def executor(make_executor: Make) -> Any:
    """An executor with two workers."""
    return make_executor()


class TestContract:
    """`concurrent.futures.Executor`."""

    def test_submit(self, executor: Any) -> None:
        """A call is made in another process; its future has what it returned or raised."""
        assert isinstance(executor, concurrent.futures.Executor)
        assert (1, 2) == executor.submit(pooled.keyword, 1, more=2).result(30)
        assert os.getpid() != executor.submit(pooled.pid).result(30)
        error: Any = executor.submit(pooled.fail, 3).exception(30)
        assert ("bad", 3) == error.args
        assert "in fail\n" in str(error.__cause__)

    @pytest.mark.parametrize("chunk_size", [1, 3])
    def test_map(self, executor: Any, chunk_size: int) -> None:
        """Results are in the order of the input, which ends with the shortest one."""
        squares = executor.map(pooled.square, range(20), chunksize=chunk_size)

        assert [number * number for number in range(20)] == list(squares)
        assert [1, 8] == list(executor.map(pow, [1, 2, 3], [5, 3], chunksize=chunk_size))
        assert [] == list(executor.map(pooled.same, []))

    def test_map_stops_at_an_exception(self, executor: Any) -> None:
        """What a call raises comes in its place, and ends the iterator."""
        results = executor.map(pooled.fail_if_odd, range(4))

        assert 0 == next(results)
        with pytest.raises(ValueError, match="odd"):
            next(results)
        assert [] == list(results)

    def test_map_in_time(self, executor: Any, tmp_path: Path) -> None:
        """`timeout` is for the whole of a map."""
        flag = str(tmp_path / "flag")
        results = executor.map(pooled.wait_for, [flag], timeout=0.05)
        with pytest.raises(TimeoutError):
            list(results)
        pooled.touch(flag)

    def test_wrong_arguments(self, executor: Any, kind: Any, ctx: Any) -> None:
        """What cannot be right is refused in the caller."""
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            kind(0, ctx)
        with pytest.raises(TypeError, match="initializer must be a callable"):
            kind(1, ctx, initializer=3)
        with pytest.raises(TypeError, match="max_tasks_per_child must be an integer"):
            kind(1, ctx, max_tasks_per_child="3")
        with pytest.raises(ValueError, match="max_tasks_per_child must be >= 1"):
            kind(1, ctx, max_tasks_per_child=0)
        with pytest.raises(ValueError, match="chunksize must be >= 1"):
            executor.map(pooled.same, [1], chunksize=0)

    def test_cancel(self, make_executor: Make, tmp_path: Path) -> None:
        """What waits can be cancelled, what runs cannot."""
        executor = make_executor(1)
        flags = [str(tmp_path / name) for name in ("begun", "go")]
        first = executor.submit(pooled.touch_and_wait, *flags)
        later = [executor.submit(pooled.same, number) for number in range(10)]
        pooled.wait_for(flags[0])

        assert not first.cancel()
        assert later[-1].cancel()
        pooled.touch(flags[1])
        assert list(range(9)) == [future.result(30) for future in later[:-1]]
        assert later[-1].cancelled()
        done, _ = concurrent.futures.wait(later, 30)
        assert set(later) == done

    def test_callbacks(self, executor: Any) -> None:
        """A callback of a future gets the future, and may submit."""
        told = threading.Event()
        more = []

        def callback(future: Any) -> None:
            more.append(executor.submit(pooled.square, future.result()))
            told.set()

        executor.submit(pooled.same, 3).add_done_callback(callback)
        assert told.wait(30)
        assert 9 == more[0].result(30)

    def test_initializer(self, make_executor: Make) -> None:
        """Each worker is initialized before it works."""
        executor = make_executor(2, initializer=pooled.initialize, initargs=("word",))

        assert [["word"]] * 8 == list(executor.map(pooled.initial, range(8)))

    def test_unpicklable(self, executor: Any) -> None:
        """What cannot be pickled fails its own call only."""
        assert executor.submit(lambda: None).exception(30) is not None
        assert executor.submit(pooled.unpicklable).exception(30) is not None
        assert 5 == executor.submit(pooled.same, 5).result(30)


class TestShutdown:
    """The end of an executor."""

    def test_everything_is_done(self, executor: Any) -> None:
        """`shutdown` waits for what was submitted; nothing can be submitted afterwards."""
        futures = [executor.submit(pooled.square, number) for number in range(50)]
        executor.shutdown()

        assert [number * number for number in range(50)] == [each.result(0) for each in futures]
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.submit(pooled.same, 1)
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.map(pooled.same, [1])

    def test_cancelling(self, make_executor: Make, tmp_path: Path) -> None:
        """`cancel_futures` drops what nobody has begun."""
        executor = make_executor(1)
        flags = [str(tmp_path / name) for name in ("begun", "go")]
        first = executor.submit(pooled.touch_and_wait, *flags)
        later = [executor.submit(pooled.same, number) for number in range(20)]
        pooled.wait_for(flags[0])
        executor.shutdown(wait=False, cancel_futures=True)
        pooled.touch(flags[1])

        assert flags[1] == first.result(30)
        concurrent.futures.wait(later, 30)
        assert later[-1].cancelled()

    def test_dropped(self, make_executor: Make, kind: Any, ctx: Any) -> None:
        """An executor that is dropped has its calls done."""
        executor = kind(1, ctx)
        futures = [executor.submit(pooled.same, number) for number in range(20)]
        del executor

        assert list(range(20)) == [future.result(30) for future in futures]


@pytest.mark.beyond("concurrent.futures breaks down as a whole")
class TestFailures:
    """Workers that die."""

    def test_one_call_and_no_other(self, executor: Any) -> None:
        """The call of a dead worker says who died; the executor goes on."""
        from procession.errors import WorkerDiedError

        list(executor.map(pooled.same, range(100)))
        futures = [executor.submit(pooled.die_if, number, 77) for number in range(200)]
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            futures[77].result(30)

        assert [n for n in range(200) if n != 77] == [
            future.result(30) for number, future in enumerate(futures) if number != 77
        ]

    def test_broken(self, make_executor: Make) -> None:
        """Workers that cannot begin break the executor, with the reason."""
        from procession.errors import BrokenPoolError
        from procession.futures import BrokenProcessPool

        executor = make_executor(2, initializer=pooled.fail_to_initialize)
        with pytest.raises(BrokenProcessPool, match="no such thing") as caught:
            executor.submit(pooled.same, 1).result(30)
        assert isinstance(caught.value.__cause__, BrokenPoolError)
        executor._crew.ended.wait(30)
        with pytest.raises(BrokenProcessPool, match="no such thing"):
            executor.submit(pooled.same, 1)

    def test_new_workers_after_some_calls(self, make_executor: Make) -> None:
        """No worker makes more than `max_tasks_per_child` calls, on any start method."""
        executor = make_executor(2, max_tasks_per_child=3)
        pids = list(executor.map(pooled.pid, range(20)))

        assert 3 >= max(pids.count(pid) for pid in pids)

    @pytest.mark.parametrize("endless", [True, False])
    def test_bounded_map(self, executor: Any, tmp_path: Path, endless: bool) -> None:
        """`buffersize` is how far a map reads ahead of what was taken out."""
        read = []

        def items() -> Iterator[int]:
            number = 0
            while endless or number < 10:
                read.append(number)
                yield number
                number += 1

        results = executor.map(pooled.same, items(), buffersize=4)
        assert 4 == len(read)
        assert 0 == next(results)
        assert 5 == len(read)
        if not endless:
            assert list(range(1, 10)) == list(results)
        results.close()


def test_exit_has_everything_done(pair: Any, ctx: Any, tmp_path: Path) -> None:
    """A program that ends with calls under way has them done first, and is silent."""
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import procession
from concurrent.futures import ProcessPoolExecutor
from procession.testing import pooled

if {pair.subject!r} == "procession":
    from procession.futures import ProcessPoolExecutor

if __name__ == "__main__":
    from procession.testing import payloads
    kept = ProcessPoolExecutor(2, payloads.context({pair.spec!r}))
    for number in range(20):
        kept.submit(pooled.sleep_and_record, {str(tmp_path / "journal")!r}, 0.02, number)
"""
    )
    (tmp_path / "journal").touch()
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (0, "") == (ended.returncode, ended.stderr)
    assert 20 * 8 == (tmp_path / "journal").stat().st_size


def test_in_asyncio(executor: Any) -> None:
    """`run_in_executor` takes it."""
    import asyncio

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(executor, pooled.square, 3)

    assert 9 == asyncio.run(main())
