"""Objects of either package as arguments of the other's processes, and in its messages."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing import shared_memory
from multiprocessing.managers import BaseManager, SyncManager
from queue import Empty
from typing import Any

import pytest

import procession
from procession.testing import payloads, standard

pytestmark = [pytest.mark.beyond("there is one package only")]
per_method = pytest.mark.one_pair_per("method")
per_transport = pytest.mark.one_pair_per("transport")

DEADLINE = 30.0


@pytest.fixture
def theirs(pair: Any) -> Any:
    """The standard context whose objects children of the pair's start method can have."""
    return multiprocessing.get_context("fork" if pair.method == "fork" else "spawn")


def make_queue(ctx: Any, cleanup: Any, kind: str = "Queue") -> Any:
    """Make a queue that is gone after the test, with its thread and its descriptors."""
    queue = getattr(ctx, kind)()
    if isinstance(queue, multiprocessing.queues.Queue) and ctx is not procession:
        cleanup.callback(queue.join_thread)
    cleanup.callback(queue.close)
    writer = getattr(queue, "_writer", None)
    if writer is not None:
        cleanup.callback(writer.close)
    return queue


@per_method
def test_a_child_can_use_everything_of_the_standard_package(
    ctx: Any, theirs: Any, start: Callable[..., Any], pipe: Callable[..., Any], cleanup: Any
) -> None:
    """Locks, queues, connections, sockets, values: as arguments, on every start method."""
    reader, writer = pipe(theirs)
    ours, sockets = socket.socketpair()
    cleanup.callback(ours.close)
    cleanup.callback(sockets.close)
    given = {
        "lock": theirs.Lock(),
        "rlock": theirs.RLock(),
        "condition": theirs.Condition(),
        "semaphore": theirs.Semaphore(0),
        "event": theirs.Event(),
        "value": theirs.Value("i", 1),
        "array": theirs.Array("i", [1, 2, 3]),
        "queue": make_queue(theirs, cleanup),
        "simple": make_queue(theirs, cleanup, "SimpleQueue"),
        "joinable": make_queue(theirs, cleanup, "JoinableQueue"),
        "connection": writer,
        "socket": sockets,
    }
    here, there = pipe(ctx)
    process = start(ctx, standard.use_all, given, there)
    given["joinable"].put("task")
    writer.close()
    sockets.close()

    assert here.recv() == "used"
    process.join(DEADLINE)
    assert process.exitcode == 0
    assert (2, [1, 3, 3]) == (given["value"].value, given["array"][:])
    assert ["queue", "simple"] == [given["queue"].get(timeout=DEADLINE), given["simple"].get()]
    assert given["semaphore"].acquire(timeout=DEADLINE)
    assert given["event"].wait(DEADLINE)
    given["joinable"].join()
    assert reader.recv() == "connection"
    with pytest.raises(EOFError):
        reader.recv()  # the child's copy was the last one
    assert ours.recv(100) == b"socket"


@per_transport
@pytest.mark.parametrize("standard_method", multiprocessing.get_all_start_methods())
def test_a_standard_child_can_use_everything_of_ours(
    ctx: Any,
    standard_method: str,
    start: Callable[..., Any],
    pipe: Callable[..., Any],
    cleanup: Any,
) -> None:
    """Also what is sent to it later through a connection, which it has to fetch."""
    given = {
        "lock": ctx.Lock(),
        "condition": ctx.Condition(),
        "event": ctx.Event(),
        "value": ctx.Value("i", 1),
        "array": ctx.Array("i", [1, 2, 3]),
        "queue": make_queue(ctx, cleanup),
        "simple": make_queue(ctx, cleanup, "SimpleQueue"),
    }
    here, there = pipe(ctx)
    late, sent = pipe(ctx)
    process = start(multiprocessing.get_context(standard_method), standard.use_ours, given, there)
    assert here.recv() == "used"
    here.send(sent)
    sent.close()
    assert late.recv() == "late"
    process.join(DEADLINE)

    assert process.exitcode == 0
    assert (2, [1, 3, 3]) == (given["value"].value, given["array"][:])
    assert ["queue", "simple"] == [given["queue"].get(timeout=DEADLINE), given["simple"].get()]
    assert given["event"].wait(DEADLINE)


