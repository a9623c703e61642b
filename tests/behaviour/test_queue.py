"""`Queue` in one process and across processes: order, limits, timeouts, closing."""

from __future__ import annotations

import pickle
import queue as queue_module
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from procession.queues import JoinableQueue, Queue, SimpleQueue
from procession.testing import payloads
from procession.testing.queueing import CountingQueue

DEADLINE = 30.0
Make = Callable[..., Any]
transports = pytest.mark.one_pair_per("transport")
KINDS = pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])


@pytest.mark.beyond("a class cannot be derived from the classes of both packages")
def test_a_class_of_ones_own(ctx: Any, finish: Make) -> None:
    """A class derived from a queue's is given a context, and takes what it adds along."""
    items = CountingQueue(ctx=ctx)
    bounded = CountingQueue(1, ctx=ctx)

    finish(payloads.put_numbered, items, 0, 3)
    bounded.put("only")

    assert [(0, number) for number in range(3)] == [items.get(timeout=DEADLINE) for _ in range(3)]
    assert 3 == items.puts.value
    with pytest.raises(queue_module.Full):
        bounded.put("one more", timeout=0)
    items.close()
    bounded.close()


@pytest.mark.once
@pytest.mark.parametrize("kind", [Queue, JoinableQueue, SimpleQueue])
@pytest.mark.parametrize("options", [{}, {"ctx": "fork"}])
def test_no_context(kind: Any, options: dict[str, Any]) -> None:
    """Who makes a queue without a context is told how to get one."""
    with pytest.raises(TypeError, match=r"needs a context of procession, not .*: call ctx"):
        kind(**options)


@transports
def test_many_threads(queue: Make) -> None:
    """Threads of one process share a queue as processes do."""
    items = queue()
    each, got = 200, []

    def get() -> None:
        while (item := items.get()) is not None:
            got.append(item)

    getters = [threading.Thread(target=get) for _ in range(3)]
    putters = [
        threading.Thread(target=payloads.put_numbered, args=(items, who, each)) for who in range(3)
    ]
    for thread in getters + putters:
        thread.start()
    for thread in putters:
        thread.join(DEADLINE)
    for _ in getters:
        items.put(None)
    for thread in getters:
        thread.join(DEADLINE)

    assert [(who, number) for who in range(3) for number in range(each)] == sorted(got)


@transports
def test_maxsize(queue: Make) -> None:
    """A full queue refuses with Full, now or after the timeout, and takes one per get."""
    items = queue(2)
    items.put("a")
    items.put("b", block=True, timeout=1)

    assert items.full()
    assert 2 == items.qsize()
    with pytest.raises(queue_module.Full):
        items.put("c", block=False)
    with pytest.raises(queue_module.Full):
        items.put_nowait("c")
    begun = time.monotonic()
    with pytest.raises(queue_module.Full):
        items.put("c", timeout=0.05)
    assert time.monotonic() - begun >= 0.05
    assert "a" == items.get()
    items.put_nowait("c")
    assert ["b", "c"] == [items.get(), items.get()]


@transports
@pytest.mark.parametrize("maxsize", [0, -1])
def test_no_maxsize(queue: Make, maxsize: int) -> None:
    """Zero or less is no limit: the queue is never full."""
    items = queue(maxsize)
    for number in range(100):
        items.put_nowait(number)

    assert not items.full()
    assert list(range(100)) == [items.get(timeout=DEADLINE) for _ in range(100)]


@pytest.mark.parametrize("maxsize", ["1", 1.5, None])
@pytest.mark.one_pair_per("transport")
def test_impossible_maxsize(ctx: Any, maxsize: Any) -> None:
    """What is no integer limits nothing, and is refused before a queue is made of it."""
    for factory in (ctx.Queue, ctx.JoinableQueue):
        with pytest.raises(TypeError):
            factory(maxsize)


@transports
def test_empty(queue: Make) -> None:
    """An empty queue refuses with Empty, now or after the timeout."""
    items = queue()

    assert items.empty()
    assert 0 == items.qsize()
    for get in (items.get_nowait, lambda: items.get(False), lambda: items.get(True, -1)):
        with pytest.raises(queue_module.Empty):
            get()
    begun = time.monotonic()
    with pytest.raises(queue_module.Empty):
        items.get(timeout=0.05)
    assert time.monotonic() - begun >= 0.05


