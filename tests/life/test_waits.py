"""No wait is for ever by accident: it ends with who has died, when nobody else could end it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import Empty, Full
from typing import Any

import pytest

from procession._channels import twin
from procession._channels.stream_channel import StreamChannel
from procession._mailboxes import packet_waits
from procession._mailboxes.pair_mailbox import PairMailbox
from procession.errors import (
    BrokenByDeathError,
    EndOfConnectionError,
    PeerDiedError,
)
from procession.queues import Queue
from procession.testing import waiting

_SECONDS = 20
#: Half as many as a pipe or a socket holds, and less than a queue's getters take at once.
_CHUNK = bytes(1000)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look ten times a second, where it would be once."""
    monkeypatch.setattr(packet_waits, "_LONGEST_SLEEP", 0.1)
    monkeypatch.setattr(twin, "_LONGEST_SLEEP", 0.1)


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Closes and joins, in the end, what it was given."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start(ctx: Any, closing: ExitStack) -> Callable[..., Any]:
    """Start a process; it is killed and closed after the test."""

    def start(target: Any, *args: Any, **options: Any) -> Any:
        process = ctx.Process(target=target, args=args, **options)
        process.start()

        def end() -> None:
            process.kill()
            process.join(_SECONDS)
            process.close()

        closing.callback(end)
        return process

    return start


def _fill(connection: Any) -> None:
    while True:
        connection.send_bytes(_CHUNK)


def _put_for_ever(queue: Any, item: object) -> None:
    while True:
        queue.put(item)


def test_waits_of_a_parent_end_when_the_child_has_died(
    ctx: Any, start: Any, closing: ExitStack, quick: None
) -> None:
    """Every wait names the child, its pid and the signal, also with the other end open here."""
    full, undone, shared = ctx.Queue(1), ctx.JoinableQueue(), ctx.JoinableQueue()
    empty, simple = ctx.Queue(), ctx.SimpleQueue()
    pipes = [ctx.Pipe(duplex) for duplex in (True, True, False, False)]
    for each in (full, undone, shared, empty, simple, *sum(pipes, ())):
        closing.callback(each.close)
    full.put(1)
    undone.put(1)
    shared.put(1)
    waits: list[tuple[Any, Any, tuple[Any, ...], str]] = [
        (waiting.die, empty, (empty.get,), "put anything"),
        (waiting.die, simple, (simple.get,), "put anything"),
        (waiting.die, full, (full.put, 2), "full"),
        (waiting.die, shared, (shared.join,), "as done"),
        (waiting.take_and_die, undone, (undone.join,), "as done"),
        (waiting.die, pipes[0][1], (pipes[0][0].recv,), "close it here"),
        (waiting.die, pipes[1][1], (_fill, pipes[1][0]), "close it here"),
        (waiting.die, pipes[2][1], (pipes[2][0].recv_bytes,), "close it here"),
        (waiting.die, pipes[3][0], (_fill, pipes[3][1]), "close it here"),
    ]
    for target, given, _, _ in waits:
        # Before any thread; and one after the other, as forked ones hold what was there.
        start(target, given).join(_SECONDS) if target is waiting.die else start(target, given)

    with ThreadPoolExecutor(len(waits)) as threads:
        results = [(threads.submit(*wait), wait, text) for _, _, wait, text in waits]
        for result, wait, text in results:
            with pytest.raises(PeerDiedError, match=text) as caught:
                result.result(_SECONDS)
            assert "was killed by SIGKILL" in str(caught.value)
            assert f"(pid {caught.value.pid})" in str(caught.value)
            assert -9 == caught.value.exitcode
            assert caught.value.process
            is_sending = wait[0] in (full.put, _fill)
            assert is_sending == isinstance(caught.value, BrokenPipeError)


