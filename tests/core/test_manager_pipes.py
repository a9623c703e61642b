"""The pipes that calls to a manager on this host go through, and what happens without them."""

from __future__ import annotations

import errno
import functools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import procession

if sys.platform != "linux":
    pytest.skip("pipes that are opened by /proc", allow_module_level=True)

from procession import errors
from procession._remote import call_pipes
from procession.connection import Connection
from procession.managers import SyncManager
from procession.testing import manager_payloads, shortage
from procession.testing.forked import crew, until
from procession.testing.served import Served

starts_a_server = pytest.mark.skipif(
    not procession.get_all_start_methods(), reason="no start method is installed"
)


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

    def take(connection: Any, keep: Any) -> None:
        through = real(connection, lambda made: None)
        taken.append(through)
        through.close()

    real: Any = call_pipes.take
    monkeypatch.setattr(call_pipes, "take", take)
    shared = served.manager.dict(a=1)
    assert 1 == shared["a"]
    assert len(taken) == 1
    assert [False, False] == served.kinds()


def call_in_new_thread(function: Callable[[], Any]) -> Any:
    """Return what it returns, or raise what it raises: the thread has no line yet."""
    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.append(function())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(40)
    (result,) = outcome
    if isinstance(result, Exception):
        raise result
    return result


@starts_a_server
def test_a_client_without_descriptors(cleanup: ExitStack) -> None:
    """It does with as few as there are, or says that there are none; the server has not died."""
    manager = cleanup.enter_context(SyncManager())
    shared = manager.dict(a=1)
    assert 1 == shared["a"]
    outcomes = []
    for count in range(8):
        with shortage.free_descriptors(count):
            try:
                outcomes.append(call_in_new_thread(lambda: shared["a"]))
            except errors.ResourceError as error:
                outcomes.append(error.errno)
    assert [errno.EMFILE, *[1] * 7] == outcomes
    assert 1 == call_in_new_thread(lambda: shared["a"])


class ShortManager(SyncManager):
    """Whose server can be made to run out of descriptors."""


ShortManager.register("Shortage", manager_payloads.Shortage)


@starts_a_server
def test_a_server_without_descriptors(cleanup: ExitStack) -> None:
    """It serves with as few as there are, and none is told that it has died."""
    manager = cleanup.enter_context(ShortManager())
    shared = manager.dict(a=1)
    server = manager.Shortage()
    for count in range(1, 7):
        server.begin(count)
        assert 1 == call_in_new_thread(lambda: shared["a"])
    server.end()


@pytest.mark.parametrize("address", [None, ("127.0.0.1", 0)], ids=["pipes", "tcp"])
def test_an_answer_that_is_too_long(
    address: Any, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what the error says, and whose limit it is; the server has not died."""
    monkeypatch.setenv("PROCESSION_RECV_LIMIT", "1000")
    served = Served(address)
    cleanup.callback(served.end)
    shared = served.manager.list([1])
    for _ in range(2):
        with pytest.raises(errors.MessageTooLongError, match=r"at most 1000 .*PROCESSION_RECV"):
            shared * 3000
        assert [1, 1] == shared * 2


def test_hanging_up_on_a_number_that_is_used_again(tmp_path: Path) -> None:
    """Whoever has the number now is left alone, be it a file, a pipe or a socket."""
    one, other = socket.socketpair()
    reader, writer = os.pipe()
    with one, other, open(tmp_path / "file", "w+b") as file:
        for new in (file.fileno(), reader, one.fileno()):
            for old in (_half(*os.pipe()), _half(*(end.detach() for end in socket.socketpair()))):
                connection = Connection(old)
                identity = call_pipes.identify(connection)
                os.dup2(new, old)
                call_pipes.hang_up(connection, identity)
                connection.close()
        assert b"" == file.read()
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        other.send(b"x")
        assert b"x" == one.recv(1)
    os.close(reader)
    os.close(writer)


def _half(end: int, other: int) -> int:
    os.close(other)
    return end


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


@starts_a_server
@pytest.mark.parametrize("used", [False, True])
def test_a_server_that_hears_nobody_is_killed(used: bool) -> None:
    """It takes the two times of `shutdown_timeout`, also when nothing can be asked any more."""
    manager = SyncManager(shutdown_timeout=0.2)
    manager.start()
    process = manager._process
    assert process is not None
    assert process.pid is not None
    if used:
        manager.dict()
    os.kill(process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    manager.shutdown()
    assert 0.4 <= time.monotonic() - begun < 10
    assert manager._process is None
