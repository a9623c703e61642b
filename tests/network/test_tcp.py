"""Ends and queues of the transport `tcp` that dial back: here to this very host.

What they do over a cable that can be cut is in `test_between_hosts`.
"""

from __future__ import annotations

import os
import pickle
import queue
import random
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("procession_tcp")

import procession
from procession import errors
from procession.connection import Client, Listener
from procession.shared_memory import AnonymousMemory
from procession.testing import payloads
from procession.testing.forked import crew, until

HERE = Path(__file__).parent
KEY = b"the family's key"
#: What carries messages between hosts are threads, and a fork without them is what is tried.
with_threads = pytest.mark.filterwarnings("ignore::procession.errors.ForkWithThreadsWarning")


@pytest.fixture(autouse=True)
def reachable(monkeypatch: pytest.MonkeyPatch, certificates: Any) -> Iterator[None]:
    """This host is reached at its loopback address, by certificates."""
    files = certificates.files()
    for name, file in zip(("CERTIFICATE", "KEY", "AUTHORITY"), files, strict=True):
        monkeypatch.setenv(f"PROCESSION_TLS_{name}", str(file))
    monkeypatch.setenv("PROCESSION_TCP_BIND", "127.0.0.1")
    me = procession.current_process()
    before, me.authkey = me.authkey, KEY
    yield
    me.authkey = before


@pytest.fixture
def ctx() -> Any:
    """A context of the transport."""
    return procession.get_context("fork", transport="tcp")


@pytest.fixture
def pipe(ctx: Any, cleanup: ExitStack) -> Callable[..., tuple[Any, Any]]:
    """Make a pipe that is closed after the test."""

    def pipe(duplex: bool = True) -> tuple[Any, Any]:
        first, second = ctx.Pipe(duplex)
        cleanup.callback(first.close)
        cleanup.callback(second.close)
        return first, second

    return pipe


@pytest.fixture
def send_away(cleanup: ExitStack) -> Callable[[Any], Any]:
    """Send something to another host, which is this one: what arrives there is returned."""

    def send_away(thing: Any) -> Any:
        copy = pickle.loads(pickle.dumps(thing))
        thing.close()
        cleanup.callback(copy.close)
        return copy

    return send_away


@pytest.fixture
def run(cleanup: ExitStack) -> Callable[..., tuple[subprocess.Popen[bytes], Any]]:
    """Run a function of `programs/guest.py`; return its process and a connection to it."""
    listener = cleanup.enter_context(Listener(("127.0.0.1", 0), authkey=KEY))

    def run(function: str) -> tuple[subprocess.Popen[bytes], Any]:
        line = [sys.executable, str(HERE / "programs" / "guest.py"), function]
        process = subprocess.Popen([*line, str(listener.address[1])])

        def end() -> None:
            process.kill()
            process.wait()

        cleanup.callback(end)
        return process, cleanup.enter_context(listener.accept())

    return run


def receive_all(end: Any) -> None:
    """Receive until that fails."""
    while True:
        end.recv()


# -- ends --------------------------------------------------------------------------------


def test_objects_both_ways(pipe: Any, send_away: Any) -> None:
    """An end that was sent away is an end like any other."""
    here, there = pipe()
    there = send_away(there)
    for size in (0, 1, 5_000, 300_000):
        here.send([bytes(size)])
        assert [bytes(size)] == there.recv()
        there.send_bytes(bytes(size))
        assert bytes(size) == here.recv_bytes()
    assert not here.poll(0)
    assert not there.poll(0)


def test_memory_through_a_tunnel(pipe: Any, send_away: Any) -> None:
    """Descriptors do not follow to another host; on this one, they are fetched from the tunnel."""
    here, there = pipe()
    here.send(AnonymousMemory(5))
    there = send_away(there)
    here.send(AnonymousMemory(6))
    assert [5, 6] == [there.recv().size for _ in range(2)]
    there.send(AnonymousMemory(7))
    assert 7 == here.recv().size
    here.close()
    with pytest.raises(errors.EndOfConnectionError):
        there.recv()