@pytest.mark.once
@pytest.mark.one_pair_per("method")
@pytest.mark.parametrize("length", [1000, 1 << 20])
def test_a_put_into_a_full_pair_ends_when_the_getter_has_died(
    start: Any, closing: ExitStack, length: int
) -> None:
    """Before a message and in the middle; for a transport that has nothing but channels."""
    reader, writer = os.pipe()
    ends = StreamChannel((reader,), ()), StreamChannel((), (writer,))
    queue = Queue(mailbox=PairMailbox(*ends))
    closing.callback(queue.close)
    child = start(waiting.die, queue)

    with pytest.raises(BrokenByDeathError, match="nobody is left who could get") as caught:
        _put_for_ever(queue, bytes(length))
    assert (child.pid, -9) == (caught.value.pid, caught.value.exitcode)


@pytest.mark.one_pair_per("transport")
@pytest.mark.parametrize("duplex", [True, False])
def test_the_end_of_a_connection_tells_who_has_died(ctx: Any, start: Any, duplex: bool) -> None:
    """With the child's end closed here, the kernel tells at once, and the error tells who."""
    receiver, sender = ctx.Pipe(duplex)
    child = start(waiting.die, sender)
    sender.close()

    with receiver, pytest.raises(PeerDiedError, match=r"was killed by SIGKILL") as caught:
        receiver.recv()

    assert (child.name, child.pid, -9) == (
        caught.value.process,
        caught.value.pid,
        caught.value.exitcode,
    )


def test_sending_to_the_dead_tells_who_they_are(ctx: Any, start: Any) -> None:
    """It is a BrokenPipeError, as in multiprocessing, and names the child."""
    receiver, sender = ctx.Pipe(duplex=False)
    child = start(waiting.die, receiver)
    receiver.close()
    child.join(_SECONDS)

    with sender, pytest.raises(BrokenPipeError, match="was killed by SIGKILL") as caught:
        sender.send(1)

    assert isinstance(caught.value, BrokenByDeathError)
    assert child.pid == caught.value.pid


@pytest.mark.one_pair_per("transport")
def test_half_a_message_of_the_dead_is_no_message(ctx: Any, start: Any) -> None:
    """Who is killed in the middle of a message is named, and the message is not delivered."""
    here, there = ctx.Pipe()
    child = start(waiting.send_half_and_die, there, 4 << 20)
    there.close()
    assert here.poll(_SECONDS)
    here.send("die")
    child.join(_SECONDS)

    with here, pytest.raises(BrokenByDeathError, match="was killed by SIGKILL") as caught:
        here.recv_bytes()

    assert child.pid == caught.value.pid


@pytest.mark.one_pair_per("method")
def test_a_living_child_that_closes_is_not_dead(ctx: Any, start: Any, closing: ExitStack) -> None:
    """The plain end of a connection stays what it was."""
    receiver, sender = ctx.Pipe(duplex=False)
    orders, there = ctx.Pipe()
    for each in (receiver, orders, there):
        closing.callback(each.close)
    start(waiting.close_and_go_on, sender, there)
    sender.close()

    with pytest.raises(EndOfConnectionError) as caught:
        receiver.recv()

    assert not isinstance(caught.value, PeerDiedError)
    orders.send("end")


@pytest.mark.one_pair_per("method")
@pytest.mark.parametrize("kind", ["queue", "pipe"])
def test_waits_of_orphans_end(ctx: Any, pair: Any, closing: ExitStack, kind: str) -> None:
    """Children that wait for a parent that was killed are told, and need not wait for each other.

    They share the queue, so that each of them could put: they see each other asleep.
    """
    report, sender = ctx.Pipe(duplex=False)
    closing.callback(report.close)
    count = 2 if kind == "queue" else 1
    parent = ctx.Process(
        target=waiting.make_and_raise_children, args=(pair.spec, sender, kind, count), daemon=False
    )
    parent.start()
    sender.close()
    pids = report.recv()

    parent.kill()
    parent.join(_SECONDS)

    for _ in pids:
        assert report.poll(_SECONDS)
        kinds, text, name, pid = report.recv()
        assert "PeerDiedError" in kinds, text
        assert (parent.name, parent.pid) == (name, pid)
    parent.close()


