"""Luggage of a ring: several processes at both ends, some of which are killed.

``PROCESSION_KILLS`` sets how many processes are killed in each case.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("rings are a Linux thing", allow_module_level=True)

from procession import errors
from procession.connection import Connection, pipe
from procession.plugin import Porter
from procession.shared_memory import AnonymousMemory
from procession.testing.forked import crew, until
from procession_ring import Ring

KILLS = int(os.environ.get("PROCESSION_KILLS", "3"))
SIZE = 32 << 10
Ends = tuple[Connection, Connection]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Both ends of a ring that never has more messages than there is room for descriptors."""
    here, there = pipe(Ring(size=SIZE))
    with here, there:
        yield here, there


def wrap(ends: Ends, side: str, wrapper: Callable[..., Any], patch: pytest.MonkeyPatch) -> None:
    """Have *wrapper* called instead of one side of the porter, which it is given."""
    original = getattr(Porter, side)
    if side == "_post":
        patch.setattr(Porter, side, lambda *arguments: wrapper(partial(original, *arguments)))
        return
    channel: Any = ends[1].channel
    channel._end.carry(lambda buffers: wrapper(partial(original, channel._porter, buffers)))


def send_all(end: Connection, first: int, count: int) -> None:
    """Send memories of as many bytes as the message says."""
    for size in range(first, first + count):
        end.send((size, AnonymousMemory(size), b"x" * (size % 5 * 100)))


def receive_until_none(end: Connection, told: Connection) -> None:
    """Receive memories, which must be those of their messages, and say which came."""
    while (message := end.recv()) is not None:
        size, memory, _ = message
        assert size == memory.size
        told.send(size)


def test_many_processes_at_both_ends(ends: Ends) -> None:
    """Whoever sends and whoever receives, what comes with a message is its own."""
    here, there = ends
    count = 150
    told, tell = pipe(Ring(), duplex=False)
    with told, tell, crew() as fork:
        receivers = [fork(lambda: receive_until_none(there, tell)) for _ in range(3)]
        senders = [fork(partial(send_all, here, first, count)) for first in (1, 1001, 2001)]
        found = sorted(told.recv() for _ in range(3 * count))
        expected = [first + each for first in (1, 1001, 2001) for each in range(count)]
        assert expected == found
        assert [0, 0, 0] == [each.join() for each in senders]
        for _ in receivers:
            here.send(None)
        assert [0, 0, 0] == [each.join() for each in receivers]


@pytest.mark.once
def test_killed_at_both_ends(ends: Ends) -> None:
    """Senders and receivers killed at any instant mix nothing up, and leave nothing behind."""
    here, there = ends
    told, tell = pipe(Ring(), duplex=False)
    used = 0

    def victim() -> None:
        while True:
            send_all(here, 5000, 1)

    def taker() -> None:
        while True:
            size, memory, _ = there.recv()
            assert size == memory.size

    with told, tell, crew() as fork:
        for round in range(KILLS):
            receiver = fork(lambda: receive_until_none(there, tell))
            killed = [fork(victim), fork(taker)]
            sender = fork(lambda: send_all(here, 1, 200))
            for count in range(100 * (round % 5 + 1)):
                assert told.recv() in (*range(1, 201), 5000), count
            for each in killed:
                each.kill()
                each.join()
            assert 0 == sender.join()
            here.send(None)
            while not receiver.stopped():
                if told.poll(0.01):
                    told.recv()
            assert 0 == receiver.join()
            while told.poll():
                told.recv()
            assert not there.poll()
            # Those whose sender was killed between the descriptors and the message are let go
            # of with the next one.
            here.send((1, AnonymousMemory(1)))
            assert 1 == there.recv()[1].size
            gc.collect()
            now = len(os.listdir("/proc/self/fd"))
            used = used or now
            assert now <= used + round + 1


