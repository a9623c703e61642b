"""Pools whose workers, initializers, results and exceptions fail: an outcome, never a hang."""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procession._pools import warden
from procession._pools.desk import BEGUN
from procession.errors import (
    BrokenPoolError,
    MaybeEncodingError,
    TaskCancelledError,
    TaskTimeoutError,
    WorkerDiedError,
)
from procession.testing import pooled

Make = Callable[..., Any]
SIGKILL = 9
pytestmark = [
    pytest.mark.one_pair_per("method"),
    pytest.mark.beyond("multiprocessing's pools hang instead"),
]


def _await(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class TestDeadWorkers:
    """A worker that dies takes one task along, and is replaced."""

    def test_killed(self, pool: Any) -> None:
        """The task of a killed worker says who died, of what, at what."""
        with pytest.raises(WorkerDiedError, match="SIGKILL") as caught:
            pool.apply(pooled.die)
        error = caught.value
        assert error.failure is not None

        assert -9 == error.exitcode == error.failure.exitcode
        assert error.pid == error.failure.pid
        assert "die()" == error.task
        assert "die()" in str(error)
        assert "SIGKILL" in str(pickle.loads(pickle.dumps(error)).failure)
        assert [1, 2, 3] == pool.map(pooled.same, [1, 2, 3])

    @pytest.mark.parametrize(("how", "code"), [("exit", 3), ("quietly", 0), ("os", 7)])
    def test_exited(self, pool: Any, how: str, code: int) -> None:
        """Leaving the process is dying, also with exit code 0."""
        with pytest.raises(WorkerDiedError) as caught:
            pool.apply(pooled.die, (how,))

        assert code == caught.value.exitcode
        assert (code == 0) == (caught.value.failure is None)

    def test_one_task_and_no_other(self, pool: Any) -> None:
        """Of many tasks given out ahead exactly the one that killed its worker fails."""
        pool.map(pooled.same, range(300), chunksize=1)  # known to be quick: given out ahead
        results = [pool.apply_async(pooled.die_if, (number, 77)) for number in range(300)]
        outcomes = []
        for result in results:
            try:
                outcomes.append(result.get(30))
            except WorkerDiedError:
                outcomes.append(None)

        assert [None if number == 77 else number for number in range(300)] == outcomes

    def test_imap(self, pool: Any) -> None:
        """An iterator raises in the place of the task, and goes on."""
        import functools

        results = pool.imap(functools.partial(pooled.die_if, fatal=3), range(6))
        found = []
        for _ in range(6):
            try:
                found.append(next(results))
            except WorkerDiedError:
                found.append(-1)

        assert [0, 1, 2, -1, 4, 5] == found

    def test_deadly_arguments(self, pool: Any) -> None:
        """Arguments that kill whoever unpickles them are a task's, too."""
        with pytest.raises(WorkerDiedError):
            pool.apply(pooled.same, (pooled.Trap(),))

    def test_killed_while_idle(self, pool: Any) -> None:
        """A worker that is killed with nothing to do is replaced in silence."""
        for _ in range(3):
            os.kill(pool.apply(pooled.pid), SIGKILL)

            assert [0, 1, 4] == pool.map(pooled.square, range(3))

    def test_retries(self, pool: Any, tmp_path: Any) -> None:
        """A task that may be repeated is, as often as it was allowed to."""
        flag = str(tmp_path / "flag")

        assert 5 == pool.apply(pooled.die_once, (flag, 5), retries=1)
        with pytest.raises(WorkerDiedError):
            pool.apply(pooled.die, retries=2)

    def test_killed_with_a_lock(self, ctx: Any, make: Make) -> None:
        """A lock in the hand of a dead worker does not stop the pool."""
        pool = make(2, pooled.keep_lock, (ctx.Lock(),))
        result = pool.apply_async(pooled.die_with_lock)

        with pytest.raises(WorkerDiedError):
            result.get(30)
        assert 1 == pool.apply(pooled.same, (1,))

    def test_killed_within_a_long_message(self, pool: Any) -> None:
        """A worker that is killed while it sends a result is one that has died."""
        for _ in range(3):
            result = pool.apply_async(pooled.long_bytes, (64 << 20,))
            victims: list[int] = []
            while not result.ready() and not (victims := _senders(pool)):
                pass
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, SIGKILL)
            try:
                assert 64 << 20 == len(result.get(30))
            except WorkerDiedError:
                continue
        assert 1 == pool.apply(pooled.same, (1,))


