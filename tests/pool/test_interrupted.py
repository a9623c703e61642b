"""Signal handlers at every line of what gives tasks to a pool and waits for them."""

from __future__ import annotations

import gc
import itertools
import linecache
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

import procession
import procession.pool
from procession._pools import stream as _pool_stream
from procession.errors import TaskCancelledError
from procession.testing import pooled

pytestmark = pytest.mark.beyond("multiprocessing's pools hang instead")
_POOLS: dict[str, Callable[[int], Any]] = {
    "processes": lambda size: procession.get_context("fork").Pool(size),
    "threads": procession.pool.ThreadPool,
}
# A pool of processes takes a while to make: so only every so manieth line has its turn, which are
# others for each version of the interpreter. PROCESSION_STRIDE=1 is all of them.
_STRIDE = int(os.environ.get("PROCESSION_STRIDE", "7"))
_SECONDS = 30
#: Less than it takes until a caller is thought to have stopped, or to look by itself.
_AT_ONCE = 0.9
_ITEMS = 4
_ROUNDS = int(os.environ.get("PROCESSION_ROUNDS", "20"))
_OWN = (procession.pool.__file__, _pool_stream.__file__.removesuffix("stream.py"))


@pytest.fixture(autouse=True)
def start_method() -> None:
    """Have the cheapest one, of which there are pools in dozens."""
    pytest.importorskip("procession_fork")


def _at_line(number: int, handle: Callable[[], object]) -> Callable[..., Any]:
    """Return a tracer that calls *handle* at the line *number* that is run of a pool.

    So a signal handler is run there, whenever the signal comes; no timer could do that. Where no
    handler can be called, a tracer still can, and so two kinds of lines are left out: what is one
    step with the line before, and says so, since nothing is called in between; and that of a
    ``with``, which comes again at the end of the block, before the end is made.
    """
    lines = 0

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(_OWN):
            return None
        if event == "line" and not _is_left_out(_source_line(frame)):
            lines += 1
            if lines == number:
                sys.settrace(None)
                handle()
        return trace

    return trace


def _numbers(kind: str) -> Iterator[int]:
    """Return the numbers of the lines that have their turn."""
    stride = 1 if kind == "threads" else _STRIDE
    return itertools.count(1 + sys.version_info.minor % stride, stride)


def _is_left_out(line: str) -> bool:
    return line.startswith("with ") or line.endswith("# one step")


def _source_line(frame: Any) -> str:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()


def _interrupted(number: int, handle: Callable[[], object], call: Callable[[], Any]) -> Any:
    """Return what *call* does, with *handle* called at its line *number*."""

    def step() -> Iterator[Any]:
        # A tracer that raises in an `except` clause leaves its exception "being handled" (3.12),
        # which would be the context of all later ones. That of a generator ends with it.
        yield call()

    previous = sys.gettrace()
    gc.disable()  # it might end an earlier pool in between
    sys.settrace(_at_line(number, handle))
    try:
        return next(step())
    finally:
        sys.settrace(previous)
        gc.enable()


_CALLS: dict[str, Callable[[Any], list[Any]]] = {
    "imap": lambda pool: list(pool.imap(pooled.same, range(_ITEMS), buffersize=3)),
    "imap-chunks": lambda pool: list(pool.imap(pooled.same, range(_ITEMS), 2, buffersize=1)),
    "imap-iterator": lambda pool: list(pool.imap(pooled.same, iter(range(_ITEMS)), buffersize=2)),
    "imap-unordered": lambda pool: sorted(pool.imap_unordered(pooled.same, range(_ITEMS))),
    "map": lambda pool: pool.map(pooled.same, range(_ITEMS), 2),
    "apply": lambda pool: [pool.apply(pooled.same, (number,)) for number in range(_ITEMS)],
    "apply-async": lambda pool: [
        result.get()
        for result in [pool.apply_async(pooled.same, (number,)) for number in range(_ITEMS)]
    ],
}


def _close_and_join(pool: Any) -> list[Any]:
    results = pool.imap(pooled.same, range(_ITEMS), buffersize=1)
    pool.close()
    pool.join()
    return list(results)


_CALLS["join"] = _close_and_join