@per_transport
def test_sockets_travel_in_our_messages(
    ctx: Any, start: Callable[..., Any], pipe: Callable[..., Any], cleanup: Any
) -> None:
    """Also beside the standard package, whose own way of sending them is another one."""
    here, there = pipe(ctx)
    process = start(ctx, standard.echo, there)
    ours, sent = socket.socketpair()
    with ours, sent:
        here.send((sent, b"text"))
        assert here.recv() == "done"
        sent.close()
        assert ours.recv(100) == b"text"
        assert ours.recv(100) == b""
    process.join(DEADLINE)
    assert process.exitcode == 0


@per_method
def test_another_serializer_knows_them_too(
    pair: Any, start: Callable[..., Any], pipe: Callable[..., Any]
) -> None:
    """Sockets and standard connections, beside functions that are pickled by value."""
    pytest.importorskip("procession_cloudpickle")
    ctx = procession.get_context(pair.method, transport=pair.transport, serializer="cloudpickle")
    here, there = pipe(ctx)
    mine, sent = pipe(multiprocessing)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = start(ctx, lambda end: end.sendall(b"argument"), theirs)
        process.join(DEADLINE)
        assert (0, b"argument") == (process.exitcode, ours.recv(100))
        here.send((lambda end: end.sendall(b"message"), theirs, sent))
        function, end, connection = there.recv()
        with end, connection:
            function(end)
            connection.send("message")
        assert (b"message", "message") == (ours.recv(100), mine.recv())


@per_method
def test_standard_connections_travel_in_our_messages(
    ctx: Any, theirs: Any, start: Callable[..., Any], pipe: Callable[..., Any], cleanup: Any
) -> None:
    """Both ways, through a running process: both sides have the standard package's key."""
    here, there = pipe(ctx)
    mine, sent = pipe(theirs)
    process = start(ctx, standard.answer_through, there)
    here.send(sent)
    assert mine.recv() == "through theirs"
    with here.recv() as other:
        here.send("fetched")
        assert other.recv() == "back"
    process.join(DEADLINE)
    assert process.exitcode == 0


@per_method
def test_a_killed_child_leaves_what_it_has_put(
    ctx: Any, theirs: Any, start: Callable[..., Any], pipe: Callable[..., Any], cleanup: Any
) -> None:
    """What a child had written to a standard queue is there after its death, then nothing."""
    queue = make_queue(theirs, cleanup)
    here, there = pipe(ctx)
    process = start(ctx, standard.put_then_hold, queue, there)
    assert here.recv() == "put"
    process.kill()
    process.join(DEADLINE)

    assert -9 == process.exitcode
    assert "before" == queue.get(timeout=DEADLINE)
    with pytest.raises(Empty):
        queue.get(timeout=0.01)


@per_method
def test_the_standard_package_s_segments_outlive_the_child(
    ctx: Any, start: Callable[..., Any], pipe: Callable[..., Any]
) -> None:
    """A child uses its parent's tracker: one of its own would remove what the child has made."""
    here, there = pipe(ctx)
    process = start(ctx, standard.share_memory, there)
    name = here.recv()
    process.join(DEADLINE)
    segment: Any = shared_memory.SharedMemory(name)
    try:
        assert segment.buf[0] == 7
    finally:
        segment.close()
        segment.unlink()


@per_method
def test_a_child_has_its_parent_s_tracker(
    ctx: Any, start: Callable[..., Any], pipe: Callable[..., Any]
) -> None:
    """What a child registers there is registered; it is the same pipe, and no other file."""
    here, there = pipe(ctx)
    process = start(ctx, payloads.call, there, standard.tracker_line)
    assert standard.tracker_line() == here.recv()
    process.join(DEADLINE)


