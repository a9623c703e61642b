"""Connections in company: many threads on one end, connections that travel, `wait`."""

from __future__ import annotations

import importlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from procession.testing import payloads

DEADLINE = 30.0
Make = Callable[..., Any]
handing_over = pytest.mark.usefixtures("warm_handing_over")


@pytest.mark.beyond("multiprocessing lets messages of several threads interleave")
@pytest.mark.one_pair_per("transport")
@pytest.mark.parametrize("size", [10, 5_000, 200_000])
def test_many_threads_on_each_end(pipe: Make, size: int) -> None:
    """Messages of many senders reach many receivers whole, each exactly once."""
    receiver, sender = pipe(False)
    count, each = 6, 20
    received: list[bytes] = []

    def send(thread: int) -> None:
        for number in range(each):
            sender.send_bytes(bytes([thread, number]) + bytes([thread]) * size)

    def receive() -> None:
        for _ in range(each):
            received.append(receiver.recv_bytes())

    threads = [threading.Thread(target=send, args=(number,)) for number in range(count)]
    threads += [threading.Thread(target=receive) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    assert count * each == len({message[:2] for message in received}) == len(received)
    assert all(bytes([message[0]]) * size == message[2:] for message in received)


@handing_over
def test_connection_through_a_connection(pipe: Make, start: Make) -> None:
    """A connection sent to a running child arrives usable, and stays the sender's own, too."""
    here, there = pipe()
    process = start(payloads.use_received, there)
    receiver, sender = pipe(False)
    here.send(sender)

    assert "hello" == receiver.recv()
    process.join(DEADLINE)
    assert 0 == process.exitcode
    sender.send("mine still")
    assert "mine still" == receiver.recv()


@handing_over
def test_duplex_connection_through_a_connection(pipe: Make, start: Make) -> None:
    """A duplex connection that was sent can be used in both directions."""
    here, there = pipe()
    process = start(payloads.echo_through_received, there)
    near, far = pipe()
    here.send(far)
    far.close()
    near.send([1, "two"])

    assert [1, "two"] == near.recv()
    process.join(DEADLINE)
    assert 0 == process.exitcode


@handing_over
def test_connection_through_a_queue(pipe: Make, queue: Make, start: Make) -> None:
    """A connection put into a queue arrives usable with whoever gets it."""
    items = queue()
    process = start(payloads.use_received, items)
    receiver, sender = pipe(False)
    items.put(sender)

    assert "hello" == receiver.recv()
    process.join(DEADLINE)
    assert 0 == process.exitcode


@handing_over
def test_sent_connection_closes_with_its_last_user(pipe: Make, start: Make) -> None:
    """The other end sees the end of file once sender and receiver have both closed."""
    here, there = pipe()
    process = start(payloads.use_received, there)
    receiver, sender = pipe(False)
    here.send(sender)
    assert "hello" == receiver.recv()
    process.join(DEADLINE)
    sender.close()

    with pytest.raises(EOFError):
        receiver.recv()


@pytest.mark.one_pair_per("method")
def test_killed_child_ends_its_connection(pipe: Make, start: Make) -> None:
    """When a child is killed, what it sent is received and then the end of file."""
    here, there = pipe()
    process = start(payloads.hold, there)
    there.close()
    assert "ready" == here.recv()
    process.kill()
    process.join(DEADLINE)

    assert here.poll(DEADLINE)
    with pytest.raises((EOFError, ConnectionResetError)):
        here.recv()


@pytest.fixture
def wait(subject: str) -> Callable[..., list[Any]]:
    """``connection.wait`` of the package under test."""
    return importlib.import_module(f"{subject}.connection").wait  # type: ignore[no-any-return]


def test_wait_for_sentinels_and_connections(wait: Make, pipe: Make, start: Make) -> None:
    """wait returns whichever is ready among connections and sentinels."""
    here, there = pipe()
    process = start(payloads.hold, there)
    quiet, speaker = pipe(False)

    assert [here] == wait([here, quiet, process.sentinel], DEADLINE)
    assert "ready" == here.recv()
    assert [] == wait([here, quiet, process.sentinel], 0)
    speaker.send("x")
    assert [quiet] == wait([here, quiet, process.sentinel], DEADLINE)
    here.send("go on")
    assert [process.sentinel] == wait([process.sentinel], DEADLINE)
    assert {quiet, process.sentinel} == set(wait([quiet, process.sentinel], DEADLINE))


@pytest.mark.one_pair_per("transport")
def test_wait_for_sockets_and_descriptors(wait: Make, pipe: Make) -> None:
    """wait takes sockets and plain descriptors, too."""
    receiver, sender = pipe(False)
    near, far = socket.socketpair()
    reader, writer = os.pipe()
    with near, far:
        assert [] == wait([near, reader, receiver], 0)
        far.send(b"x")
        assert [near] == wait([near, reader, receiver])
        os.write(writer, b"x")
        sender.send("x")
        assert {near, reader, receiver} == set(wait([near, reader, receiver], None))
    os.close(reader)
    os.close(writer)


@pytest.mark.one_pair_per("transport")
def test_wait_sees_ends(wait: Make, pipe: Make) -> None:
    """A closed other end counts as ready; our own closed end is an error."""
    receiver, sender = pipe(False)
    sender.close()

    assert [receiver] == wait([receiver], DEADLINE)
    receiver.close()
    with pytest.raises(OSError, match="handle is closed"):
        wait([receiver], 0)


@pytest.mark.one_pair_per("transport")
def test_wait_timeouts(wait: Make, pipe: Make) -> None:
    """Zero and negative timeouts do not wait; nothing to wait for is no error."""
    receiver, _ = pipe(False)

    assert [] == wait([receiver], 0)
    assert [] == wait([receiver], -5)
    assert [] == wait([receiver], 0.01)
    assert [] == wait([], 0)