@pytest.mark.parametrize("kind", _POOLS)
@pytest.mark.parametrize("call", _CALLS)
def test_a_handler_that_ends_the_pool_at_any_line(kind: str, call: str) -> None:
    """What was not done because of it is an error, and never the end of the results."""
    for number in _numbers(kind):
        pool = _POOLS[kind](1)
        ended: list[bool] = []

        def end(pool: Any = pool, ended: list[bool] = ended) -> None:
            pool.terminate()
            ended.append(True)

        try:
            found = _interrupted(number, end, partial(_CALLS[call], pool))
        except (ValueError, TaskCancelledError) as error:
            assert "Pool not running" in str(error) or "terminated" in str(error)  # noqa: PT017
            assert ended
        else:
            assert list(range(_ITEMS)) == found
        finally:
            pool.terminate()
            pool.join()
        if not ended:
            break  # it has no so many lines
    assert number > 20


@pytest.mark.parametrize("kind", _POOLS)
@pytest.mark.parametrize("call", ["apply", "apply-async", "map", "imap"])
def test_a_handler_that_calls_the_pool_at_any_line(kind: str, call: str) -> None:
    """Both calls are done at once, by the only worker, and once: nobody waits for anybody."""
    with _POOLS[kind](1) as pool:
        worker = pool.apply(pooled.pid)
        for number in itertools.count(1):
            found: list[int] = []

            def interfere(found: list[int] = found) -> None:
                found.append(pool.apply(pooled.same, (-1,)))

            begun = time.monotonic()
            results = _interrupted(number, interfere, partial(_CALLS[call], pool))
            assert time.monotonic() - begun < _AT_ONCE, number
            assert list(range(_ITEMS)) == results
            if not found:
                break
            assert [-1] == found
        assert number > 20
        assert worker == pool.apply(pooled.pid)
        pool.close()
        pool.join()


@pytest.mark.parametrize("kind", _POOLS)
@pytest.mark.parametrize("call", ["apply-async", "map"])
def test_a_handler_that_waits_for_the_end_at_any_line(kind: str, call: str) -> None:
    """It closes the pool and joins it in the middle of a call, which is done or an error then."""
    for number in _numbers(kind):
        pool = _POOLS[kind](1)
        ended: list[bool] = []

        def end(pool: Any = pool, ended: list[bool] = ended) -> None:
            pool.close()
            pool.join()
            ended.append(True)

        try:
            found = _interrupted(number, end, partial(_CALLS[call], pool))
        except (ValueError, TaskCancelledError) as error:
            assert "Pool not running" in str(error) or "terminated" in str(error)  # noqa: PT017
            assert ended
        else:
            assert list(range(_ITEMS)) == found
        finally:
            pool.terminate()
            pool.join()
        if not ended:
            break  # it has no so many lines
    assert number > 20


class _Interrupt(BaseException):
    """What a signal handler raises."""


@pytest.mark.parametrize("kind", _POOLS)
@pytest.mark.parametrize("stream", ["imap", "imap_unordered"])
@pytest.mark.parametrize("chunk_size", [1, 2])
@pytest.mark.parametrize("form", [list, iter])
def test_a_handler_that_raises_at_any_line_of_next(
    kind: str, stream: str, chunk_size: int, form: Callable[..., Any]
) -> None:
    """Whoever goes on after it gets all other results, and then the end."""
    with _POOLS[kind](1) as pool:
        for number in itertools.count(1):
            results = getattr(pool, stream)(
                pooled.same, form(list(range(_ITEMS))), chunk_size, buffersize=1
            )
            interrupts: list[bool] = []

            def interrupt(interrupts: list[bool] = interrupts) -> None:
                interrupts.append(True)
                raise _Interrupt

            found: list[int] = []

            def take(results: Any = results, found: list[int] = found) -> None:
                # In one step, unless `next` is interrupted.
                found.extend(results)

            with suppress(_Interrupt):
                _interrupted(number, interrupt, take)
            take()
            assert len(found) >= _ITEMS - len(interrupts)
            assert found == sorted(set(found))
            if not interrupts:
                break
        assert number > 20
        pool.close()
        pool.join()