@per_method
def test_a_standard_proxy_works_in_a_child(
    ctx: Any, start: Callable[..., Any], cleanup: Any
) -> None:
    """The key that it needs goes with it, as the standard package is starting a process."""
    with SyncManager(ctx=multiprocessing.get_context("spawn")) as manager:
        numbers = manager.list()
        process = start(ctx, standard.append, numbers)
        process.join(DEADLINE)
        assert (0, [process.pid]) == (process.exitcode, list(numbers))
        del numbers
    assert isinstance(manager, BaseManager)


@per_method
@pytest.mark.parametrize("standard_method", ["spawn", "forkserver"])
def test_our_proxy_works_in_a_standard_child(
    ctx: Any, standard_method: str, start: Callable[..., Any]
) -> None:
    """And the other way round."""
    with ctx.Manager() as manager:
        numbers = manager.list()
        process = start(multiprocessing.get_context(standard_method), standard.append, numbers)
        process.join(DEADLINE)
        assert (0, [process.pid]) == (process.exitcode, list(numbers))
        del numbers


@per_method
def test_a_child_can_have_a_standard_pool(ctx: Any, ask: Callable[..., Any]) -> None:
    """The standard package finds itself in a process from which it can start others."""
    method = "spawn" if sys.platform == "win32" else "fork"
    assert [1, 2, 3] == ask(ctx, standard.standard_pool, method)


@per_method
def test_a_standard_child_can_have_our_pool(
    ctx: Any, pair: Any, start: Callable[..., Any], pipe: Callable[..., Any]
) -> None:
    """And the other way round."""
    here, there = pipe(multiprocessing)
    process = start(multiprocessing.get_context("spawn"), standard.our_pool, pair.spec, there)
    assert [1, 2, 3] == here.recv()
    process.join(DEADLINE)
    assert process.exitcode == 0


@per_method
def test_finalizers_run_at_the_end_of_a_child(
    ctx: Any, start: Callable[..., Any], pipe: Callable[..., Any]
) -> None:
    """Queues of the standard package, among others, write what they hold only then."""
    here, there = pipe(ctx)
    process = start(ctx, standard.finalize, there)
    there.close()
    assert ["working", "finalized"] == [here.recv(), here.recv()]
    process.join(DEADLINE)
    assert process.exitcode == 0


@per_method
def test_a_child_does_not_run_its_parent_s_finalizers(
    ctx: Any, start: Callable[..., Any], cleanup: Any
) -> None:
    """A forked child has copies of them, which would undo what the parent still uses."""
    from multiprocessing import util

    reader, writer = os.pipe()
    cleanup.callback(os.close, reader)
    finalizer = util.Finalize(None, os.write, args=(writer, b"x"), exitpriority=0)
    forked: list[int] = []
    util.register_after_fork(standard, lambda _: forked.append(os.getpid()))
    try:
        process = start(ctx, payloads.nothing)
        process.join(DEADLINE)
        assert process.exitcode == 0
    finally:
        finalizer.cancel()
        os.close(writer)
        del util._afterfork_registry[  # type: ignore[attr-defined]
            next(
                key
                for key in list(util._afterfork_registry)  # type: ignore[attr-defined]
                if key[1] == id(standard)
            )
        ]
    assert b"" == os.read(reader, 1)
    assert forked == []


def _cannot_be_pickled() -> Any:
    return lambda: None


@per_method
def test_a_start_that_fails_leaves_nothing(pair: Any, ctx: Any, pipe: Callable[..., Any]) -> None:
    """The standard package does not go on believing that a process is being started."""
    if pair.method == "fork":
        pytest.skip("nothing is pickled for a fork")
    here, _ = pipe(multiprocessing)
    process = ctx.Process(target=payloads.nothing_with, args=((here, _cannot_be_pickled()),))
    with pytest.raises((AttributeError, TypeError, ValueError, Exception), match="pickle"):
        process.start()
    process.close()

    assert multiprocessing.context.get_spawning_popen() is None
    with pytest.raises(RuntimeError, match="through inheritance"):
        ctx.Pipe()[1].send(multiprocessing.get_context("spawn").Lock())
