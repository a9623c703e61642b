"""What every pool promises, multiprocessing's as well as ours."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from procession.testing import pooled

Make = Callable[..., Any]
pytestmark = pytest.mark.one_pair_per("method")


@pytest.fixture
def module(subject: str) -> Any:
    """The module ``pool`` of the package under test."""
    return importlib.import_module(f"{subject}.pool")


class TestCalls:
    """apply, map and their relatives."""

    def test_apply(self, pool: Any) -> None:
        """A call is made in another process, with positional and keyword arguments."""
        assert (1, 2) == pool.apply(pooled.keyword, (1,), {"more": 2})
        assert os.getpid() != pool.apply(pooled.pid)

    def test_map_keeps_the_order(self, pool: Any) -> None:
        """Results are in the order of the input, whatever the chunks."""
        expected = [number * number for number in range(50)]

        assert expected == pool.map(pooled.square, range(50))
        assert expected == pool.map(pooled.square, iter(range(50)), chunksize=7)
        assert expected == pool.map_async(pooled.square, list(range(50)), 1).get()
        assert [] == pool.map(pooled.square, [])

    def test_starmap(self, pool: Any) -> None:
        """Each item is the arguments of a call."""
        assert [1, 8] == pool.starmap(pow, [(1, 2), (2, 3)])
        assert [9] == pool.starmap_async(pow, iter([(3, 2)])).get()

    @pytest.mark.parametrize("chunk_size", [1, 3])
    def test_imap(self, pool: Any, chunk_size: int) -> None:
        """Results come one by one, in order, or as they come."""
        expected = [number * number for number in range(200)]

        assert expected == list(pool.imap(pooled.square, iter(range(200)), chunk_size))
        assert expected == list(pool.imap(pooled.square, range(200), chunk_size))
        assert expected == sorted(pool.imap_unordered(pooled.square, range(200), chunk_size))

    def test_large_both_ways(self, pool: Any) -> None:
        """Large arguments are sent while large results come: nobody waits for anybody."""
        sizes = [3 << 20] * 8

        found = pool.starmap(pooled.keyword, [(b"y" * size,) for size in sizes], chunksize=1)

        assert sizes == [len(value) for value, _ in found]

    def test_state_of_methods(self, pool: Any) -> None:
        """A bound method travels with the state that its object has at the call."""
        counter = pooled.Counter()
        found = []
        for value in range(3):
            counter.value = value
            found.append(pool.apply(counter.get))

        assert [0, 1, 2] == found

    def test_tasks_depend_on_each_other(self, pool: Any, tmp_path: Any) -> None:
        """A task that waits for a later one does not keep it from being done."""
        pool.map(pooled.same, range(300), chunksize=1)  # known to be quick
        flag = str(tmp_path / "flag")
        quick = [pool.apply_async(pooled.same, (number,)) for number in range(100)]
        waits = pool.apply_async(pooled.wait_for, (flag,))
        later = [pool.apply_async(pooled.same, (number,)) for number in range(100)]
        touch = pool.apply_async(pooled.touch, (flag,))

        assert flag == touch.get(20) == waits.get(20)
        assert list(range(100)) * 2 == [result.get(20) for result in quick + later]


class TestResults:
    """AsyncResult, its callbacks, and iterators."""

    def test_states(self, pool: Any, library: Any, tmp_path: Any) -> None:
        """A result says whether it is there; asking too early is an error."""
        flag = str(tmp_path / "flag")
        result = pool.apply_async(pooled.wait_for, (flag,))

        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        with pytest.raises(library.TimeoutError):
            result.get(timeout=0.01)
        assert result.wait(0.01) is None
        pooled.touch(flag)
        assert flag == result.get()
        assert result.ready()
        assert result.successful()

    def test_callbacks(self, pool: Any) -> None:
        """Each outcome calls one of the callbacks, once."""
        called: list[Any] = []
        both = {
            "callback": called.append,
            "error_callback": lambda error: called.append(error.args),
        }

        pool.apply_async(pooled.same, (1,), **both).wait()
        pool.apply_async(pooled.fail, (2,), **both).wait()
        pool.map_async(pooled.same, [3, 4], **both).wait()
        pool.close()
        pool.join()

        assert [1, ("bad", 2), [3, 4]] == called

    def test_callback_comes_first(self, pool: Any) -> None:
        """Whoever has waited for a result finds what the callback has done."""
        go_on = threading.Event()
        found: list[bool] = []

        def called(_: object) -> None:
            go_on.wait(20)
            found.append(result.ready())

        result = pool.apply_async(pooled.same, (1,), callback=called)
        go_on.set()
        result.wait(20)

        assert [False] == found
        assert result.ready()

    def test_exceptions(self, pool: Any) -> None:
        """An exception is raised here, with the worker's traceback as its cause."""
        with pytest.raises(ValueError, match="bad") as caught:
            pool.apply(pooled.fail, (1,))

        assert ("bad", 1) == caught.value.args
        assert "RemoteTraceback" == type(caught.value.__cause__).__name__
        assert "in fail\n" in str(caught.value.__cause__)

    def test_map_fails_as_a_whole(self, pool: Any) -> None:
        """A map raises what one of its calls did; the pool goes on."""
        with pytest.raises(ValueError, match="odd"):
            pool.map(pooled.fail_if_odd, range(10), chunksize=1)

        assert [2] == pool.map(pooled.same, [2])

    def test_imap_goes_on(self, pool: Any) -> None:
        """An iterator raises in the place of the call that did, and goes on."""
        results = pool.imap(pooled.fail_if_odd, range(4))
        found: list[Any] = []
        for _ in range(4):
            try:
                found.append(next(results))
            except ValueError as error:
                found.append(error.args)

        assert [0, ("odd", 1), 2, ("odd", 3)] == found
        with pytest.raises(StopIteration):
            next(results)

    def test_next_with_timeout(self, pool: Any, library: Any, tmp_path: Any) -> None:
        """`next` of an iterator waits only so long."""
        flag = str(tmp_path / "flag")
        results = pool.imap(pooled.wait_for, [flag])

        with pytest.raises(library.TimeoutError):
            results.next(timeout=0.01)
        pooled.touch(flag)
        assert flag == results.next(timeout=20)

    def test_failing_input(self, pool: Any) -> None:
        """What the input raises comes after the results of what it gave before."""

        def items() -> Iterator[int]:
            yield 1
            raise KeyError("gone")

        results = pool.imap(pooled.same, items())
        assert 1 == next(results)
        with pytest.raises(KeyError, match="gone"):
            next(results)
        with pytest.raises(KeyError, match="gone"):
            pool.map(pooled.same, items())

    def test_unpicklable(self, pool: Any, module: Any) -> None:
        """What cannot be pickled is an error of its own task."""
        with pytest.raises(module.MaybeEncodingError, match="Error sending result"):
            pool.apply(pooled.unpicklable)
        with pytest.raises((AttributeError, pickle.PicklingError)):
            pool.apply(lambda: None)
        with pytest.raises((AttributeError, pickle.PicklingError)):
            pool.map(pooled.same, [1, lambda: None, 3], chunksize=1)
        assert 5 == pool.apply(pooled.same, (5,))


