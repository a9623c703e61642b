"""The pipes that calls to a manager on this host go through, and what happens without them."""

from __future__ import annotations

import errno
import functools
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("pipes that are opened by /proc", allow_module_level=True)

from procession import _call_pipes, errors
from procession._manager_session import sessions
from procession.managers import SyncManager
from procession.testing.forked import crew, until

KEY = b"the key"


class Served:
    """A server in a thread of this process, and a manager that is connected to it."""

    def __init__(self, address: Any = None) -> None:
        self.server = SyncManager(address, authkey=KEY).get_server()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        self.manager = SyncManager(self.server.address, authkey=KEY)
        self.manager.connect()

    def _serve(self) -> None:
        with pytest.raises(SystemExit):
            self.server.serve_forever()

    def end(self) -> None:
        """End the server, and hang up."""
        self.server.stop_event.set()
        self.thread.join(20)
        assert not self.thread.is_alive()
        sessions.forget(sessions.get(self.server.address, KEY, "pickle"))

    def kinds(self) -> list[bool]:
        """Of each connection for calls, whether it is over pipes."""
        return sorted(_call_pipes.is_pipes(each) for each in self.server._connections)


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    """Callbacks to run after the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def served(cleanup: ExitStack) -> Served:
    """A server that has been ended after the test."""
    served = Served()
    cleanup.callback(served.end)
    return served


def test_calls_go_through_pipes(served: Served) -> None:
    """Of all sizes; the session, which is seldom asked anything, stays a socket."""
    shared = served.manager.dict()
    for size in (0, 10, 65_000, 66_000, 3_000_000):
        shared["key"] = bytes(size)
        assert bytes(size) == shared["key"]
    assert [False, True] == served.kinds()


def test_a_server_that_ends_wakes_its_threads(served: Served) -> None:
    """A pipe cannot be shut down, and the client has not gone: the thread ends all the same."""
    shared = served.manager.dict(a=1)
    assert 1 == shared["a"]
    assert [False, True] == served.kinds()
    served.server.stop_event.set()
    until(lambda: not served.server._connections)
    with pytest.raises(errors.ServerDiedError):
        shared["a"]


def test_no_descriptors_for_pipes(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket does as well."""

    def fail() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "none left")

    monkeypatch.setattr(os, "pipe", fail)
    shared = served.manager.dict(a=1)
    assert 1 == shared["a"]
    assert [False, False] == served.kinds()


def test_no_descriptors_in_the_server(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and the socket does as well."""
    taken = []

    def take(connection: Any) -> None:
        through = real(connection)
        taken.append(through)
        through.close()

    real: Any = _call_pipes.take
    monkeypatch.setattr(_call_pipes, "take", take)
    shared = served.manager.dict(a=1)
    assert 1 == shared["a"]
    assert len(taken) == 1
    assert [False, False] == served.kinds()


def test_over_tcp(cleanup: ExitStack) -> None:
    """There, a socket is all there is."""
    served = Served(("127.0.0.1", 0))
    cleanup.callback(served.end)
    shared = served.manager.dict(a=1)
    assert 1 == shared["a"]
    assert [False, False] == served.kinds()


def test_no_descriptor_is_lost(served: Served) -> None:
    """Neither side keeps any of a thread that has ended."""
    shared = served.manager.dict(a=1)
    shared["a"]

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    for _ in range(5):
        thread = threading.Thread(target=shared.__getitem__, args=("a",))
        thread.start()
        thread.join()
    until(lambda: open_files() <= before)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_forked_children_have_pipes_of_their_own(served: Served) -> None:
    """Parent and child call at once, and none gets the other's answer."""
    shared = served.manager.dict(a=1)
    shared["a"]
    with crew() as fork:
        children = [fork(functools.partial(_count, shared, number)) for number in range(3)]
        _count(shared, 3)
        for child in children:
            assert 0 == child.join()


def _count(shared: Any, number: int) -> None:
    for value in range(300):
        shared[number] = value
        assert value == shared[number]