@pytest.mark.one_pair_per("transport")
def test_limited_waits_keep_their_meaning(ctx: Any, start: Any, closing: ExitStack) -> None:
    """A timeout, or none at all, raises what it always did, whoever has died."""
    queue = ctx.Queue(1)
    here, there = ctx.Pipe()
    for each in (queue, here, there):
        closing.callback(each.close)
    start(waiting.die, queue, there).join(_SECONDS)

    with pytest.raises(Empty):
        queue.get(timeout=0.01)
    with pytest.raises(Empty):
        queue.get_nowait()
    queue.put(1)
    with pytest.raises(Full):
        queue.put(2, timeout=0.01)
    with pytest.raises(Full):
        queue.put_nowait(2)
    assert not here.poll(0.01)


@pytest.mark.one_pair_per("method")
def test_a_supervisor_may_restart_who_has_died(
    ctx: Any, start: Any, closing: ExitStack, quick: None
) -> None:
    """While another thread replaces dead workers, the wait for a result goes on."""
    queue = ctx.Queue()
    closing.callback(queue.close)
    first = start(waiting.die, queue)

    def supervise() -> None:
        for _ in range(4):
            first.join(_SECONDS)
            start(waiting.die, queue).join(_SECONDS)
        start(queue.put, "result").join(_SECONDS)

    with pytest.warns() if pair_forks(ctx) else ExitStack():
        supervisor = threading.Thread(target=supervise)
        supervisor.start()
        assert "result" == queue.get()
        supervisor.join(_SECONDS)


def pair_forks(ctx: Any) -> bool:
    """Whether starts of this context warn of threads."""
    return bool(ctx.get_start_method() == "fork")


@pytest.mark.one_pair_per("method")
def test_a_wait_goes_on_while_somebody_is_awake(
    ctx: Any, start: Any, closing: ExitStack, quick: None
) -> None:
    """One dead producer is no reason while another one lives, however slow it is."""
    queue = ctx.Queue()
    orders, there = ctx.Pipe()
    for each in (queue, orders, there):
        closing.callback(each.close)
    start(waiting.die, queue).join(_SECONDS)
    start(waiting.put_when_told, queue, there)

    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(queue.get)
        with pytest.raises(TimeoutError):
            result.result(0.8)  # eight looks
        orders.send("late")
        assert "late" == result.result(_SECONDS)


@pytest.mark.one_pair_per("method")
def test_a_clean_end_is_no_death(ctx: Any, start: Any, closing: ExitStack, quick: None) -> None:
    """A producer that has ended as it should does not end the wait of its consumer."""
    queue = ctx.Queue()
    closing.callback(queue.close)
    start(waiting.close_at_once, queue).join(_SECONDS)

    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(queue.get)
        with pytest.raises(TimeoutError):
            result.result(0.5)
        queue.put("after all")
        assert "after all" == result.result(_SECONDS)


@pytest.mark.one_pair_per("method")
def test_join_names_who_took_what_is_undone(
    ctx: Any, start: Any, closing: ExitStack, quick: None
) -> None:
    """Also when it ended well; and whoever reports it as done in its place helps the next join."""
    queue = ctx.JoinableQueue()
    closing.callback(queue.close)
    queue.put(1)
    child = start(waiting.take_and_forget, queue)

    with pytest.raises(PeerDiedError, match="has ended with exit code 0") as caught:
        queue.join()

    assert child.pid == caught.value.pid
    queue.task_done()
    queue.join()


def test_who_waits_sees_only_its_own_dead(start: Any, ctx: Any, closing: ExitStack) -> None:
    """The error is of the child that had the object, not of another one that died, too."""
    receiver, sender = ctx.Pipe(duplex=False)
    other, others = ctx.Pipe()
    for each in (receiver, other, others):
        closing.callback(each.close)
    child = start(waiting.die, sender)
    child.join(_SECONDS)
    start(waiting.die, others).join(_SECONDS)
    sender.close()

    with pytest.raises(PeerDiedError) as caught:
        receiver.recv()

    assert child.pid == caught.value.pid
    assert os.getpid() != caught.value.pid
