"""What two hosts do with each other; see `hosts`. Each scenario has a near and a far side."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from tests.network.programs.hosts import FAR, NEAR, Cable, within

import procession
from procession import aio, errors
from procession.connection import Client, Connection, Listener, wait
from procession.managers import SyncManager
from procession.tls import Tls

if sys.platform != "linux":
    raise SystemExit("network namespaces are a Linux thing")

KEY = b"the key"
PORT = 4711
#: How long a silence may be, and how much longer until it is noticed at the latest.
SILENCE, MARGIN = 3.0, 8.0
BIG = 30_000_000
#: What stands in the place of a file where nothing is encrypted.
PLAIN = "plain"


def tls_of(files: list[str]) -> Tls | None:
    """How both sides encrypt here; not at all without files."""
    return Tls.from_certificates(*files) if files[0] != PLAIN else None


def listen(files: list[str]) -> Listener:
    """The near host's listener."""
    return Listener((NEAR, PORT), authkey=KEY, tls=tls_of(files), silence=SILENCE)


def dial(files: list[str], timeout: float = 20) -> Connection:
    """The far host's connection to it."""
    for _ in range(100):
        try:
            return Client(
                (NEAR, PORT), authkey=KEY, tls=tls_of(files), timeout=timeout, silence=SILENCE
            )
        except ConnectionRefusedError:
            time.sleep(0.05)  # it does not listen yet
    raise TimeoutError("nobody listens")


# -- traffic, also over a bad cable ------------------------------------------------------


def traffic_near(cable: Cable, files: list[str], far: subprocess.Popen[bytes]) -> None:
    """Messages of all sizes both ways, while one packet in a hundred is lost."""
    with listen(files) as listener, listener.accept() as end:
        cable.loss = 0.01
        for size in (0, 1, 1000, 20_000, 3_000_000):
            end.send_bytes(bytes(size))
            assert size == len(end.recv_bytes())
        end.send(None)
    assert 0 == far.wait(30)


def traffic_far(files: list[str]) -> None:
    """Send everything back."""
    with dial(files) as end:
        for _ in range(5):
            end.send_bytes(end.recv_bytes())
        assert end.recv() is None


# -- ends and queues that were sent ------------------------------------------------------


def _prepare(host: str, files: list[str]) -> None:
    procession.current_process().authkey = KEY
    os.environ["PROCESSION_TCP_BIND"] = host
    for name, file in zip(("CERTIFICATE", "KEY", "AUTHORITY"), files, strict=True):
        os.environ[f"PROCESSION_TLS_{name}"] = file
    os.environ["PROCESSION_SILENCE"] = str(SILENCE)


def sent_near(cable: Cable, files: list[str], far: subprocess.Popen[bytes]) -> None:
    """An end and a queue are used on the far host; then the cable is cut."""
    _prepare(NEAR, files)
    ctx = procession.get_context(transport="tcp")
    here, there = ctx.Pipe()
    queue = ctx.JoinableQueue()
    cable.loss = 0.01
    with listen(files) as listener, listener.accept() as control:
        control.send((there, queue))
        there.close()
        for number in range(50):
            queue.put(number)
        assert list(range(50)) == [here.recv() for _ in range(50)]
        queue.join()
        here.send(bytes(2_000_000))
        assert 2_000_000 == len(here.recv())
        cable.cut.set()
        error = within(SILENCE + MARGIN, here.recv)
        assert isinstance(error, errors.BrokenConnectionError), repr(error)
        assert FAR in str(error), str(error)
        queue.close()
    assert 0 == far.wait(30)


def sent_far(files: list[str]) -> None:
    """Use them, from a thread each; notice the cut in both."""
    _prepare(FAR, files)
    with dial(files) as control:
        end, queue = control.recv()
        for _ in range(50):
            end.send(queue.get())
            queue.task_done()
        end.send(end.recv())
        failures = []

        def wait_for_more() -> None:
            failures.append(within(SILENCE + MARGIN, queue.get))

        thread = threading.Thread(target=wait_for_more)
        thread.start()
        error = within(SILENCE + MARGIN, end.recv)
        thread.join()
        for each in (error, *failures):
            assert isinstance(each, errors.BrokenConnectionError), repr(each)
            assert NEAR in str(each), str(each)
        queue.close()
        end.close()


# -- a link that is pulled ---------------------------------------------------------------


def pulled_near(cable: Cable, files: list[str], far: subprocess.Popen[bytes]) -> None:
    """The cable is cut in the middle of a message that this side sends."""
    with listen(files) as listener, listener.accept() as end:
        cable.cut_after = BIG // 3
        error = within(SILENCE + MARGIN + 10, end.send_bytes, bytes(BIG))
        assert isinstance(error, errors.BrokenConnectionError), repr(error)
        assert f"the host at {FAR}:" in str(error), str(error)
        # It does not come back to life.
        cable.cut_after = None
        cable.cut.clear()
        assert "vanished" in str(within(1, end.send_bytes, b"more"))
    assert 0 == far.wait(30)


def pulled_far(files: list[str]) -> None:
    """The same on the receiving side."""
    with dial(files) as end:
        error = within(SILENCE + MARGIN + 10, end.recv_bytes)
        assert isinstance(error, errors.BrokenConnectionError), repr(error)
        assert f"{NEAR}:{PORT}" in str(error), str(error)


# -- a host that disappears --------------------------------------------------------------