def test_interrupted_between_descriptors_and_message(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler that sends luggage in the middle of sending some gets it across, too."""
    here, there = ends
    nested: list[Any] = []

    def interrupted(post: Callable[[], Any]) -> Any:
        found = post()
        if not nested:
            nested.append(None)
            here.send(AnonymousMemory(2))
        return found

    wrap(ends, "_post", interrupted, monkeypatch)
    here.send(AnonymousMemory(1))
    assert [2, 1] == [there.recv().size for _ in range(2)]
    here.send(AnonymousMemory(3))
    assert 3 == there.recv().size
    until(lambda: not [each for each in threading.enumerate() if "broker" in each.name])


@pytest.mark.parametrize("side", ["_post", "receive"])
def test_forked_in_the_middle(ends: Ends, monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    """A child that is forked in the middle of a call leaves it to its parent."""
    here, there = ends
    reader, writer = os.pipe()

    def forking(original: Callable[[], Any]) -> Any:
        found = original()
        if (pid := os.fork()) == 0:
            return found
        os.waitpid(pid, 0)
        return found

    wrap(ends, side, forking, monkeypatch)
    parent = os.getpid()
    size = 0
    try:
        here.send(AnonymousMemory(1))
        size = there.recv().size
    except BaseException as error:
        if os.getpid() == parent:
            raise
        os.write(writer, type(error).__name__.encode())
    finally:
        if os.getpid() != parent:
            os._exit(0)
    assert 1 == size
    os.close(writer)
    # In Python, the lock of the side, which is not the child's, says so first.
    assert os.read(reader, 100) in (b"BusyConnectionError", b"OSError")
    os.close(reader)
    monkeypatch.undo()
    for size in (2, 3):  # the sides are free
        there.send(AnonymousMemory(size))
        assert size == here.recv().size


@pytest.mark.parametrize("side", ["_post", "receive"])
def test_closed_in_the_middle(ends: Ends, monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    """An end that is closed while it sends or receives says so, and holds nothing."""
    here, there = ends
    before = len(os.listdir("/proc/self/fd"))

    def closing(original: Callable[[], Any]) -> Any:
        found = original()
        (here if side == "_post" else there).close()
        return found

    wrap(ends, side, closing, monkeypatch)
    if side == "_post":
        with pytest.raises(errors.ConnectionClosedError):
            here.send(AnonymousMemory(1))
    else:
        here.send(AnonymousMemory(1))
        assert 1 == there.recv().size  # it was there already
    here.close()
    there.close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) < before


@pytest.mark.parametrize("side", ["_post", "receive"])
def test_handler_raises_in_the_middle(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """It loses this message only."""
    here, there = ends
    raised: list[Any] = []

    def interrupt(original: Callable[[], Any]) -> Any:
        found = original()
        if not raised:
            raised.append(None)
            raise KeyboardInterrupt
        return found

    wrap(ends, side, interrupt, monkeypatch)
    if side == "_post":
        with pytest.raises(KeyboardInterrupt):
            here.send(AnonymousMemory(1))
    else:
        here.send(AnonymousMemory(1))
        with pytest.raises(KeyboardInterrupt):
            there.recv()
    here.send(AnonymousMemory(2))
    assert 2 == there.recv().size


def test_sender_without_descriptors_to_spare(ends: Ends) -> None:
    """Memory that exists can be sent by who cannot open anything any more."""
    here, there = ends
    memory = AnonymousMemory(5)
    here.send(memory)
    assert 5 == there.recv().size

    def child() -> None:
        here.send(memory)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        here.send(memory)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with crew() as fork:
        process = fork(child)
        assert [5, 5] == [there.recv().size for _ in range(2)]
        assert 0 == process.join()


def test_a_message_without_body_is_nobodys(ends: Ends) -> None:
    """What no sender of luggage has sent is an error that says so, and the next one comes."""
    here, there = ends
    here.channel.send(b"", [b"something"])
    with pytest.raises(OSError, match="bad message"):
        there.recv()
    here.send("next")
    assert "next" == there.recv()


def test_sender_stopped_after_its_descriptors(ends: Ends) -> None:
    """Others wait for a sender that was stopped in the middle, and nothing is mixed up."""
    here, there = ends
    ready, readied = os.pipe()

    def stopping() -> None:
        post = Porter._post

        def post_and_stop(self: Porter, *arguments: Any) -> bool:
            found = post(self, *arguments)
            os.write(readied, b"x")
            os.kill(os.getpid(), signal.SIGSTOP)
            return found

        setattr(Porter, "_post", post_and_stop)  # noqa: B010 - mypy: it is a method
        here.send(AnonymousMemory(1))

    with crew() as fork:
        stopped = fork(stopping)
        os.read(ready, 1)
        other = fork(lambda: here.send(AnonymousMemory(2)))
        assert not there.poll(0.05)
        os.kill(stopped.pid, signal.SIGCONT)
        assert [1, 2] == [there.recv().size for _ in range(2)]
        assert [0, 0] == [stopped.join(), other.join()]
        stopped = fork(stopping)
        os.read(ready, 1)
        other = fork(lambda: here.send(AnonymousMemory(4)))
        stopped.kill()
        assert 4 == there.recv().size
        assert 0 == other.join()
    os.close(ready)
    os.close(readied)