@transports
def test_qsize_is_exact(queue: Make) -> None:
    """qsize counts what was put and not yet got."""
    items = queue()
    for number in range(1, 21):
        items.put(number)
        assert number == items.qsize()
    for number in range(19, -1, -1):
        items.get(timeout=DEADLINE)
        assert number == items.qsize()


@transports
def test_closed_queue_refuses(queue: Make) -> None:
    """Neither put nor get on a closed queue: ValueError."""
    items = queue()
    items.close()
    items.close()

    for use in (lambda: items.put(1), items.get, lambda: items.put_nowait(1), items.get_nowait):
        with pytest.raises(ValueError, match="is closed"):
            use()
    items.join_thread()


@transports
def test_join_thread_needs_close(queue: Make) -> None:
    """join_thread before close is a mistake."""
    items = queue()
    with pytest.raises(AssertionError, match="not closed"):
        items.join_thread()


@pytest.mark.one_pair_per("method")
def test_cancel_join_thread_lets_a_producer_go(queue: Make, finish: Make) -> None:
    """After cancel_join_thread a process ends although nobody gets its items."""
    items = queue()
    process = finish(payloads.cancel_and_end, items, [b"x" * 100_000] * 10)

    assert 0 == process.exitcode


@transports
def test_unread_items_do_not_hold_the_program(run_program: Make, pair: Any) -> None:
    """close and cancel_join_thread let a program end with unread items."""
    done = run_program(_UNREAD, *pair.spec)

    assert (0, "end\n", "") == (done.returncode, done.stdout, done.stderr)


_UNREAD = """
import sys
from procession.testing import payloads

if __name__ == "__main__":
    q = payloads.context(sys.argv[1:]).Queue()
    for _ in range(10):
        q.put(b"x" * 100_000)
    q.cancel_join_thread()
    q.close()
    print("end")
"""


@pytest.mark.beyond("multiprocessing reports it on stderr, from a thread")
@transports
@KINDS
def test_unpicklable_item_raises_in_put(queue: Make, kind: str) -> None:
    """What cannot be pickled raises in put; the queue goes on."""
    items = queue(kind=kind)
    with pytest.raises(TypeError, match="cannot pickle Unpicklable"):
        items.put(payloads.Unpicklable())
    with pytest.raises((AttributeError, pickle.PicklingError)):
        items.put(lambda: None)

    assert items.empty()
    items.put("next")
    assert "next" == items.get()


@transports
@KINDS
def test_unpickling_error_raises_in_get(queue: Make, kind: str) -> None:
    """What cannot be unpickled raises in get; the next item is got."""
    items = queue(kind=kind)
    items.put(payloads.FailsToUnpickle())
    items.put("next")
    with pytest.raises(ArithmeticError, match="cannot unpickle"):
        items.get()

    assert "next" == items.get()


@transports
def test_queue_is_a_snapshot_of_its_items(queue: Make) -> None:
    """Changing an object after put does not change what is got."""
    items = queue()
    item = [1]
    items.put(item)
    assert [1] == items.get()
    assert item is not items


@transports
def test_simple_queue(queue: Make) -> None:
    """SimpleQueue has put, get, empty and close, and nothing about limits."""
    items = queue(kind="SimpleQueue")

    assert items.empty()
    items.put([42, None, "hello"])
    assert not items.empty()
    assert [42, None, "hello"] == items.get()
    items.close()
    with pytest.raises(OSError, match="is closed"):
        items.empty()


@transports
def test_types(queue: Make, subject: str) -> None:
    """What a context makes are instances of the classes of the queues module."""
    import importlib

    module = importlib.import_module(f"{subject}.queues")

    for kind in ("Queue", "JoinableQueue", "SimpleQueue"):
        assert isinstance(queue(kind=kind), getattr(module, kind))
    assert issubclass(module.JoinableQueue, module.Queue)
