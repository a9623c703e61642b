"""Peers that stall at any byte, never speak, or announce too much: an error in time, little memory.

Whether it is encrypted makes no difference to what is promised.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("/proc", allow_module_level=True)

from procession import errors
from procession._channels.stream_channel import pack_length
from procession._remote import handshake as _handshake
from procession._remote.line import Handshake, Line
from procession._remote.listener import MOST_HANDSHAKES
from procession.connection import Client, Connection, Listener
from procession.tls import Tls

KEY = b"the key"
LOOPBACK = ("127.0.0.1", 0)
#: How many of the positions of an encrypted handshake are left out: none for 1.
STRIDE = int(os.environ.get("PROCESSION_STRIDE", "7"))
MIB = 1 << 20


class Stingy(socket.socket):
    """A socket that sends so many bytes, and then nothing more."""

    budget = 1 << 30
    sent = 0

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send what may still be sent."""
        count = min(len(data), self.budget - self.sent)
        if not count:
            raise BlockingIOError
        count = super().send(data[:count], flags)
        self.sent += count
        return count


class Server:
    """A listener, and a thread that accepts until it is closed."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.served: list[Connection] = []
        self.refused: list[BaseException] = []
        self.most = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                self.served.append(self.listener.accept())
            except (errors.AuthenticationError, EOFError) as error:
                # Its traceback would keep all that was there alive.
                self.refused.append(error.with_traceback(None))
            except errors.ConnectionClosedError:
                return
            self.most = max(self.most, len(self.listener._handshakes))
            with self._changed:
                self._changed.notify()

    def wait(self, served: int, refused: int) -> None:
        """Wait until so many were accepted, and so many refused, or more."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: len(self.served) >= served and len(self.refused) >= refused, 30
            )
        assert done, (len(self.served), len(self.refused), self.refused[-1:])

    def close(self) -> None:
        """End the thread."""
        self.listener.close()
        self._thread.join()
        for each in self.served:
            each.close()


HOWS = [
    "plain",
    "certificates",
    pytest.param(
        "authkey",
        marks=pytest.mark.skipif(
            not getattr(ssl, "HAS_PSK", False), reason="needs Python 3.13 with pre-shared keys"
        ),
    ),
]


@pytest.fixture(params=HOWS)
def how(request: Any, certificates: Any) -> Tls | None:
    """How both sides encrypt."""
    if request.param == "plain":
        return None
    return certificates.tls() if request.param == "certificates" else Tls.from_authkey()