def test_without_certificates(pipe: Any, send_away: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authkey is enough from Python 3.13 on; before, loopback needs no encryption."""
    from procession_tcp._dock import dock

    for name in ("CERTIFICATE", "KEY", "AUTHORITY"):
        monkeypatch.delenv(f"PROCESSION_TLS_{name}")
    here, there = pipe()
    pickled = pickle.dumps(there)
    assert dock._word == ("authkey" if getattr(ssl, "HAS_PSK", False) else "plain")
    there.close()
    with pickle.loads(pickled) as there:
        there.send("hello")
        assert "hello" == here.recv()
    with pytest.raises(errors.EndOfConnectionError):
        here.recv()


def test_arrays(pipe: Any, send_away: Any) -> None:
    """They arrive whole and can be written to."""
    numpy = pytest.importorskip("numpy")
    here, there = pipe()
    there = send_away(there)
    here.send(numpy.arange(100_000))
    array = there.recv()
    array += 1
    assert (numpy.arange(100_000) + 1 == array).all()


@pytest.mark.parametrize("which", [0, 1], ids=["reader", "writer"])
def test_one_way(which: int, pipe: Any, send_away: Any) -> None:
    """Either end of a one-way pipe may leave, and can do what it could."""
    ends = list(pipe(False))
    ends[which] = send_away(ends[which])
    reader, writer = ends
    writer.send("hello")
    assert "hello" == reader.recv()
    with pytest.raises(OSError, match="read-only"):
        reader.send(1)
    with pytest.raises(OSError, match="write-only"):
        writer.recv()
    writer.close()
    with pytest.raises(errors.EndOfConnectionError):
        reader.recv()


@pytest.mark.parametrize("closing", ["here", "there"])
def test_an_end_that_is_closed(closing: str, pipe: Any, send_away: Any) -> None:
    """Everything that was sent arrives, then the end; and sending fails soon."""
    here, there = pipe()
    there = send_away(there)
    first, second = (here, there) if closing == "here" else (there, here)
    for number in range(100):
        first.send((number, bytes(10_000)))
    first.close()
    assert list(range(100)) == [second.recv()[0] for _ in range(100)]
    with pytest.raises(errors.EndOfConnectionError):
        second.recv()
    with pytest.raises(errors.BrokenConnectionError):
        second.send("anybody?")


def test_a_ticket_is_good_for_one(pipe: Any, cleanup: ExitStack) -> None:
    """Whoever comes second hears who has sent it, and that somebody has it."""
    here, there = pipe()
    pickled = pickle.dumps(there)
    other = pickle.dumps(here)  # the listener stays as long as something is on offer
    first = pickle.loads(pickled)
    cleanup.callback(first.close)
    with pytest.raises(errors.DescriptorLostError, match="somebody has fetched it") as caught:
        pickle.loads(pickled)
    assert f"pid {os.getpid()}" in str(caught.value)
    assert socket.gethostname() in str(caught.value)
    pickle.loads(other).close()
    with pytest.raises(errors.DescriptorLostError, match="cannot be reached"):
        pickle.loads(pickled)


def test_who_does_not_know_the_key(pipe: Any, cleanup: ExitStack) -> None:
    """Neither a stranger nor garbage gets anything, and what is on offer stays on offer."""
    here, there = pipe()
    pickled = pickle.dumps(there)
    me = procession.current_process()
    me.authkey = b"another"
    with pytest.raises(errors.AuthenticationError):
        pickle.loads(pickled)
    me.authkey = KEY
    from procession_tcp._dock import dock

    assert dock._listener is not None
    address = dock._listener.address
    assert isinstance(address, tuple)
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", bytes(1000), b""):
        with socket.create_connection(address[:2]) as stranger:
            stranger.sendall(garbage)
    copy = pickle.loads(pickled)
    cleanup.callback(copy.close)
    copy.send("hello")
    assert "hello" == here.recv()


def test_a_guest_with_a_wrong_ticket(pipe: Any) -> None:
    """Knowing the key is not enough for what others were sent."""
    here, there = pipe()
    pickled = pickle.dumps(there)
    from procession.tls import Tls
    from procession_tcp._dock import dock

    assert dock._listener is not None
    with Client(dock._listener.address, authkey=KEY, tls=Tls.from_environment()) as guest:
        guest.send_bytes(bytes(16))
        assert b"-" == guest.recv_bytes()
    with Client(dock._listener.address, authkey=KEY, tls=Tls.from_environment()) as guest:
        guest.send_bytes(bytes(17))
        with pytest.raises((EOFError, OSError)):
            guest.recv_bytes()
    pickle.loads(pickled).close()
    with pytest.raises(errors.EndOfConnectionError):
        here.recv() if not there.close() else None


def test_a_process_that_ends(pipe: Any, run: Any) -> None:
    """What it has sent arrives, although it ends at once and closes nothing."""
    here, there = pipe()
    process, control = run("send_and_end")
    control.send(there)
    there.close()
    assert 4_000_000 == len(here.recv_bytes())
    assert "last words" == here.recv()
    with pytest.raises(errors.EndOfConnectionError):
        here.recv()
    assert 0 == process.wait(30)


def test_a_process_that_is_killed(pipe: Any, run: Any) -> None:
    """That is no proper end: something may be missing."""
    here, there = pipe()
    process, control = run("send_for_ever")
    control.send(there)
    there.close()
    here.recv()
    process.kill()
    with pytest.raises(errors.BrokenConnectionError, match="was cut"):
        receive_all(here)


def test_the_sender_is_killed(pipe: Any, run: Any) -> None:
    """The end goes with the process that it leads to."""
    process, control = run("make_pipe")
    there = control.recv()
    assert "hello" == there.recv()
    process.kill()
    with pytest.raises(errors.BrokenConnectionError, match="was cut"):
        there.recv()
    there.close()


@with_threads
def test_children_of_the_receiver(pipe: Any, send_away: Any) -> None:
    """It may be inherited and handed over there, by every start method."""
    for method in procession.get_all_start_methods():
        here, there = pipe()
        there = send_away(there)
        ctx = procession.get_context(method, transport="tcp")
        process = ctx.Process(target=payloads.send_all, args=(there, ["from a child"]))
        process.start()
        assert "from a child" == here.recv()
        process.join()
        process.close()


def test_it_can_be_sent_on(pipe: Any, send_away: Any) -> None:
    """From the other host to a third one."""
    here, there = pipe()
    there = send_away(send_away(there))
    here.send("hello")
    assert "hello" == there.recv()
    there.send("fine")
    assert "fine" == here.recv()


def test_an_end_that_nobody_fetches(ctx: Any) -> None:
    """It is offered until its process ends; the program for that is a child."""
    with crew() as fork:
        assert 0 == fork(lambda: bool(pickle.dumps(ctx.Pipe()[0]))).join()


# -- queues ------------------------------------------------------------------------------


@pytest.fixture
def queues(ctx: Any, cleanup: ExitStack) -> Callable[..., tuple[Any, Any]]:
    """Make a queue here, and what another host has of it."""

    def queues(maxsize: int = 0, kind: str = "JoinableQueue") -> tuple[Any, Any]:
        here = getattr(ctx, kind)(maxsize) if kind != "SimpleQueue" else ctx.SimpleQueue()
        cleanup.callback(here.close)
        there = pickle.loads(pickle.dumps(here))
        cleanup.callback(there.close)
        return here, there

    return queues


def test_a_queue_both_ways(queues: Any) -> None:
    """Objects of every size, in order; the size is that of the one queue."""
    here, there = queues()
    for size in (0, 10, 5_000, 500_000):
        there.put(bytes(size))
        here.put(size)
        assert 2 == here.qsize() == there.qsize()
        assert bytes(size) == there.get()
        assert size == here.get()
    assert there.empty()


def test_full_and_empty(queues: Any) -> None:
    """Limits and timeouts are the queue's own."""
    here, there = queues(1)
    with pytest.raises(queue.Empty):
        there.get_nowait()
    with pytest.raises(queue.Empty):
        there.get(timeout=0.7)
    there.put(1)
    assert there.full()
    with pytest.raises(queue.Full):
        there.put(2, block=False)
    with pytest.raises(queue.Full):
        there.put(2, timeout=0.7)
    assert 1 == here.get()


def test_waiting_for_the_other_host(queues: Any, in_thread: Any) -> None:
    """Who waits there is woken by what happens here."""
    here, there = queues(1)
    getting = in_thread(there.get)
    here.put("hello")
    assert "hello" == getting.result()
    here.put("full")
    putting = in_thread(there.put, "more")
    assert "full" == here.get()
    putting.result()
    assert "more" == here.get()
    for _ in range(3):
        there.task_done()
    with pytest.raises(ValueError, match="too many times"):
        there.task_done()
    there.join()


def test_join_and_shutdown(queues: Any, in_thread: Any) -> None:
    """Also across hosts."""
    here, there = queues()
    here.put(1)
    joining = in_thread(there.join)
    assert 1 == there.get()
    there.task_done()
    joining.result()
    here.put(2)
    there.shutdown()
    with pytest.raises(procession.ShutDown):
        here.put(3)
    assert 2 == there.get()
    with pytest.raises(procession.ShutDown):
        there.get()


def test_what_cannot_be_pickled(queues: Any) -> None:
    """It raises in `put`, and the queue goes on."""
    here, there = queues()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        there.put(lambda: None)
    there.put(1)
    assert 1 == here.get()


def test_simple_queues(queues: Any) -> None:
    """They travel, too."""
    here, there = queues(kind="SimpleQueue")
    there.put("hello")
    assert "hello" == here.get()


def test_many_users(queues: Any, run: Any) -> None:
    """Each object is got exactly once, whichever host its user is on."""
    here, there = queues()
    others = [run("work") for _ in range(3)]
    results = pickle.loads(pickle.dumps(here))
    tasks, _ = queues()
    for _, control in others:
        control.send((tasks, here))
    for number in range(300):
        tasks.put(number)
    assert sorted(results.get() for _ in range(300)) == list(range(300))
    for _ in others:
        tasks.put(None)
    for process, _ in others:
        assert 0 == process.wait(30)
    results.close()
    there.close()


def test_guests_that_are_killed(queues: Any, run: Any) -> None:
    """At random moments: nothing is got twice, and each takes one object along at most."""
    kills = int(os.environ.get("PROCESSION_KILLS", "4"))
    chance = random.Random(os.environ.get("PROCESSION_SEED", "11"))
    tasks, _ = queues()
    results, _ = queues()
    count, got = 0, []
    for _ in range(kills):
        process, control = run("work")
        control.send((tasks, results))
        for _ in range(200):
            tasks.put(count)
            count += 1
        got.append(results.get(timeout=30))  # it is at work
        time.sleep(chance.random() * 0.05)
        process.kill()
        process.wait()
        control.close()
    process, control = run("work")
    control.send((tasks, results))
    tasks.put(None)
    assert 0 == process.wait(40)
    got += [results.get() for _ in range(results.qsize())]
    assert len(got) == len(set(got))
    assert count - kills <= len(got) <= count


def test_who_waits_and_is_killed_takes_nothing(queues: Any, run: Any) -> None:
    """What comes afterwards is for the others."""
    here, _ = queues()
    process, control = run("get_once")
    control.send(here)
    assert "waiting" == control.recv()
    process.kill()
    process.wait()
    time.sleep(1.2)  # the longest time for which the server does not look
    here.put("for the living")
    assert "for the living" == here.get(timeout=10)


def test_a_queue_of_a_process_that_is_killed(run: Any) -> None:
    """It is gone, which everybody hears who waits for it; its address is in the error."""
    process, control = run("make_queue")
    there = control.recv()
    assert "hello" == there.get()
    process.kill()
    with pytest.raises(errors.BrokenConnectionError, match="queue that is served at 127"):
        there.get()
    process.wait()
    with pytest.raises((errors.DescriptorLostError, errors.BrokenConnectionError)):
        there.put(1)
    there.close()


def test_a_queue_that_was_closed(queues: Any) -> None:
    """Its owner has taken it back."""
    here, there = queues()
    there.put(1)
    assert 1 == here.get()
    here.close()
    with pytest.raises(OSError, match="queue"):
        there.put(2)


@with_threads
def test_children_use_a_queue_of_another_host(queues: Any, method: str) -> None:
    """Whether forked or fresh, they have connections of their own."""
    here, there = queues()
    there.put("used before")
    assert "used before" == here.get()
    ctx = procession.get_context(method, transport="tcp")
    process = ctx.Process(target=payloads.put_all, args=(there, [1, 2, 3]))
    process.start()
    assert [1, 2, 3] == [here.get() for _ in range(3)]
    process.join()
    assert 0 == process.exitcode
    process.close()
    there.put("used afterwards")
    assert "used afterwards" == here.get()


def test_nothing_to_wait_on(queues: Any) -> None:
    """A descriptor that tells of another host's queue does not exist: that is said."""
    _, there = queues()
    with pytest.raises(OSError, match="get has a timeout"):
        there.fileno()


def test_the_dock_closes(queues: Any) -> None:
    """Nobody listens any more when nothing is on offer."""
    here, there = queues()
    from procession_tcp._dock import dock

    assert dock._listener is not None
    there.close()
    here.close()
    until(lambda: dock._listener is None)
