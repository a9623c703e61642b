"""Core's own part of connections and queues, on a transport that is only memory."""

from __future__ import annotations

import queue
from typing import Any

import pytest

import procession
from procession import connection


@pytest.fixture
def ends(ctx: Any) -> Any:
    """The two ends of a pipe."""
    first, second = ctx.Pipe()
    yield first, second
    first.close()
    second.close()


def test_objects_go_through_any_channel(ends: Any) -> None:
    """A plugin's channel carries bytes; objects are core's business."""
    first, second = ends

    first.send({"answer": [42, None, "hello"]})
    second.send_bytes(b"raw")

    assert {"answer": [42, None, "hello"]} == second.recv()
    assert b"raw" == first.recv_bytes()


def test_directions_are_kept(ctx: Any) -> None:
    """The first end of a one-way pipe only receives, and the second only sends."""
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        with pytest.raises(OSError, match="read-only"):
            receiver.send(1)
        with pytest.raises(OSError, match="write-only"):
            sender.recv()


def test_what_was_sent_is_received_before_the_end(ends: Any) -> None:
    """Closing one end loses nothing; then the other one sees the end."""
    first, second = ends
    first.send("last words")
    first.close()

    assert second.poll(0)
    assert "last words" == second.recv()
    with pytest.raises(EOFError):
        second.recv()
    with pytest.raises(BrokenPipeError):
        second.send("anybody?")


def test_waiting_uses_the_channel_s_descriptor(ends: Any) -> None:
    """`wait` needs nothing of a channel but `fileno`."""
    first, second = ends

    assert [] == connection.wait([first, second], 0)
    first.send(1)
    assert [second] == connection.wait([first, second], 5)
    second.recv()


def test_a_closed_end_says_that_it_is_closed(ends: Any) -> None:
    """Closed by us is not the same as ended by the other side."""
    first, _ = ends
    first.close()

    assert first.closed
    with pytest.raises(OSError, match="closed"):
        first.send(1)
    with pytest.raises(OSError, match="closed"):
        first.poll()


def test_the_default_mailbox_makes_queues_of_any_pair(ctx: Any) -> None:
    """A transport that offers pairs and nothing else has queues, limits and shutdown."""
    items = ctx.Queue(maxsize=2)
    items.put("a")
    items.put("b")

    assert 2 == items.qsize()
    assert items.full()
    with pytest.raises(queue.Full):
        items.put_nowait("c")
    items.shutdown()
    assert ["a", "b"] == [items.get(), items.get()]
    with pytest.raises(procession.ShutDown):
        items.get()
    items.close()
    with pytest.raises(ValueError, match="is closed"):
        items.put("d")
