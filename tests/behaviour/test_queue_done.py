"""The ends of queues: `JoinableQueue.join`, and `shutdown` as in Python 3.13's queue.Queue."""

from __future__ import annotations

import queue as queue_module
import threading
from collections.abc import Callable
from typing import Any

import pytest

DEADLINE = 30.0
Make = Callable[..., Any]
transports = pytest.mark.one_pair_per("transport")
shutdown = pytest.mark.beyond("multiprocessing's queues cannot be shut down")


@transports
def test_task_done_too_often(queue: Make) -> None:
    """task_done without an item is a mistake."""
    items = queue(kind="JoinableQueue")
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        items.task_done()
    items.put(1)
    items.get()
    items.task_done()
    items.join()
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        items.task_done()


@transports
def test_join_returns_at_once_when_nothing_is_open(queue: Make) -> None:
    """A queue that never had an item is done."""
    queue(kind="JoinableQueue").join()


@transports
def test_join_waits_in_a_thread(queue: Make) -> None:
    """join goes on waiting while one item is unacknowledged."""
    items = queue(kind="JoinableQueue")
    items.put(1)
    items.put(2)
    waiter = threading.Thread(target=items.join)
    waiter.start()
    items.get()
    items.task_done()
    waiter.join(0.05)
    assert waiter.is_alive()
    items.get()
    items.task_done()
    waiter.join(DEADLINE)
    assert not waiter.is_alive()


@transports
def test_plain_queues_have_no_join(queue: Make) -> None:
    """task_done and join are a JoinableQueue's."""
    assert not hasattr(queue(), "task_done")
    assert not hasattr(queue(), "join")


@shutdown
@transports
def test_shutdown_lets_items_out(library: Any, queue: Make) -> None:
    """After shutdown nothing is put; what is inside is got, then ShutDown, again and again."""
    items = queue()
    items.put(1)
    items.put(2)
    items.shutdown()

    with pytest.raises(library.ShutDown):
        items.put(3)
    with pytest.raises(library.ShutDown):
        items.put_nowait(3)
    assert [1, 2] == [items.get(), items.get_nowait()]
    for get in (items.get, items.get_nowait, lambda: items.get(timeout=1)):
        with pytest.raises(library.ShutDown):
            get()
    items.shutdown()


@shutdown
@transports
def test_immediate_shutdown_drops_items(library: Any, queue: Make) -> None:
    """shutdown(immediate=True) drops what is inside."""
    items = queue()
    items.put(1)
    items.shutdown(immediate=True)

    with pytest.raises(library.ShutDown):
        items.get()
    assert 0 == items.qsize()


@shutdown
@transports
def test_shutdown_is_the_queue_modules_exception(library: Any) -> None:
    """Where the queue module has ShutDown (3.13), ours is caught as it; Empty does not catch it."""
    theirs = getattr(queue_module, "ShutDown", Exception)

    assert issubclass(library.ShutDown, theirs)
    assert not issubclass(library.ShutDown, queue_module.Empty)


@shutdown
@transports
def test_shutdown_wakes_a_waiting_producer(library: Any, queue: Make) -> None:
    """A put that waits for room ends with ShutDown."""
    items = queue(1)
    items.put(1)
    caught: list[BaseException] = []

    def put() -> None:
        try:
            items.put(2)
        except library.ShutDown as error:
            caught.append(error)

    producer = threading.Thread(target=put)
    producer.start()
    items.shutdown()
    producer.join(DEADLINE)

    assert 1 == len(caught)
    assert 1 == items.get()


@shutdown
@transports
def test_immediate_shutdown_ends_join(queue: Make) -> None:
    """A join that waits for items that were dropped returns."""
    items = queue(kind="JoinableQueue")
    items.put(1)
    waiter = threading.Thread(target=items.join)
    waiter.start()
    items.shutdown(immediate=True)
    waiter.join(DEADLINE)

    assert not waiter.is_alive()
