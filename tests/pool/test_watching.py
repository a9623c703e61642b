"""How far a map is, and what happens in a pool: told in order, to the end, and in nobody's way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from procession.errors import BrokenPoolError, TimeoutError, WorkerDiedError
from procession.pool import EventStream, PoolEvent, Progress, ThreadPool
from procession.testing import pooled

SIGKILL = 9
pytestmark = [
    pytest.mark.one_pair_per("method"),
    pytest.mark.beyond("multiprocessing's pools tell nothing"),
]


class TestProgress:
    """What `progress` is told."""

    @pytest.mark.parametrize("how", ["map", "imap", "imap_unordered"])
    def test_counts_up_to_all(self, pool: Any, how: str) -> None:
        """Counts rise to the total; the last one is told once, and before the result is there."""
        told: list[Progress] = []
        results = getattr(pool, how)(pooled.square, range(20), 3, progress=told.append)
        assert [number * number for number in range(20)] == sorted(results)
        pool.close()
        pool.join()

        assert Progress(20, 0, 20, True) == told[-1]
        assert 1 == sum(each.is_over for each in told)
        assert sorted(each.done for each in told) == [each.done for each in told]

    def test_is_over_when_map_returns(self, pool: Any) -> None:
        """Who has the result of a map has seen the end of its progress."""
        for _ in range(50):
            told: list[Progress] = []
            pool.map(pooled.same, range(5), progress=told.append)
            assert told[-1].is_over

    def test_unknown_length(self, pool: Any) -> None:
        """The total of an input of unknown length is known at its end."""
        told: list[Progress] = []
        assert [0, 1, 2] == list(pool.imap(pooled.same, iter(range(3)), progress=told.append))
        pool.close()
        pool.join()

        assert Progress(3, 0, 3, True) == told[-1]
        assert {None} == {each.total for each in told[:-1]}

    def test_nothing_to_do(self, pool: Any) -> None:
        """Nothing is over at once."""
        told: list[Progress] = []
        assert [] == pool.map(pooled.same, [], progress=told.append)
        assert [] == list(pool.imap(pooled.same, [], progress=told.append))
        assert [Progress(0, 0, 0, True)] * 2 == told

    def test_failures(self, pool: Any) -> None:
        """Calls that raise, and those whose worker dies, are counted as failed."""
        told: list[Progress] = []
        with pytest.raises(ValueError, match="odd"):
            pool.map(pooled.fail_if_odd, range(6), 1, progress=told.append)
        assert Progress(6, 3, 6, True) == told[-1]
        with pytest.raises(WorkerDiedError):
            pool.starmap(pooled.die_if, [(number, 1) for number in range(3)], 1,
                         progress=told.append)  # fmt: skip
        assert Progress(3, 1, 3, True) == told[-1]

    def test_terminated(self, pool: Any) -> None:
        """A map that a terminated pool does not finish is over, too."""
        told: list[Progress] = []
        pool.map_async(pooled.hang, range(4), 1, progress=told.append)
        results = pool.imap(pooled.hang, range(1000), buffersize=2, progress=told.append)
        pool.terminate()
        pool.join()

        assert 2 == sum(each.is_over for each in told)
        assert {True} == {each.done == each.failed for each in told}
        del results

    def test_function_that_raises(self, pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the function raises is shown like an exception of a thread; the map goes on."""
        import threading

        shown: list[Any] = []
        monkeypatch.setattr(threading, "excepthook", shown.append)

        def refuse(progress: Progress) -> None:
            raise LookupError("not mine")

        assert [1, 2] == pool.map(pooled.same, [1, 2], progress=refuse)
        assert {LookupError} == {each.exc_type for each in shown}

    def test_wrong(self, pool: Any) -> None:
        """What is neither a bool nor a function is refused, and nothing is done."""
        with pytest.raises(TypeError, match="progress must be True"):
            pool.map(pooled.die, [1], progress="yes")

    @pytest.mark.parametrize("rich", [True, False])
    def test_bar(self, ctx: Any, rich: bool) -> None:
        """True shows a bar on standard error, with rich or without; results are not disturbed."""
        hide = "" if rich else "sys.modules['rich.progress'] = None\n"
        code = (
            "import sys\n" + hide + "import procession\n"
            "if __name__ == '__main__':\n"
            "    with procession.Pool(1) as pool:\n"
            "        print(pool.map(abs, [-1, -2, -3], 1, progress=True))\n"
        )
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
        assert "[1, 2, 3]\n" == found.stdout
        assert "abs" in found.stderr
        assert "3/3" in found.stderr

    def test_threads(self, library: Any) -> None:
        """A `ThreadPool` tells the same."""
        told: list[Progress] = []
        with ThreadPool(2) as pool:
            assert [0, 1, 4] == pool.map(pooled.square, range(3), 1, progress=told.append)
        assert Progress(3, 0, 3, True) == told[-1]


