"""Programs that call `socket.setdefaulttimeout`, and sockets that somebody has block no more.

A socket's blocking is the kernel's, and so of everybody who has it: we neither change it nor
depend on it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("/proc", allow_module_level=True)

import procession
from procession._ground.sockets import BorrowedSocket
from procession._remote import call_pipes
from procession.connection import Client, Connection, Listener
from procession.managers import SyncManager
from procession.testing import payloads
from procession.tls import Tls

KEY = b"the key"
LOOPBACK = ("127.0.0.1", 0)
#: What a thread that waits may compute meanwhile, in seconds: to spin takes all there is.
IDLE = 0.15


@pytest.fixture
def default_timeout() -> Iterator[None]:
    """The program has one."""
    socket.setdefaulttimeout(20.0)
    try:
        yield
    finally:
        socket.setdefaulttimeout(None)


@pytest.fixture(params=["unix", "tcp", "tls"])
def ends(
    request: Any, default_timeout: None, cleanup: ExitStack, in_thread: Any, tls: Tls
) -> tuple[Connection, Connection]:
    """Both sides of a connection of a program with a default timeout."""
    how = tls if request.param == "tls" else None
    listener = cleanup.enter_context(
        Listener(None if request.param == "unix" else LOOPBACK, authkey=KEY, tls=how)
    )
    client = in_thread(Client, listener.address, authkey=KEY, tls=how, timeout=20.0)
    return cleanup.enter_context(listener.accept()), client.result()


def test_a_borrowed_socket_is_as_it_was(default_timeout: None) -> None:
    """Neither is it closed, also when the block was never entered, nor does it block no more."""
    one, other = socket.socketpair()
    with one, other:
        for blocking in (True, False):
            one.setblocking(blocking)
            with BorrowedSocket(one.fileno()) as peer:
                assert peer.fileno() == one.fileno()
                assert blocking is os.get_blocking(one.fileno())
                peer.send(b"x")
            BorrowedSocket(one.fileno())
            assert blocking is os.get_blocking(one.fileno())
        assert b"xx" == other.recv(10)


def test_a_borrowed_socket_waits(default_timeout: None) -> None:
    """As the kernel's socket does."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(True)
        sender = threading.Timer(0.2, other.send, [b"late"])
        sender.start()
        with BorrowedSocket(one.fileno()) as peer:
            assert b"late" == peer.recv(10)
        sender.join()


def test_connections_block_all_the_same(ends: tuple[Connection, Connection]) -> None:
    """Unless they are encrypted: those wait otherwise. And they work."""
    for end in ends:
        encrypted = type(end.channel).__name__ == "TlsChannel"
        assert os.get_blocking(end.fileno()) is not encrypted
    here, there = ends
    sent = threading.Thread(target=here.send_bytes, args=(bytes(8 << 20),))
    sent.start()
    assert bytes(8 << 20) == there.recv_bytes()
    sent.join()


def _computed(wait: Callable[[], Any]) -> float:
    """Call *wait*; return how long this thread has computed meanwhile, in seconds."""
    begun = time.thread_time()
    wait()
    return time.thread_time() - begun


def _receive_late(here: Connection, there: Connection, rest: bytes | None) -> float:
    """Receive what *there* sends after 1.2 s, longer than a look; return what that has cost.

    With *rest*, only that is late, of a message that has begun.
    """
    if rest is None:
        late = threading.Timer(1.2, there.send_bytes, [b"late"])
    else:
        os.write(there.fileno(), (4).to_bytes(4, "big") + rest[:1])
        late = threading.Timer(1.2, os.write, [there.fileno(), rest[1:]])
    late.start()
    received = []
    cost = _computed(lambda: received.append(here.recv_bytes()))
    late.join()
    assert [b"late"] == received
    return cost


@pytest.mark.parametrize("rest", [None, b"late"], ids=["nothing", "part"])
@pytest.mark.parametrize("address", [LOOPBACK], ids=["tcp"])
def test_nobody_spins_who_waits_for_a_message(
    address: Any, rest: bytes | None, cleanup: ExitStack, in_thread: Any
) -> None:
    """Also when somebody else has the socket block no more, in the middle of the wait."""
    listener = cleanup.enter_context(Listener(address))
    client = in_thread(Client, listener.address)
    here, there = cleanup.enter_context(listener.accept()), client.result()
    os.set_blocking(here.fileno(), False)
    assert _receive_late(here, there, rest) < IDLE


def test_nobody_spins_who_waits_for_room(cleanup: ExitStack, in_thread: Any) -> None:
    """As for a message."""
    listener = cleanup.enter_context(Listener(LOOPBACK))
    client = in_thread(Client, listener.address)
    here, there = cleanup.enter_context(listener.accept()), client.result()
    os.set_blocking(here.fileno(), False)
    message = bytes(16 << 20)  # more than the kernel keeps
    received = []
    late = threading.Timer(1.2, lambda: received.append(there.recv_bytes()))
    late.start()
    cost = _computed(lambda: here.send_bytes(message))
    late.join()
    assert [len(message)] == [len(each) for each in received]
    assert cost < IDLE


def test_managers(default_timeout: None, cleanup: ExitStack) -> None:
    """Calls go through pipes, and the socket that those were sent through blocks."""
    manager = cleanup.enter_context(SyncManager())
    shared = manager.dict(a=1)
    assert 1 == shared["a"]
    session = manager._session
    assert session is not None
    (line,) = session._calls.idle
    assert call_pipes.is_pipes(line._connection)
    assert session._connection is not None
    assert os.get_blocking(session._connection._connection.fileno())


def test_transports(transport: str, default_timeout: None) -> None:
    """What is made of pairs of sockets waits for as long as it takes."""
    for method in procession.get_all_start_methods():
        ctx = procession.get_context(method, transport=transport)
        here, there = ctx.Pipe()
        with here, there:
            child = ctx.Process(target=payloads.echo_bytes, args=(there, 1))
            child.start()
            message = bytes(3 << 20)
            here.send_bytes(message)
            assert message == here.recv_bytes()
            child.join()
            assert 0 == child.exitcode
