"""Forks by one thread while another has to do with a manager: the child keeps nothing of it.

A copy of the wrong descriptor in a child that lives on would keep a call waiting for a server
that has died, and a server's thread for a client that has gone.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest

import procession

if sys.platform != "linux":
    pytest.skip("fork and /proc", allow_module_level=True)

from procession import errors
from procession._remote import call_pipes, listener, manager_server
from procession._remote import handshake as _handshake
from procession._remote.manager_session import sessions
from procession.managers import SyncManager
from procession.process import current_process
from procession.testing.forked import Forked, crew, until
from procession.testing.served import KEY, Served

starts_a_server = pytest.mark.skipif(
    not procession.get_all_start_methods(), reason="no start method is installed"
)

#: How many threads there may be at the most, with their descriptors.
MOST = 150

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    """Callbacks to run after the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def served(cleanup: ExitStack) -> Served:
    """A server in a thread of this process, that has been ended after the test."""
    served = Served()
    cleanup.callback(served.end)
    return served


class Bystander:
    """Forks, in a thread of its own, a child that lives until the test is over."""

    def __init__(self, fork: Callable[[Callable[[], object]], Forked]) -> None:
        self._fork = fork
        self._reader, self._writer = os.pipe()
        self.forks = 0

    def go(self, *args: Any) -> None:
        """Fork now, once; give it half a second, for it may have to wait until we have gone on."""
        if not self.forks:
            self.forks = 1
            self._thread = threading.Thread(target=self._fork, args=(self._live,))
            self._thread.start()
            self._thread.join(0.5)

    def _live(self) -> None:
        os.close(self._writer)
        os.read(self._reader, 1)

    def close(self) -> None:
        """Let the child go, after the fork."""
        if self.forks:
            self._thread.join(20)
            assert not self._thread.is_alive(), "the fork does not come to an end"
        os.close(self._reader)
        os.close(self._writer)


@pytest.fixture
def bystander(cleanup: ExitStack) -> Bystander:
    """Another thread of the program."""
    bystander = Bystander(cleanup.enter_context(crew()))
    cleanup.callback(bystander.close)
    return bystander


def in_time(function: Callable[[], Any]) -> Any:
    """Call *function* in a new thread, which has no connections yet; return what it does."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for ever"
    (result,) = results
    return result


@starts_a_server
def test_while_a_client_offers_pipes(
    bystander: Bystander, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has none of the server's ends, so that its death is heard of."""
    manager = cleanup.enter_context(SyncManager())
    shared = manager.dict(a=1)
    process = manager._process
    assert process is not None

    def send_fds(*args: Any) -> Any:
        bystander.go()
        return real(*args)

    real = socket.send_fds
    monkeypatch.setattr(socket, "send_fds", send_fds)

    def call() -> Any:
        assert 1 == shared["a"]
        assert bystander.forks
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        try:
            return shared["a"]
        except errors.ServerDiedError:
            return "died"

    assert "died" == in_time(call)


