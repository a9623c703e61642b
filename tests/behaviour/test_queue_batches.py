"""`put_many` and `get_many`: several objects at once, and never one lost or twice."""

from __future__ import annotations

import queue as queue_module
from collections.abc import Callable
from typing import Any

import pytest

from procession.testing import payloads, queueing

DEADLINE = 30.0
Make = Callable[..., Any]
transports = pytest.mark.one_pair_per("transport")
pytestmark = pytest.mark.beyond("multiprocessing has no put_many and get_many")
KINDS = pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
LARGE = bytes(100_000)


def got_in_order(items: Any, count: int, most: int) -> list[Any]:
    """Take *count* objects, *most* at a time."""
    got: list[Any] = []
    while len(got) < count:
        batch = items.get_many(most, timeout=DEADLINE)
        assert 0 < len(batch) <= most
        got += batch
    return got


@transports
@KINDS
def test_everything_arrives_in_order(queue: Make, kind: str) -> None:
    """Short and long objects, more of them than a lane can hold."""
    items = queue(kind=kind)
    wanted = [*range(5), LARGE, None, *("text" * n for n in range(2000)), bytearray(LARGE)]
    assert len(wanted) == items.put_many(iter(wanted))
    assert len(wanted) == items.qsize()
    assert wanted[:1] == items.get_many(1)
    assert wanted[1:] == got_in_order(items, len(wanted) - 1, 100)
    assert 0 == items.put_many([])
    with pytest.raises(queue_module.Empty):
        items.get_many(5, block=False)
    with pytest.raises(queue_module.Empty):
        items.get_many(5, timeout=0.01)


@KINDS
def test_a_child_gets_what_is_put_together(queue: Make, pipe: Make, start: Make, kind: str) -> None:
    """On every pair of a start method and a transport."""
    items = queue(kind=kind)
    answers, answerer = pipe(False)
    process = start(payloads.get_until_none, items, answerer)
    items.put_many([*range(500), None])
    assert [*range(500)] == answers.recv()
    process.join(DEADLINE)


@transports
def test_a_full_queue_takes_the_first_ones(queue: Make) -> None:
    """How many is returned; with room for none it is the usual error."""
    items = queue(3)
    assert 3 == items.put_many(range(5), block=False)
    with pytest.raises(queue_module.Full):
        items.put_many(range(5), timeout=0.01)
    assert [0, 1] == items.get_many(2)
    assert 2 == items.put_many("abc", timeout=0.01)
    assert [2, "a", "b"] == got_in_order(items, 3, 9)


@transports
def test_waiting_for_room_for_all(queue: Make, start: Make) -> None:
    """Without a timeout all are put, however few there is room for at a time."""
    items = queue(2)
    process = start(queueing.put_many, items, 50)
    assert [*range(50)] == got_in_order(items, 50, 5)
    process.join(DEADLINE)
    assert 0 == process.exitcode


@transports
def test_nothing_is_put_when_one_cannot_be_pickled(queue: Make) -> None:
    """The others are not half a batch that nobody wanted."""
    items = queue()
    with pytest.raises(Exception, match="pickle"):
        items.put_many([1, 2, lambda: None])
    assert 0 == items.qsize()


@transports
def test_what_cannot_be_unpickled_takes_nothing_else_along(queue: Make) -> None:
    """The error has the others; each was unpickled once."""
    from procession.errors import BatchError

    items = queue()
    wanted = [1, payloads.FailsToUnpickle(), "two", payloads.FailsToUnpickle(), 3]
    items.put_many(wanted)
    objects: list[Any] = []
    errors: list[Exception] = []
    while len(objects) + len(errors) < len(wanted):
        try:
            objects += items.get_many(10)
        except BatchError as error:
            objects += error.objects
            errors += error.errors
    assert [1, "two", 3] == objects
    assert ["cannot unpickle"] * 2 == [error.args[0] for error in errors]


@transports
def test_after_a_shutdown(queue: Make) -> None:
    """What was put is got, and after that, and for every put, it is the usual error."""
    from procession import ShutDown

    items = queue()
    items.put_many([1, 2])
    items.shutdown()
    with pytest.raises(ShutDown) as caught:
        items.put_many([3, 4])
    assert 0 == caught.value.done  # type: ignore[attr-defined]
    assert [1, 2] == got_in_order(items, 2, 5)
    with pytest.raises(ShutDown):
        items.get_many(5)


@transports
def test_a_joinable_queue_counts_each(queue: Make) -> None:
    """As many are to be reported as done as were put."""
    items = queue(kind="JoinableQueue")
    items.put_many([1, 2, 3])
    for _ in got_in_order(items, 3, 2):
        items.task_done()
    items.join()
    with pytest.raises(ValueError, match="too many"):
        items.task_done()


@transports
def test_wrong_arguments_and_a_closed_queue(queue: Make) -> None:
    """They are told before anything is done."""
    items = queue()
    for most in (0, -1):
        with pytest.raises(ValueError, match="at least one"):
            items.get_many(most)
    items.close()
    with pytest.raises(ValueError, match="closed"):
        items.put_many([1])
    with pytest.raises(ValueError, match="closed"):
        items.get_many(1)