class TestLife:
    """From the constructor to the end."""

    def test_wrong_arguments(self, ctx: Any, pool: Any) -> None:
        """What cannot be right is refused in the caller."""
        with pytest.raises(ValueError, match="Number of processes must be at least 1"):
            ctx.Pool(0)
        with pytest.raises(TypeError, match="initializer must be a callable"):
            ctx.Pool(1, initializer=3)
        with pytest.raises(ValueError, match="maxtasksperchild must be a positive int or None"):
            ctx.Pool(1, maxtasksperchild=0)
        for method in (pool.imap, pool.imap_unordered):
            with pytest.raises(ValueError, match=r"Chunksize must be 1\+, not 0"):
                method(pooled.same, [1], 0)

    def test_initializer(self, make: Make) -> None:
        """Every worker is initialized once, before its first task."""
        pool = make(2, pooled.initialize, ("word",))

        assert [["word"]] * 8 == pool.map(pooled.initial, range(8), chunksize=1)

    def test_new_workers_after_some_tasks(self, make: Make) -> None:
        """No worker does more than `maxtasksperchild` tasks."""
        pids = make(2, maxtasksperchild=3).map(pooled.pid, range(20), chunksize=1)

        assert 3 >= max(pids.count(pid) for pid in pids)

    def test_closed(self, make: Make) -> None:
        """A closed pool does what it was given and takes no more."""
        pool = make()
        with pytest.raises(ValueError, match="Pool is still running"):
            pool.join()
        results = pool.imap(pooled.square, range(500))
        pool.close()
        pool.join()

        assert [number * number for number in range(500)] == list(results)
        for method in (pool.apply, pool.map, pool.imap):
            with pytest.raises(ValueError, match="Pool not running"):
                method(pooled.same, (1,))
        with pytest.raises(ValueError, match="Pool not running"), pool:
            pass

    def test_recycling_ends(self, make: Make) -> None:
        """Recycled workers, a backlog and the end of the pool together lose nothing."""
        pool = make(3, maxtasksperchild=1)
        result = pool.map_async(pooled.square, range(15), chunksize=1)
        pool.close()
        pool.join()

        assert [number * number for number in range(15)] == result.get()

    def test_context_manager_terminates(self, ctx: Any) -> None:
        """Leaving the block ends the workers, whatever they are at."""
        with ctx.Pool(2) as pool:
            pool.apply_async(pooled.hang)
            pids = pool.apply(pooled.pid)
        pool.join()

        with pytest.raises(ProcessLookupError):
            os.kill(pids, 0)

    def test_not_to_be_pickled(self, pool: Any) -> None:
        """A pool belongs to its process."""
        with pytest.raises(NotImplementedError, match="pool objects cannot be passed"):
            pickle.dumps(pool)

    def test_repr(self, pool: Any, subject: str) -> None:
        """The state and the size are shown."""
        assert f"<{subject}.pool.Pool state=RUN pool_size=2>" == repr(pool)
        pool.close()
        assert "state=CLOSE" in repr(pool)
        pool.terminate()
        assert "state=TERMINATE" in repr(pool)

    def test_dropped_pool(self, ctx: Any) -> None:
        """A pool that is forgotten says so."""
        pool = ctx.Pool(1)
        workers = ctx.active_children()
        crew = getattr(pool, "_crew", None)  # the standard library's pools have none
        pools = [pool]
        del pool
        with pytest.warns(ResourceWarning, match="unclosed running"):
            pools.clear()
        gc.collect()  # the standard library's pools are in circles
        for worker in workers:
            worker.join(30)

        assert not any(worker.is_alive() for worker in workers)
        assert crew is None or crew.ended.wait(30)