@pytest.mark.parametrize("kind", _POOLS)
@pytest.mark.parametrize("form", [list, iter])
def test_a_handler_that_raises_at_any_line_of_imap(kind: str, form: Callable[..., Any]) -> None:
    """A stream that nobody has got keeps no pool from ending."""
    for number in _numbers(kind):
        interrupts: list[bool] = []

        def interrupt(interrupts: list[bool] = interrupts) -> None:
            interrupts.append(True)
            raise _Interrupt

        pool = _POOLS[kind](1)
        with pool:
            items = form(list(range(_ITEMS)))
            with suppress(_Interrupt):
                _interrupted(number, interrupt, partial(pool.imap, pooled.same, items))
            pool.close()
            assert pool._crew.ended.wait(_SECONDS)
        if not interrupts:
            break
    assert number > 20


@pytest.mark.parametrize("kind", _POOLS)
def test_the_end_of_a_pool_whose_input_makes_its_reader_wait(kind: str) -> None:
    """Who waits for results of input that never comes learns that the pool was ended."""
    go_on = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        go_on.wait(2 * _SECONDS)

    with _POOLS[kind](1) as pool:
        results = pool.imap(pooled.same, items())
        assert 0 == next(results)
        ender = threading.Timer(0.1, pool.terminate)
        ender.start()
        with pytest.raises(TaskCancelledError, match=r"input of same\(\) from item 1 on"):
            next(results)
        with pytest.raises(StopIteration):
            next(results)
        ender.join()
    go_on.set()


def test_progress_that_is_told_while_the_pool_is_ended() -> None:
    """The function may use the pool, whoever calls it: its thread does not wait for that."""
    told: list[bool] = []

    def show(progress: procession.pool.Progress) -> None:
        told.append(progress.is_over)
        if threading.current_thread() is threading.main_thread():
            pool.terminate()

    with _POOLS["processes"](1) as pool:
        pool.imap(pooled.hang, iter(range(3)), buffersize=1, progress=show)
    assert pool._crew.ended.wait(_SECONDS)
    assert [True] == told[-1:]


def test_input_that_ends_its_reader() -> None:
    """What input raises is raised, also if it is no `Exception`."""

    def items() -> Iterator[int]:
        yield 0
        sys.exit("done")

    with _POOLS["processes"](1) as pool:
        results = pool.imap(pooled.same, items())
        assert 0 == next(results)
        with pytest.raises(SystemExit, match="done"):
            next(results)


def test_nothing_is_missing_when_all_input_was_given() -> None:
    """The end of a pool that has done everything is no error of the results."""
    with _POOLS["processes"](1) as pool:
        results = pool.imap(pooled.same, range(3), buffersize=3)
        while results._brought < 3:
            pool.apply_async(pooled.same, (0,)).wait()
    assert [0, 1, 2] == list(results)


@pytest.mark.parametrize("stream", ["imap", "imap_unordered"])
@pytest.mark.parametrize("chunk_size", [1, 3])
def test_threads_that_share_an_iterator(stream: str, chunk_size: int) -> None:
    """Each result goes to one of them, and all of them learn of the end."""
    with _POOLS["processes"](2) as pool:
        for _ in range(_ROUNDS):
            results = getattr(pool, stream)(pooled.same, range(60), chunk_size, buffersize=4)
            found: list[int] = []
            takers = [threading.Thread(target=found.extend, args=(results,)) for _ in range(4)]
            for taker in takers:
                taker.start()
            for taker in takers:
                taker.join(_SECONDS)
            assert not any(taker.is_alive() for taker in takers)
            assert list(range(60)) == sorted(found)


def test_a_second_thread_between_the_steps_of_the_first() -> None:
    """Whoever comes when the last result is being taken out learns that there are no more."""
    with _POOLS["processes"](1) as pool:
        for number in itertools.count(1):
            results = pool.imap(pooled.same, [0])
            told: list[int] = []
            second = threading.Thread(target=told.extend, args=(results,))
            _interrupted(number, second.start, partial(next, results, None))
            if second.ident is None:
                break
            second.join(_SECONDS)
            assert not second.is_alive()
    assert number > 10
