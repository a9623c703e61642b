"""What a connection puts up with, who says so, and what is true when that was too much."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("/proc", allow_module_level=True)

import procession
from procession import errors
from procession._choosing import limits
from procession.connection import Client, Connection, Listener
from procession.managers import SyncManager
from procession.testing import manager_payloads, remote
from procession.tls import Tls

KEY = b"the key"
LOOPBACK = ("127.0.0.1", 0)


@pytest.fixture(autouse=True)
def nobody_says_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable, and no configuration file above the current directory."""
    for name in (limits.SILENCE_VARIABLE, limits.RECV_VARIABLE, "PROCESSION_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def connect(cleanup: ExitStack, in_thread: Any, address: Any, **options: Any) -> tuple[Any, Any]:
    """Both sides of a connection through a listener; the options are both sides'."""
    listener = cleanup.enter_context(Listener(address, authkey=KEY, **options))
    client = in_thread(Client, listener.address, authkey=KEY, **options)
    return cleanup.enter_context(listener.accept()), client.result()


# -- who says so -------------------------------------------------------------------------


def test_precedence_of_a_silence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificates: Any
) -> None:
    """An argument, Tls, the environment, the file, the default: and each is named."""
    assert (60.0, "the default") == limits.silence()
    (tmp_path / "pyproject.toml").write_text("[tool.procession]\nsilence = 5.5\n")
    assert (5.5, f"silence in {tmp_path / 'pyproject.toml'}") == limits.silence()
    monkeypatch.setenv("PROCESSION_SILENCE", "7")
    assert (7.0, "PROCESSION_SILENCE in the environment") == limits.silence()
    assert 8.0 == limits.silence(None, certificates.tls(silence=8.0))[0]
    assert (9.0, "given by the program") == limits.silence(9.0, certificates.tls(silence=8.0))


def test_precedence_of_a_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As for a silence."""
    assert (None, "the default") == limits.recv_limit()
    (tmp_path / "pyproject.toml").write_text("[tool.procession]\nrecv-limit = 1000\n")
    assert (1000, f"recv-limit in {tmp_path / 'pyproject.toml'}") == limits.recv_limit()
    monkeypatch.setenv("PROCESSION_RECV_LIMIT", "2000")
    assert (2000, "PROCESSION_RECV_LIMIT in the environment") == limits.recv_limit()
    assert (3000, "given by the program") == limits.recv_limit(3000)


@pytest.mark.parametrize("name", ["PROCESSION_SILENCE", "PROCESSION_RECV_LIMIT"])
@pytest.mark.parametrize("text", ["long", "0", "nan", "inf", "-1"])
def test_nonsense_in_the_environment(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused when a listener is made, with the variable and what is allowed."""
    monkeypatch.setenv(name, text)
    with pytest.raises(errors.ConfigurationError, match=f"{name} is '{text}' .* or more"):
        Listener(LOOPBACK)


def test_nonsense_in_the_program() -> None:
    """It is refused, with what is allowed."""
    for silence in (0, 2.9, float("nan")):
        with pytest.raises(ValueError, match="3 or more"):
            Listener(LOOPBACK, silence=silence)
    with pytest.raises(ValueError, match="or None for any"):
        Client(("127.0.0.1", 1), recv_limit=0)
    first, second = procession.Pipe()
    with first, second, pytest.raises(ValueError, match="or None for any"):
        first.recv_limit = -1


def test_a_silence_of_both_sides(cleanup: ExitStack, in_thread: Any) -> None:
    """The kernel asks an idle host soon enough, whichever side has been told."""
    for end in connect(cleanup, in_thread, LOOPBACK, silence=12.0):
        assert 12.0 == end.channel.silence.limit
        with socket.socket(fileno=os.dup(end.fileno())) as peer:
            asked = [
                peer.getsockopt(socket.IPPROTO_TCP, getattr(socket, option))
                for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            ]
            assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert asked[0] + asked[1] * asked[2] <= 12


def test_another_process_keeps_to_both(cleanup: ExitStack, in_thread: Any) -> None:
    """An end that was handed over has the silence and the limit that it had."""
    here, there = connect(cleanup, in_thread, LOOPBACK, silence=12.0, recv_limit=1000)
    ctx = procession.get_context("spawn")
    child = ctx.Process(target=remote.tell_limits, args=(there,))
    child.start()
    there.close()
    assert (12.0, 1000) == here.recv()
    here.send_bytes(bytes(2000))
    assert "MessageTooLongError" == here.recv()
    child.join()
    assert 0 == child.exitcode


def test_managers_and_their_proxies(cleanup: ExitStack, method: str) -> None:
    """Whoever uses the server keeps to what the manager was told, in whichever process."""
    ctx = procession.get_context(method)
    manager = cleanup.enter_context(SyncManager(LOOPBACK, ctx=ctx, silence=12.0))
    shared = manager.dict()
    child = ctx.Process(target=manager_payloads.note_silence, args=(shared,))
    child.start()
    child.join()
    assert 0 == child.exitcode
    assert {"session": 12.0, "line": 12.0} == shared.copy()
    again = pickle.loads(pickle.dumps(manager))
    assert 12.0 == again._silence


@pytest.mark.parametrize("silence", [0, 2.9, float("nan")])
def test_nonsense_for_a_manager(silence: float) -> None:
    """It is refused where the manager is made, with what is allowed."""
    with pytest.raises(ValueError, match="3 or more"):
        SyncManager(LOOPBACK, silence=silence)