class TestThreads:
    """ThreadPool: the same, in this process."""

    @pytest.fixture
    def threads(self, module: Any) -> Iterator[Any]:
        """A pool of two threads."""
        pool = module.ThreadPool(2)
        yield pool
        pool.terminate()
        pool.join()

    def test_calls(self, threads: Any) -> None:
        """Nothing is pickled, and everything else is as ever."""
        assert os.getpid() == threads.apply(pooled.pid)
        assert [1, 4, 9] == threads.map(lambda number: number * number, [1, 2, 3])
        assert [1, 2, 3] == list(threads.imap(pooled.same, [1, 2, 3], 2))
        assert [1, 2, 3] == sorted(threads.imap_unordered(pooled.same, iter([1, 2, 3])))
        assert [8] == threads.starmap(pow, [(2, 3)])

    def test_exceptions(self, threads: Any) -> None:
        """What a call raises is raised by its result."""
        with pytest.raises(ValueError, match="bad"):
            threads.apply(pooled.fail, (1,))

    def test_order(self, threads: Any) -> None:
        """`imap` waits for a slow first item."""
        go = threading.Event()

        def work(number: int) -> int:
            if number == 0:
                go.wait(20)
            return number

        results = threads.imap(work, range(10))
        threading.Timer(0.05, go.set).start()
        assert list(range(10)) == list(results)

    def test_end(self, module: Any) -> None:
        """A closed pool of threads does what it was given; it cannot be pickled either."""
        pool = module.ThreadPool(2, pooled.initialize, ("thread",))
        result = pool.map_async(pooled.square, range(50), 1)
        pool.close()
        pool.join()

        assert [number * number for number in range(50)] == result.get()
        with pytest.raises(ValueError, match="Pool not running"):
            pool.apply(pooled.same, (1,))
        with pytest.raises(NotImplementedError):
            pickle.dumps(pool)
        pooled._initial.clear()


def test_in_a_manager(ctx: Any) -> None:
    """The server of a manager can have a pool, of which proxies work in any process."""
    with ctx.Manager() as manager:
        with manager.Pool(2) as pool:
            assert 9 == pool.apply(pooled.square, (3,))
            assert [0, 1, 4] == pool.map(pooled.square, range(3))
            result = pool.apply_async(pooled.keyword, (1,), {"more": 2})
            assert (1, 2) == result.get(30)
            assert result.ready()
            assert result.successful()
            assert [0, 1, 4] == list(pool.imap(pooled.square, range(3)))
            with pytest.raises(ValueError, match="bad"):
                pool.apply(pooled.fail, (1,))
        with pytest.raises(ValueError, match="Pool not running"):
            pool.apply(pooled.same, (1,))