def _by_kind(events: list[PoolEvent]) -> Counter[str]:
    return Counter(event.kind for event in events)


def _until_silent(events: EventStream) -> list[str]:
    kinds = []
    try:
        while True:
            kinds.append(events.next(0.1).kind)
    except TimeoutError:
        return kinds


class TestEvents:
    """What the stream of events says."""

    def test_life_of_a_pool(self, make: Callable[..., Any]) -> None:
        """Every task is given and done, every worker that comes goes; the stream ends with them."""
        pool = make(2)
        events = pool.events()
        pool.map(pooled.same, range(10), 1)
        with pytest.raises(ValueError, match="bad"):
            pool.apply(pooled.fail, (1,))
        pool.close()
        pool.join()
        found = list(events)
        kinds = _by_kind(found)
        given = [event.number for event in found if event.kind == "task-given"]

        assert 10 == kinds["task-done"]
        assert 1 == kinds["task-failed"]
        assert 11 == len(set(given))  # more than once when it was taken back
        assert kinds["worker-started"] <= 2 == kinds["worker-ended"]
        assert sorted(event.time for event in found) == [event.time for event in found]
        (failed,) = [event for event in found if event.kind == "task-failed"]
        assert "fail()" == failed.task
        assert isinstance(failed.error, ValueError)

    def test_dead_worker(self, make: Callable[..., Any], tmp_path: Any) -> None:
        """A retry is told, with the worker that has died and the one that takes its place."""
        pool = make(1)
        pid = pool.apply(pooled.pid)
        with pool.events() as events:
            assert 5 == pool.apply(pooled.die_once, (str(tmp_path / "flag"), 5), retries=1)
        found = [(event.kind, event.worker == pid) for event in events]

        assert ("worker-ended", True) in found
        assert ("task-retried", True) in found
        assert ("worker-started", False) in found
        assert ("task-given", False) in found

    def test_waiting(self, pool: Any) -> None:
        """Who waits is woken by the next event, by the end of the time, and by the pool's end."""
        pool.map(pooled.same, range(4), 1)
        events = pool.events()
        result = pool.apply_async(pooled.square, (3,))
        while (event := events.next(30)).kind != "task-done":
            pass
        assert "square()" == event.task
        assert 9 == result.get(30)
        workers = _until_silent(events)
        assert {"worker-started"} >= set(workers)  # one of the two may have been late
        pool.terminate()
        assert {"worker-ended"} == {event.kind for event in events}

    def test_nobody_reads(self, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """Of what nobody takes, the oldest is dropped and counted."""
        from procession._pools import event_stream

        monkeypatch.setattr(event_stream, "_MOST_KEPT", 10)
        pool = make(1)
        events = pool.events()
        pool.map(pooled.same, range(100), 1)
        pool.close()
        pool.join()
        found = list(events)

        assert 10 == len(found)
        assert events.missed + 10 in (201, 202)  # with the worker that has come and gone

    def test_after_the_end(self, ctx: Any) -> None:
        """The stream of a pool that has ended is empty."""
        with ctx.Pool(1) as pool:
            pass
        pool.join()
        assert [] == list(pool.events())

    def test_failing_initializer(self, ctx: Any) -> None:
        """A pool that stops by itself ends its streams."""
        with ctx.Pool(1, pooled.fail_to_initialize) as pool:
            events = pool.events()
            with pytest.raises(BrokenPoolError):
                pool.apply(pooled.same, (1,))
            assert "task-failed" in _by_kind(list(events))

    def test_threads(self, library: Any) -> None:
        """A `ThreadPool` tells of its tasks."""
        pool = ThreadPool(2)
        events = pool.events()
        pool.map(pooled.same, range(5), 1)
        pool.close()
        pool.join()
        assert Counter({"task-given": 5, "task-done": 5}) == _by_kind(list(events))

    def test_killed_in_between(self, make: Callable[..., Any]) -> None:
        """Whoever dies, each task that was given has an end, and the stream has one, too."""
        pool = make(2)
        events = pool.events()
        results = [pool.apply_async(pooled.same, (number,)) for number in range(500)]
        for member in list(pool._crew.members):
            os.kill(member.pid, SIGKILL)
        for result in results:
            result.wait(30)
        pool.close()
        pool.join()
        found = list(events)
        kinds = _by_kind(found)
        given = {event.number for event in found if event.kind == "task-given"}
        ended = [event.number for event in found if event.kind in ("task-done", "task-failed")]

        assert 500 == kinds["task-done"] + kinds["task-failed"] == len(set(ended))
        assert given >= {event.number for event in found if event.kind == "task-done"}