def vanished_near(cable: Cable, files: list[str], far: subprocess.Popen[bytes]) -> None:
    """While nobody says anything."""
    with listen(files) as listener, listener.accept() as end:
        end.send("ready")
        assert end.recv() == "ready"
        cable.cut.set()
        begun = time.monotonic()
        error = within(SILENCE + MARGIN, end.recv)
        assert isinstance(error, errors.BrokenConnectionError), repr(error)
        assert f"the host at {FAR}:" in str(error), str(error)
        assert time.monotonic() - begun > 1
    assert 0 == far.wait(30)


def vanished_far(files: list[str]) -> None:
    """It has said something that nobody has acknowledged, and polls."""
    with dial(files) as end:
        assert end.recv() == "ready"
        end.send("ready")
        time.sleep(1)
        end.send_bytes(bytes(1000))
        error = within(SILENCE + MARGIN, _poll_for_ever, end)
        assert isinstance(error, errors.BrokenConnectionError), repr(error)
        assert f"{NEAR}:{PORT}" in str(error), str(error)


def _poll_for_ever(end: Connection) -> Any:
    end.poll(None)
    return end.recv()


# -- a receiver that takes its time ------------------------------------------------------


def slow_near(cable: Cable, files: list[str], far: subprocess.Popen[bytes]) -> None:
    """A program that does not receive for long is alive: nothing is broken."""
    with listen(files) as listener, listener.accept() as end:
        end.send_bytes(bytes(BIG))
        assert "thanks" == end.recv()
    assert 0 == far.wait(30)


def slow_far(files: list[str]) -> None:
    """Receive after more than twice the longest silence."""
    with dial(files) as end:
        time.sleep(2.5 * SILENCE)
        assert BIG == len(end.recv_bytes())
        end.send("thanks")


# -- a peer that is killed ---------------------------------------------------------------


def killed_near(cable: Cable, files: list[str], far: subprocess.Popen[bytes]) -> None:
    """Whenever the other process is killed, this side hears of it at once, and listens on."""
    with listen(files) as listener:
        while True:
            with listener.accept() as end:
                said = end.recv()
                if said == "enough":
                    break
                while not isinstance(error := _swallow(end), Exception):
                    pass
                assert isinstance(error, errors.BrokenConnectionError), repr(error)
                assert FAR in str(error), str(error)
    assert 0 == far.wait(30)


def _swallow(end: Connection) -> Any:
    try:
        return end.recv_bytes()
    except (OSError, EOFError) as error:
        return error


def killed_far(files: list[str]) -> None:
    """Children that send for ever are killed after a while."""
    for number in range(int(os.environ.get("PROCESSION_KILLS", "8"))):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            with dial(files) as end:
                end.send("hello")
                os.write(writer, b"x")
                while True:
                    end.send_bytes(bytes(300_000))
        os.read(reader, 1)
        time.sleep(number * 0.007)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
    with dial(files) as end:
        end.send("enough")


# -- a manager ---------------------------------------------------------------------------


def manager_near(cable: Cable, files: list[str], far: subprocess.Popen[bytes]) -> None:
    """A manager's server is used from another host, by nested proxies, too."""
    manager = SyncManager((NEAR, PORT), authkey=KEY, tls=tls_of(files))
    server = manager.get_server()
    threading.Thread(target=_serve, args=(server,), daemon=True).start()
    assert 0 == far.wait(30)
    server.stop_event.set()


def _serve(server: Any) -> None:
    try:
        server.serve_forever()
    except SystemExit:
        pass


def manager_far(files: list[str]) -> None:
    """Connect, and use a dictionary with a list in it."""
    procession.current_process().authkey = KEY
    manager = SyncManager((NEAR, PORT), authkey=KEY, tls=tls_of(files))
    for _ in range(100):
        try:
            manager.connect()
            break
        except errors.ServerDiedError:
            time.sleep(0.05)
    shared = manager.dict(a=1)
    shared["list"] = manager.list([1, 2])
    shared["list"].append(3)
    assert [1, 2, 3] == list(shared["list"])


# -- what waits for a host in other ways -------------------------------------------------


def waits_near(cable: Cable, files: list[str], far: subprocess.Popen[bytes]) -> None:
    """A manager's server, and a connection, on a host that vanishes."""
    manager = SyncManager((NEAR, PORT + 1), authkey=KEY, tls=tls_of(files), silence=SILENCE)
    server = manager.get_server()
    threading.Thread(target=_serve, args=(server,), daemon=True).start()
    with listen(files) as listener, listener.accept() as end:
        assert "waiting" == end.recv()
        cable.cut.set()
        assert [end] == wait([end], SILENCE + MARGIN)
        error = within(1, end.recv)
        assert isinstance(error, errors.BrokenConnectionError), repr(error)
    assert 0 == far.wait(30)
    server.stop_event.set()


def waits_far(files: list[str]) -> None:
    """A call that waits, `connection.wait` with something unanswered, and asyncio."""
    procession.current_process().authkey = KEY
    with dial(files) as end:
        manager = SyncManager((NEAR, PORT + 1), authkey=KEY, tls=tls_of(files), silence=SILENCE)
        manager.connect()
        queue = manager.Queue()
        failures: list[BaseException] = []
        connected = threading.Event()

        def call() -> None:
            queue.qsize()
            connected.set()
            failures.append(within(20, queue.get))

        thread = threading.Thread(target=call)
        thread.start()
        assert connected.wait(20)
        end.send("waiting")
        time.sleep(1)
        end.send_bytes(bytes(1000))
        assert [end] == wait([end], SILENCE + MARGIN)
        error = within(1, asyncio.run, aio.receive(end))
        assert isinstance(error, errors.BrokenConnectionError), repr(error)
        thread.join()
        assert isinstance(failures[0], errors.ServerDiedError), repr(failures)