def _senders(pool: Any) -> list[int]:
    """Which workers have the 64 MiB in their memory."""
    found = []
    for member in list(pool._crew.members):
        try:
            pages = int(Path(f"/proc/{member.pid}/statm").read_text().split()[1])
        except FileNotFoundError:
            continue  # it is collected just now
        if pages * 4096 > 60 << 20:
            found.append(member.pid)
    return found


class TestInitializers:
    """A pool that cannot begin stops, with the reason."""

    def test_failing(self, ctx: Any) -> None:
        """The exception of the initializer is the cause of every outcome."""
        with ctx.Pool(2, pooled.fail_to_initialize) as pool:
            with pytest.raises(BrokenPoolError, match="no such thing") as caught:
                pool.apply_async(pooled.same, (1,)).get(30)
            assert isinstance(caught.value.__cause__, LookupError)
            pool.join()
            with pytest.raises(BrokenPoolError, match="no such thing"):
                pool.map(pooled.same, [1])

    def test_entering_one_that_has_stopped(self, ctx: Any) -> None:
        """Whether workers fail before or after the first line of a block makes no difference."""
        pool = ctx.Pool(1, pooled.fail_to_initialize)
        with pytest.raises(BrokenPoolError, match="no such thing"):
            pool.apply(pooled.same, (1,))
        pool.join()
        with pool, pytest.raises(BrokenPoolError, match="no such thing"):
            pool.apply(pooled.same, (1,))

    def test_dying(self, ctx: Any) -> None:
        """Workers that die before they are ready are not replaced for ever."""
        with ctx.Pool(1, pooled.die_while_initializing) as pool:
            result = pool.apply_async(pooled.same, (1,))
            with pytest.raises(BrokenPoolError, match="exit code 9") as caught:
                result.get(50)
            assert caught.value.failure is not None
            assert 9 == caught.value.failure.exitcode

    def test_threads(self, library: Any) -> None:
        """The same holds for threads."""
        from procession.pool import ThreadPool

        pool = ThreadPool(2, pooled.fail_to_initialize)
        with pytest.raises(BrokenPoolError, match="no such thing"):
            pool.apply(pooled.same, (1,))
        pool.join()


class TestStopIteration:
    """It is an exception like others, and never the end of what there is."""

    def test_map(self, pool: Any) -> None:
        """The results are not fewer than the items: the exception is raised."""
        for call in (pool.map, pool.starmap):
            with pytest.raises(StopIteration, match="no more"):
                call(pooled.stop_iteration, [(1,), (2,), (3,)])

    @pytest.mark.parametrize("size", [1, 2])
    def test_imap(self, pool: Any, size: int) -> None:
        """An iterator does not end by it, but raises an error that it is the cause of."""
        for call in (pool.imap, pool.imap_unordered):
            results = call(pooled.stop_iteration, range(4), size)
            with pytest.raises(RuntimeError, match="has raised StopIteration") as caught:
                next(results)
            assert "no more" == str(caught.value.__cause__)