@pytest.fixture
def serve(cleanup: ExitStack, how: Tls | None) -> Callable[..., Server]:
    """Make a server that is closed after the test."""

    def serve(**options: Any) -> Server:
        server = Server(Listener(LOOPBACK, authkey=KEY, tls=how, backlog=1100, **options))
        cleanup.callback(server.close)
        return server

    return serve


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many as 1000 connections need at both ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2500:
        pytest.skip(f"needs 2500 descriptors, and the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2500), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def dial(address: Any, how: Tls | None, cleanup: ExitStack) -> tuple[Stingy, Handshake]:
    """A client's side of a handshake that has not begun."""
    peer = Stingy(socket.AF_INET)
    cleanup.callback(peer.close)
    peer.connect(address)
    if how is None:
        line = Line(peer, 60.0)
    else:
        line = how.line(peer, address, 60.0, server=False, authkey=KEY)
    return peer, Handshake(line, _handshake.connecting(KEY, md5=True), None)


def resident() -> int:
    """How much memory this process has, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def length_of_handshake(server: Server, how: Tls | None, cleanup: ExitStack) -> int:
    """How many bytes a client sends in it."""
    peer, handshake = dial(server.listener.address, how, cleanup)
    handshake.finish().close()
    server.wait(1, 0)
    return peer.sent


def test_stalling_at_any_byte_of_the_handshake(
    serve: Callable[..., Server], how: Tls | None, cleanup: ExitStack
) -> None:
    """Each such client is refused when its time is over, and a good one is served then."""
    server = serve(handshake_timeout=0.4)
    length = length_of_handshake(server, how, cleanup)
    positions = list(range(0, length, 1 if how is None else STRIDE))
    # The last word of a client is not answered, so that of the whole only these remain.
    for start in range(0, len(positions), MOST_HANDSHAKES):
        batch = positions[start : start + MOST_HANDSHAKES]
        with ExitStack() as stack:
            under_way = []
            for position in batch:
                peer, handshake = dial(server.listener.address, how, stack)
                peer.budget = position
                under_way.append((peer, handshake))
            begun = time.monotonic()
            deadline = begun + 30
            while len(server.refused) < start + len(batch):
                assert time.monotonic() < deadline
                for _, handshake in under_way:
                    if handshake.line.fileno() >= 0:
                        try:
                            assert not handshake.advance()
                        except (errors.EndOfConnectionError, OSError):
                            handshake.close()  # it was refused, as it should be
                time.sleep(0.005)  # between two looks at all of them
    for error in server.refused:
        # Those with nothing to send may have been shown the door by a reset already.
        assert isinstance(error, errors.HandshakeTimeoutError), repr(error)
    with Client(server.listener.address, authkey=KEY, tls=how, timeout=20) as good:
        server.wait(2, len(positions))
        good.send("hello")
        assert "hello" == server.served[-1].recv()


def test_stalling_at_any_byte_of_a_message(
    serve: Callable[..., Server], how: Tls | None, cleanup: ExitStack
) -> None:
    """Who has begun with one has to go on; the others at the same server are served."""
    server = serve(silence=3.0)
    frame = pack_length(20) + pickle.dumps(b"x" * 20)[:20]
    fds, count = [], 0
    while True:
        _, handshake = dial(server.listener.address, how, cleanup)
        channel: Any = handshake.finish()
        cleanup.callback(channel.close)
        data = frame if how is None else channel._engine.encrypt(frame)
        count += 1
        assert os.write(channel.fileno(), data[:count]) == count
        fds.append(channel)
        if count == len(data) - 1:
            break
    server.wait(count, 0)
    raised: dict[Connection, BaseException] = {}

    def receive(connection: Connection) -> None:
        try:
            connection.recv()
        except BaseException as error:
            raised[connection] = error

    threads = [threading.Thread(target=receive, args=(each,)) for each in server.served]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    with Client(server.listener.address, authkey=KEY, tls=how, timeout=20) as good:
        server.wait(count + 1, 0)
        good.send("hello")
        assert "hello" == server.served[-1].recv()
    for thread in threads:
        thread.join(30)
    assert time.monotonic() - begun < 3 + 8
    assert count == len(raised)
    for connection, error in raised.items():
        assert isinstance(error, errors.BrokenConnectionError), repr(error)
        assert "has begun a message and not gone on with it for 3 seconds" in str(error)
        with pytest.raises(errors.BrokenConnectionError, match="has begun a message"):
            connection.recv()


@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_who_never_speak(
    serve: Callable[..., Server], how: Tls | None, cleanup: ExitStack
) -> None:
    """They cost a bounded amount of memory, and nobody else anything."""
    server = serve(handshake_timeout=20.0)
    length_of_handshake(server, how, cleanup)  # what is imported and kept once is there now
    before = resident()
    for _ in range(1000):
        peer = cleanup.enter_context(socket.socket(socket.AF_INET))
        peer.connect(server.listener.address)
    server.wait(1, 1000 - MOST_HANDSHAKES)
    with Client(server.listener.address, authkey=KEY, tls=how, timeout=20) as good:
        server.wait(2, 0)
        good.send("hello")
        assert "hello" == server.served[-1].recv()
    assert server.most <= MOST_HANDSHAKES
    # Those under way, with buffers of OpenSSL's; and the refusals that the test keeps.
    assert resident() - before < 16 * MIB


@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_oversized_frames(cleanup: ExitStack) -> None:
    """What is announced, and has not come, costs nothing, in the handshake and after it."""
    listener = cleanup.enter_context(Listener(LOOPBACK, backlog=1100, recv_limit=1 << 20))
    careless = cleanup.enter_context(Listener(LOOPBACK, backlog=1100))
    ends = []
    for number in range(1000):
        at = listener if number % 2 else careless
        address: Any = at.address
        peer = cleanup.enter_context(socket.create_connection(address))
        peer.sendall(pack_length(1 << 31) + b"x")
        ends.append(cleanup.enter_context(at.accept()))
    before = resident()
    for end in ends[1::2]:
        with pytest.raises(errors.MessageTooLongError, match=r"2147483648 .* 1048576"):
            end.recv()
    # The memory for a message is taken as it comes, in pieces of 2 MiB at most.
    threads = []
    for end in ends[:40:2]:
        threads.append(threading.Thread(target=_receive_in_vain, args=(end,)))
        threads[-1].start()
    deadline = time.monotonic() + 20
    while len(_in_the_middle(ends)) < len(threads):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert resident() - before < (2 * len(threads) + 8) * MIB
    cleanup.pop_all().close()  # hangs up, which ends the threads
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    gc.collect()  # of 40 GiB of addresses, in tracebacks, no fork could make a copy


def _receive_in_vain(end: Connection) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - whatever hanging up is called
        end.recv()


def _in_the_middle(ends: list[Connection]) -> list[Connection]:
    channels: list[Any] = [end.channel for end in ends]
    return [end for end, channel in zip(ends, channels, strict=True) if channel.receiving]