def test_a_server_of_this_process(cleanup: ExitStack) -> None:
    """Its listener has been told, and whoever connects."""
    server = SyncManager(LOOPBACK, authkey=KEY, silence=12.0).get_server()
    cleanup.callback(server.listener.close)
    assert 12.0 == server.silence == server.listener._silence


# -- what is true then -------------------------------------------------------------------


@pytest.fixture(params=["unix", "tcp", "tls"])
def ends(
    request: Any, cleanup: ExitStack, in_thread: Any, tls: Tls
) -> tuple[Connection, Connection]:
    """A connection whose sides receive a thousand bytes at most."""
    address = None if request.param == "unix" else LOOPBACK
    how = tls if request.param == "tls" else None
    return connect(cleanup, in_thread, address, tls=how, recv_limit=1000)


RECEIVING: list[Callable[[Connection], Any]] = [
    Connection.recv,
    Connection.recv_bytes,
    lambda end: end.recv_bytes(5000),
    lambda end: end.recv_bytes_into(bytearray(5000)),
]


@pytest.mark.parametrize("receive", RECEIVING, ids=["recv", "recv_bytes", "maxlength", "into"])
def test_a_message_that_is_too_long(
    ends: tuple[Connection, Connection], receive: Callable[[Connection], Any]
) -> None:
    """The error has size, limit and remedy; nothing is received any more, and sending goes on."""
    here, there = ends
    there.send(bytes(900))
    assert bytes(900) == here.recv()
    there.send_bytes(bytes(1001))
    with pytest.raises(errors.MessageTooLongError) as caught:
        receive(here)
    for part in ("1001 bytes", "at most 1000", "given by the program", "PROCESSION_RECV_LIMIT"):
        assert part in str(caught.value), str(caught.value)
    assert not here.closed
    assert not here.readable
    with pytest.raises(errors.ConnectionDirectionError, match="write-only"):
        here.recv()
    with pytest.raises(errors.ConnectionDirectionError, match="write-only"):
        here.poll()
    here.send("that was too long")
    assert "that was too long" == there.recv()


def test_a_shorter_maximum(ends: tuple[Connection, Connection]) -> None:
    """What was asked for in the call counts, too, and no limit is blamed for it."""
    here, there = ends
    there.send_bytes(bytes(500))
    with pytest.raises(errors.MessageTooLongError, match="at most 400") as caught:
        here.recv_bytes(400)
    assert "recv_limit" not in str(caught.value)


def test_the_limit_can_be_raised(ends: tuple[Connection, Connection]) -> None:
    """At any time, and taken away."""
    here, there = ends
    assert 1000 == here.recv_limit
    here.recv_limit = 2000
    there.send_bytes(bytes(1500))
    assert 1500 == len(here.recv_bytes())
    here.recv_limit = None
    there.send_bytes(bytes(100_000))
    assert 100_000 == len(here.recv_bytes())
    there.recv_limit = 10
    here.send(bytes(100))
    with pytest.raises(errors.MessageTooLongError, match="set by the program"):
        there.recv()


def test_other_transports(in_thread: Any) -> None:
    """Any connection can have a limit; the buffers of arrays count as well."""
    numpy = pytest.importorskip("numpy")
    for transport in procession.get_all_transports():
        first, second = procession.get_context("fork", transport=transport).Pipe()
        first.recv_limit = 100_000
        with first, second:
            sending = in_thread(second.send, numpy.ones(100_000))
            with pytest.raises(errors.MessageTooLongError, match="at most 100000"):
                first.recv()
            sending.result()
            second.send_bytes(bytes(100))
            assert 100 == len(first.recv_bytes())


def test_lengths_that_no_memory_has(cleanup: ExitStack) -> None:
    """They are named errors, and not those of the attempt."""
    listener = cleanup.enter_context(Listener(LOOPBACK))
    address: Any = listener.address
    for length in (1 << 63, (1 << 64) - 1, (1 << 47) + 1):
        with socket.create_connection(address) as peer, listener.accept() as end:
            peer.sendall(b"\xff" * 4 + length.to_bytes(8, "big") + b"x")
            with pytest.raises(errors.MessageTooLongError, match=str(length)):
                end.recv()
    with socket.create_connection(address) as peer, listener.accept() as end:
        peer.sendall(b"\xff\xff\xff\xfe")
        with pytest.raises(errors.MessageTooLongError, match="-2 bytes"):
            end.recv()
    with socket.create_connection(address) as peer, listener.accept() as end:
        peer.sendall(b"\xff" * 4 + (1 << 46).to_bytes(8, "big") + b"x")
        with pytest.raises((MemoryError, OSError)):
            end.recv()
        assert end.closed


def test_a_broken_connection_keeps_no_memory(cleanup: ExitStack) -> None:
    """The memory for the message that was cut off is given back with the error."""
    listener = cleanup.enter_context(Listener(LOOPBACK))
    address: Any = listener.address
    with socket.create_connection(address) as peer, listener.accept() as end:
        before = _mapped()
        peer.sendall((1 << 30).to_bytes(4, "big") + b"x")
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises(errors.BrokenConnectionError, match="end of file during message"):
            end.recv()
        gc.collect()
        assert _mapped() - before < 1 << 29


def _mapped() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