class TestWhatCannotTravel:
    """Results and exceptions that cannot be pickled or unpickled are described."""

    def test_exception_that_cannot_be_unpickled(self, pool: Any) -> None:
        """It is described, with its traceback, and hangs nobody."""
        with pytest.raises(MaybeEncodingError, match="1 and 2") as caught:
            pool.apply(pooled.raise_stubborn)

        assert "in raise_stubborn\n" in str(caught.value.__cause__)
        assert 1 == pool.apply(pooled.same, (1,))

    def test_result_that_cannot_be_unpickled(self, pool: Any) -> None:
        """So is a result, with what unpickling has raised as the cause."""
        with pytest.raises(MaybeEncodingError, match="not here") as caught:
            pool.apply(pooled.bomb)

        assert isinstance(caught.value.__cause__, LookupError)
        assert 1 == pool.apply(pooled.same, (1,))

    def test_exception_that_cannot_be_pickled(self, pool: Any) -> None:
        """So is one that cannot even be pickled."""
        with pytest.raises(MaybeEncodingError, match="secret") as caught:
            pool.apply(pooled.raise_unsendable)

        assert "not this one" in str(caught.value)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert str(copy) == str(caught.value)


class TestTimeouts:
    """Tasks that take too long, and tasks that are not wanted any more."""

    def test_timeout(self, pool: Any) -> None:
        """The worker is killed and replaced; the others are not affected."""
        slow = pool.apply_async(pooled.hang, timeout=0.3)

        assert [0, 1, 4] == pool.map(pooled.square, range(3))
        with pytest.raises(TaskTimeoutError, match=r"hang\(\) was not done after 0.3 s"):
            slow.get(30)
        assert [1, 2] == pool.map(pooled.same, [1, 2], timeout=30)

    def test_cancel_what_runs(self, pool: Any, tmp_path: Any) -> None:
        """A running task is cancelled by killing its worker."""
        flag = tmp_path / "flag"
        result = pool.apply_async(pooled.begin_and_hang, (str(flag),))
        _await(flag)

        assert result.cancel()
        with pytest.raises(TaskCancelledError):
            result.get(30)
        assert not result.cancel()
        assert [1, 2] == pool.map(pooled.same, [1, 2])

    def test_cancel_what_waits(self, make: Make, tmp_path: Any) -> None:
        """A waiting task is dropped, and nobody is killed for it."""
        pool = make(1)
        flag = str(tmp_path / "flag")
        first = pool.apply_async(pooled.wait_for, (flag,))
        second = pool.map_async(pooled.touch, [str(tmp_path / "never")] * 3, 1)

        assert second.cancel()
        with pytest.raises(TaskCancelledError):
            second.get(30)
        pooled.touch(flag)
        assert flag == first.get(30)
        assert not (tmp_path / "never").exists()

    def test_cancel_what_is_just_begun(
        self, make: Make, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A task that its worker has begun before it could be recalled is ended, too."""
        monkeypatch.setattr(warden, "_RECALL_SECONDS", 60)
        flag = str(tmp_path / "flag")
        pool = make(1)
        pool.map(pooled.same, range(300), chunksize=1)  # known to be quick: given out ahead
        (member,) = pool._crew.members
        results = [pool.apply_async(pooled.wait_for, (flag,)), pool.apply_async(pooled.hang)]
        results += [pool.apply_async(pooled.same, (number,)) for number in range(40)]
        deadline = time.monotonic() + 30
        while len(member.outstanding) < 2:
            assert time.monotonic() < deadline
        recall = member.recall

        def recall_late() -> None:
            # In the pool's thread, once.
            monkeypatch.setattr(member, "recall", recall)
            number = member.answered + 2
            pooled.touch(flag)
            while member._desk.words[BEGUN] < number:
                assert time.monotonic() < deadline
            recall()

        monkeypatch.setattr(member, "recall", recall_late)
        assert results[1].cancel()
        with pytest.raises(TaskCancelledError):
            results[1].get(30)
        assert [flag, *range(40)] == [result.get(30) for result in results if result != results[1]]

    def test_cancel_hits_nobody_else(self, pool: Any) -> None:
        """Cancelling quick tasks in a crowd leaves every other one done."""
        pool.map(pooled.same, range(300), chunksize=1)
        results = [pool.apply_async(pooled.same, (number,)) for number in range(400)]
        unwanted = {id(result) for result in results[::40] if result.cancel()}
        for number, result in enumerate(results):
            if id(result) in unwanted:
                result.wait(30)
                assert result.ready()
            else:
                assert number == result.get(30)

    def test_wrong_options(self, pool: Any) -> None:
        """Times and numbers that make no sense are refused."""
        with pytest.raises(ValueError, match="timeout must be"):
            pool.apply(pooled.same, (1,), timeout=0)
        with pytest.raises(ValueError, match="retries must be"):
            pool.apply(pooled.same, (1,), retries=-1)
        with pytest.raises(ValueError, match="buffersize must be"):
            pool.imap(pooled.same, [1], buffersize=0)
        with pytest.raises(TypeError, match="'progress' is no option of this method"):
            pool.apply(pooled.same, (1,), progress=True)
        with pytest.raises(TypeError, match=r"'retry' is no option .* timeout and retries"):
            pool.map(pooled.same, [1], retry=1)
        with pytest.raises(TypeError, match=r"chunksize must be an int of 1 or more, not 1\.5"):
            pool.map(pooled.same, [1], 1.5)


class TestRecycling:
    """New workers for old ones."""

    def test_by_age(self, make: Make) -> None:
        """A worker that is old enough is replaced when it has nothing to do."""
        pool = make(1, max_age=0.2)
        first = pool.apply(pooled.pid)
        deadline = time.monotonic() + 30
        while pool.apply(pooled.pid) == first:
            assert time.monotonic() < deadline

    def test_by_memory(self, make: Make) -> None:
        """So is one that has become too large."""
        pool = make(1, max_rss=1)
        assert 3 == len(set(pool.map(pooled.pid, range(3), chunksize=1)))


class TestStreams:
    """How far imap reads ahead."""

    @pytest.mark.parametrize("at_hand", [True, False])
    def test_bounded(self, pool: Any, tmp_path: Any, at_hand: bool) -> None:
        """No more than the buffer is done before anybody takes results out."""
        journal = tmp_path / "journal"
        journal.touch()
        import functools

        record = functools.partial(pooled.record, str(journal))
        items: Any = list(range(100))
        results = pool.imap(record, items if at_hand else iter(items), buffersize=4)
        first = next(results)
        pool.map(pooled.same, range(10), chunksize=1)

        assert 0 == first
        assert 5 * 8 >= journal.stat().st_size
        pool.close()
        pool.join()
        assert 100 * 8 == journal.stat().st_size
        assert list(range(1, 100)) == list(results)

    def test_callback_must_not_wait(self, pool: Any) -> None:
        """A callback that waits for its own pool is told so, instead of waiting for ever."""
        told: list[Any] = []

        def callback(_: Any) -> None:
            try:
                pool.apply(pooled.same, (1,))
            except RuntimeError as error:
                told.append(str(error))

        pool.apply_async(pooled.same, (1,), callback=callback).wait()
        pool.close()
        pool.join()
        assert "callback" in told[0]


class TestArrays:
    """Large arrays travel beside the pickle."""

    def test_both_ways(self, pool: Any) -> None:
        """Arrays as arguments and results, more at once than any pipe holds."""
        np = pytest.importorskip("numpy")
        array = np.ones(2 << 20, np.uint8)

        assert [2 << 20] * 6 == pool.map(pooled.total, [array] * 6, chunksize=1)
        assert [2 << 20] * 6 == [
            each.nbytes for each in pool.map(pooled.zeros, [2 << 20] * 6, chunksize=1)
        ]


def test_nested(pair: Any, pool: Any) -> None:
    """A worker may use a pool of its own."""
    assert [[0, 1, 4]] * 2 == pool.starmap(pooled.nested, [(pair.spec, 3)] * 2)