def test_while_a_server_takes_pipes(
    served: Served, bystander: Bystander, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's child has none of its ends either."""
    shared = served.manager.dict(a=1)

    def receive_descriptors(*args: Any) -> Any:
        received = real(*args)
        bystander.go()
        return received

    real: Any = vars(call_pipes)["receive_descriptors"]
    monkeypatch.setattr(call_pipes, "receive_descriptors", receive_descriptors)
    assert "died" == in_time(lambda: _call_and_end(served, shared))
    assert bystander.forks


def test_while_a_server_serves(served: Served, bystander: Bystander) -> None:
    """Neither has the child of a server its connections, nor does it seem to accept others."""
    shared = served.manager.dict(a=1)

    def call() -> Any:
        assert 1 == shared["a"]
        bystander.go()
        return _call_and_end(served, shared)

    assert "died" == in_time(call)
    address: Any = served.server.address
    with socket.socket(socket.AF_UNIX) as peer, pytest.raises(ConnectionRefusedError):
        peer.connect(address)


def _call_and_end(served: Served, shared: Any) -> str:
    assert 1 == shared["a"]
    served.server.stop_event.set()
    served.thread.join(20)
    try:
        return str(shared["a"])
    except errors.ServerDiedError:
        return "died"


def test_while_a_session_begins(
    served: Served, bystander: Bystander, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child keeps no connection open that the references are tied to."""
    sessions.forget(sessions.get(served.server.address, KEY, "pickle"))
    until(lambda: not served.server._connections)

    def connecting(*args: Any, **kwargs: Any) -> Any:
        bystander.go()
        return real(*args, **kwargs)

    real: Any = vars(listener)["connecting"]
    monkeypatch.setattr(listener, "connecting", connecting)
    manager = SyncManager(served.server.address, authkey=KEY)
    manager.connect()
    assert bystander.forks
    assert served.server._connections
    sessions.forget(sessions.get(served.server.address, KEY, "pickle"))
    until(lambda: not served.server._connections)


def test_while_a_call_is_under_way(served: Served, bystander: Bystander) -> None:
    """The child keeps no line open that another thread is using."""
    event = served.manager.Event()
    thread = threading.Thread(target=event.wait)
    thread.start()
    until(lambda: True in served.kinds())
    bystander.go()
    event.set()
    thread.join()
    del event
    sessions.forget(sessions.get(served.server.address, KEY, "pickle"))
    # What is left is what the child, which has a proxy as well, has opened itself.
    until(lambda: [False] == served.kinds())


def test_while_a_server_checks_a_key(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is put in order in the child, also a handshake that a thread was busy with."""
    shared = served.manager.dict(a=1)
    session = served.manager._session
    assert session is not None
    children: list[Any] = []

    def check_child() -> None:
        assert not hasattr(session._calls, "idle"), "it has its parent's lines"
        assert not served.server._connections
        assert {"a": 1} == shared.copy()

    def wrong(*args: Any) -> Any:
        if not children:
            children.append(None)  # the child comes here, too
            # What it has to ask, the server answers after this.
            forking = threading.Thread(target=lambda: children.append(fork(check_child)))
            forking.start()
            forking.join(20)
        return real(*args)

    real: Any = vars(_handshake)["_wrong"]
    monkeypatch.setattr(_handshake, "_wrong", wrong)
    with crew() as fork:
        assert 1 == in_time(lambda: shared["a"])
        _, child = children
        assert 0 == child.join()


def test_a_child_of_a_server_has_no_objects(served: Served) -> None:
    """A proxy that it is sent is one of the server's object, and not of the copy's."""
    shared = served.manager.dict(a=1)
    message = pickle.dumps(shared)
    assert served.server.address in manager_server.servers
    with crew() as fork:
        child = fork(lambda: _update(message))
        assert 0 == child.join()
    assert {"a": 2} == shared.copy()


def _update(message: bytes) -> None:
    current_process().authkey = KEY
    pickle.loads(message).update(a=2)


@starts_a_server
@pytest.mark.parametrize("forks", [int(os.environ.get("PROCESSION_FORKS", "30"))])
def test_at_any_moment(cleanup: ExitStack, forks: int) -> None:
    """A thread forks again and again; another one opens lines, and hears of the server's end.

    ``PROCESSION_FORKS`` is how many children there are in the end.
    """
    manager = cleanup.enter_context(SyncManager())
    shared = manager.dict(a=1)
    process = manager._process
    assert process is not None
    fork = cleanup.enter_context(crew())
    reader, writer = os.pipe()
    cleanup.callback(os.close, writer)
    cleanup.callback(os.close, reader)

    def live() -> None:
        os.close(writer)
        os.read(reader, 1)

    begun = threading.Event()
    go_on = threading.Event()
    outcomes: list[str] = []

    def call() -> None:
        assert 1 == shared["a"]
        begun.set()
        go_on.wait()
        try:
            outcomes.append(str(shared["a"]))
        except errors.ServerDiedError:
            outcomes.append("died")

    threads: list[threading.Thread] = []

    def open_lines() -> None:
        while not stop.is_set() and len(threads) < MOST:
            begun.clear()
            threads.append(threading.Thread(target=call, daemon=True))
            threads[-1].start()
            assert begun.wait(20)

    stop = threading.Event()
    opener = threading.Thread(target=open_lines)
    opener.start()
    for _ in range(forks):
        fork(live)
    stop.set()
    opener.join()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    go_on.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "it waits for ever"
    assert {"died"} == set(outcomes)
    assert len(threads) == len(outcomes)


@pytest.mark.parametrize("forks", [int(os.environ.get("PROCESSION_FORKS", "30"))])
def test_a_server_that_forks_at_any_moment(cleanup: ExitStack, forks: int) -> None:
    """Whatever its clients were about, they hear of its end, though its children live on."""
    addresses, said = os.pipe()
    reader, writer = os.pipe()
    fork = cleanup.enter_context(crew())
    for fd in (addresses, said, reader, writer):
        cleanup.callback(os.close, fd)

    def serve() -> None:
        os.close(writer)
        served = Served()
        os.write(said, cast(bytes, served.server.address))
        for _ in range(forks):
            if not os.fork():
                os.read(reader, 1)
                os._exit(0)
        os.write(said, b"!")
        os.read(reader, 1)

    server = fork(serve)
    address = os.read(addresses, 200)
    begun, go_on = threading.Event(), threading.Event()
    outcomes: list[str] = []

    def call(manager: SyncManager) -> None:
        shared = manager.dict(a=1)
        assert 1 == shared["a"]
        begun.set()
        go_on.wait()
        try:
            outcomes.append(str(shared["a"]))
        except errors.ServerDiedError:
            outcomes.append("died")

    threads: list[threading.Thread] = []
    kept = []
    while not select.select([addresses], [], [], 0)[0] and len(threads) < MOST:
        manager = SyncManager(address, authkey=KEY)
        manager.connect()
        begun.clear()
        threads.append(threading.Thread(target=call, args=(manager,), daemon=True))
        threads[-1].start()
        assert begun.wait(20)
        # A session of its own for the next one; this one's stays open.
        kept.append(sessions._sessions.pop((address, KEY, "pickle")))
    assert select.select([addresses], [], [], 30)[0]
    server.kill()
    go_on.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "it waits for ever"
    assert {"died"} == set(outcomes)
    assert len(threads) == len(outcomes)
    for session in kept:
        with pytest.raises(errors.ServerDiedError):
            session.ask("dummy")
