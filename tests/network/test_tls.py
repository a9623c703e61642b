"""Encrypted connections: who is let in, what is said to who is not, and how they end."""

from __future__ import annotations

import datetime
import pickle
import select
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if sys.platform != "linux":
    pytest.skip("/proc and fork", allow_module_level=True)

from tests.network.conftest import KEY, LOOPBACK

from procession import errors
from procession.connection import Client, Connection, Listener
from procession.testing.forked import Forked
from procession.tls import Tls, derive

HAS_KEYS = getattr(ssl, "HAS_PSK", False)
needs_keys = pytest.mark.skipif(not HAS_KEYS, reason="pre-shared keys came with Python 3.13")


def stranger(listener: Listener, cleanup: ExitStack) -> socket.socket:
    """A client that speaks whatever it likes."""
    assert isinstance(listener.address, tuple)
    peer = cleanup.enter_context(socket.create_connection(listener.address[:2]))
    peer.settimeout(30)
    return peer


def refusal(listener: Listener) -> BaseException:
    """What `accept` says of the next client, which is a bad one."""
    with pytest.raises((errors.AuthenticationError, EOFError)) as caught:
        listener.accept()
    return caught.value


# -- who is let in -----------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "authkey"])
@pytest.mark.parametrize("address", [LOOPBACK, ("::1", 0), ("localhost", 0)], ids=str)
def test_objects_both_ways(
    address: Any,
    key: bytes | None,
    listen: Callable[..., Listener],
    tls: Tls,
    in_thread: Callable[..., Any],
) -> None:
    """Encryption changes nothing for who uses a connection."""
    listener = listen(address, authkey=key)
    client = in_thread(Client, (address[0], listener.address[1]), authkey=key, tls=tls)
    with listener.accept() as here, client.result() as there:
        here.send(["hello", {"x": 1}])
        assert ["hello", {"x": 1}] == there.recv()
        there.send_bytes(b"")
        there.send_bytes(b"x" * 300_000)
        assert b"" == here.recv_bytes()
        assert b"x" * 300_000 == here.recv_bytes()
        there.close()
        with pytest.raises(errors.EndOfConnectionError):
            here.recv()


@needs_keys
def test_the_right_key_connects(
    listen: Callable[..., Listener], in_thread: Callable[..., Any]
) -> None:
    """Without any certificate, the authkey is enough on both sides."""
    tls = Tls.from_authkey(job="render")
    listener = listen(tls=tls)
    client = in_thread(Client, listener.address, authkey=KEY, tls=pickle.loads(pickle.dumps(tls)))
    with listener.accept() as here, client.result() as there:
        here.send("hello")
        assert "hello" == there.recv()


@needs_keys
@pytest.mark.parametrize(
    ("key", "job"), [(b"another", "render"), (KEY, "sort")], ids=["wrong key", "wrong job"]
)
def test_a_wrong_key_is_refused(
    key: bytes, job: str, listen: Callable[..., Listener], in_thread: Callable[..., Any]
) -> None:
    """Neither side says anything to somebody with another key, or of another job."""
    listener = listen(tls=Tls.from_authkey(job="render"))
    client = in_thread(Client, listener.address, authkey=key, tls=Tls.from_authkey(job=job))

    assert isinstance(refusal(listener), errors.TlsError)
    assert isinstance(client.failure(), errors.TlsError)
    if job == "render":
        assert "differ in authkey" in str(client.error)


@needs_keys
def test_a_client_without_a_key_is_refused(
    listen: Callable[..., Listener], in_thread: Callable[..., Any], tls: Tls
) -> None:
    """A client cannot leave the key aside, not even with a certificate of its own."""
    listener = listen(tls=Tls.from_authkey())
    client = in_thread(Client, listener.address, authkey=KEY, tls=tls)

    assert "does not use a key" in str(refusal(listener))
    assert "expects a certificate where we use a key" in str(client.failure())


@needs_keys
def test_a_server_that_ignores_the_key_is_refused(
    listen: Callable[..., Listener], in_thread: Callable[..., Any], tls: Tls
) -> None:
    """A server cannot leave the key aside: whose certificate it shows, nobody has asked."""
    listener = listen(tls=tls)
    client = in_thread(Client, listener.address, authkey=KEY, tls=Tls.from_authkey())

    refusal(listener)
    assert isinstance(client.failure(), errors.TlsError)
    assert "asked for a key and has shown a certificate" in str(client.error)


def test_the_derived_key_is_not_the_authkey() -> None:
    """By HKDF: another for each job, and nothing that leads back."""
    keys = {derive(KEY, "a"), derive(KEY, "b"), derive(b"other", "a")}

    assert 3 == len(keys)
    assert {32} == {len(key) for key in keys}


BAD_CERTIFICATES: dict[str, dict[str, Any]] = {
    "expired": {"expires": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)},
    "not signed by our authority": {"authority": "theirs"},
}


@pytest.mark.parametrize(("wrong", "options"), BAD_CERTIFICATES.items(), ids=BAD_CERTIFICATES)
def test_a_listener_with_a_bad_certificate(
    wrong: str,
    options: dict[str, Any],
    certificates: Any,
    listen: Callable[..., Listener],
    in_thread: Callable[..., Any],
    tls: Tls,
) -> None:
    """The client says what is wrong with it, and the listener hears that, too."""
    listener = listen(tls=_bad(certificates, options))
    client = in_thread(Client, listener.address, authkey=KEY, tls=tls)

    heard = refusal(listener)
    assert wrong in str(client.failure())
    assert f"127.0.0.1:{listener.address[1]}" in str(client.error)
    assert isinstance(heard, errors.TlsError)
    assert "our certificate" in str(heard)


@pytest.mark.parametrize(("wrong", "options"), BAD_CERTIFICATES.items(), ids=BAD_CERTIFICATES)
def test_a_client_with_a_bad_certificate(
    wrong: str,
    options: dict[str, Any],
    certificates: Any,
    listen: Callable[..., Listener],
    in_thread: Callable[..., Any],
) -> None:
    """It hears of it when it connects, although TLS 1.3 lets it believe that all is well."""
    listener = listen()
    client = in_thread(Client, listener.address, authkey=KEY, tls=_bad(certificates, options))

    assert wrong in str(refusal(listener))
    assert isinstance(client.failure(), errors.TlsError)
    assert "our certificate" in str(client.error)


def _bad(certificates: Any, options: dict[str, Any]) -> Tls:
    made: Tls = certificates.tls(**options)
    return made


def test_a_certificate_for_another_name(
    certificates: Any, listen: Callable[..., Listener], in_thread: Callable[..., Any], tls: Tls
) -> None:
    """One that is good for another host is not good for this one, unless names do not count."""
    files = certificates.files("elsewhere.example")
    listener = listen(tls=Tls.from_certificates(*files))
    client = in_thread(Client, listener.address, authkey=KEY, tls=tls)
    refusal(listener)
    assert "is for another" in str(client.failure())

    nameless = Tls.from_certificates(*files, check_name=False)
    again = in_thread(Client, listener.address, authkey=KEY, tls=nameless)
    with listener.accept() as here:
        here.send("hello")
        assert "hello" == again.result().recv()


def test_a_client_without_a_certificate(
    listen: Callable[..., Listener], cleanup: ExitStack, in_thread: Callable[..., Any]
) -> None:
    """Both sides have to prove who they are."""
    listener = listen()
    peer = stranger(listener, cleanup)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def speak() -> None:
        with context.wrap_socket(peer) as encrypted:
            encrypted.recv(1)

    speaking = in_thread(speak)
    assert "has shown no certificate" in str(refusal(listener))
    assert isinstance(speaking.failure(), ssl.SSLError)


def test_old_tls_is_refused(
    listen: Callable[..., Listener], cleanup: ExitStack, in_thread: Callable[..., Any]
) -> None:
    """TLS 1.2 and below are not spoken."""
    listener = listen()
    peer = stranger(listener, cleanup)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    speaking = in_thread(context.wrap_socket, peer)
    assert "older than 1.3" in str(refusal(listener))
    assert isinstance(speaking.failure(), ssl.SSLError)


def test_the_authkey_still_counts(
    listen: Callable[..., Listener], in_thread: Callable[..., Any], tls: Tls
) -> None:
    """A good certificate does not replace the key."""
    listener = listen()
    client = in_thread(Client, listener.address, authkey=b"another", tls=tls)

    assert "differ in authkey" in str(refusal(listener))
    assert "differ in authkey" in str(client.failure())


# -- strangers ---------------------------------------------------------------------------


def test_a_plain_client_of_an_encrypted_listener(
    listen: Callable[..., Listener], in_thread: Callable[..., Any]
) -> None:
    """Each waits for the other's first word; both hear of it when the time is over."""
    listener = listen(handshake_timeout=0.3)
    client = in_thread(Client, listener.address, authkey=KEY)

    assert isinstance(refusal(listener), errors.HandshakeTimeoutError)
    assert isinstance(client.failure(), EOFError)


def test_an_encrypted_client_of_a_plain_listener(
    listen: Callable[..., Listener], in_thread: Callable[..., Any], tls: Tls
) -> None:
    """The client says that nobody speaks TLS there."""
    listener = listen(tls=None)
    client = in_thread(Client, listener.address, authkey=KEY, tls=tls)

    refusal(listener)
    assert "does not speak TLS" in str(client.failure())


def test_a_browser(listen: Callable[..., Listener], cleanup: ExitStack) -> None:
    """What speaks HTTP is called by its name."""
    listener = listen()
    stranger(listener, cleanup).sendall(b"GET / HTTP/1.1\r\n\r\n")

    assert "speaks HTTP" in str(refusal(listener))


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.binary(min_size=1, max_size=300), hello=st.integers(0, 200))
def test_garbage_is_refused(
    data: bytes, hello: int, listen: Callable[..., Listener], tls: Tls
) -> None:
    """Whatever comes, also in the place of a part of a good beginning, is a named error."""
    with Listener(LOOPBACK, authkey=KEY, tls=tls) as listener:
        assert isinstance(listener.address, tuple)
        with socket.create_connection(listener.address[:2]) as peer:
            peer.sendall(_client_hello()[:hello] + data)
            peer.shutdown(socket.SHUT_WR)
            refusal(listener)


def _client_hello() -> bytes:
    """The first thing that a client says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 100, -1])
def test_a_client_that_stalls(
    count: int, listen: Callable[..., Listener], cleanup: ExitStack
) -> None:
    """At whatever byte it stops, its time is over some day, and memory is not taken for it."""
    listener = listen(handshake_timeout=0.2)
    stranger(listener, cleanup).sendall(_client_hello()[:count])

    assert isinstance(refusal(listener), errors.HandshakeTimeoutError)


def test_who_never_speaks_keeps_nobody_out(
    listen: Callable[..., Listener], cleanup: ExitStack, in_thread: Callable[..., Any], tls: Tls
) -> None:
    """A thousand connections that say nothing, and a good client is served among them."""
    listener = listen(backlog=1100, handshake_timeout=20)
    for _ in range(1000):
        stranger(listener, cleanup)
    client = in_thread(Client, listener.address, authkey=KEY, tls=tls, timeout=30)
    for _ in range(1100):
        try:
            here = listener.accept()
        except errors.AuthenticationError:
            continue
        break
    with here:
        here.send("hello")
        assert "hello" == client.result().recv()


def test_a_listener_that_stalls(in_thread: Callable[..., Any], tls: Tls) -> None:
    """A client has a deadline, too."""
    with socket.create_server(LOOPBACK) as server, pytest.raises(errors.HandshakeTimeoutError):
        Client(server.getsockname(), authkey=KEY, tls=tls, timeout=0.2)


# -- in use ------------------------------------------------------------------------------


def test_nothing_is_read_ahead(ends: tuple[Connection, Connection]) -> None:
    """Select sees each message that was not received, and none when all were."""
    here, there = ends
    for size in (0, 1, 100, 16_380, 16_384, 70_000, 0):
        for _ in range(3):
            here.send_bytes(b"x" * size)
        for _ in range(3):
            assert select.select([there], [], [], 30)[0]
            assert there.poll(0)
            assert size == len(there.recv_bytes())
        assert not there.poll(0)
        assert not select.select([there], [], [], 0)[0]


def test_both_ways_at_once(
    ends: tuple[Connection, Connection], in_thread: Callable[..., Any]
) -> None:
    """Long messages both ways through both ends, from two threads each, do not get stuck."""
    size, count = 3_000_000, 5

    def send(end: Connection) -> None:
        for number in range(count):
            end.send_bytes(bytes([number]) * size)

    def receive(end: Connection) -> list[bool]:
        return [bytes([number]) * size == end.recv_bytes() for number in range(count)]

    sending = [in_thread(send, end) for end in ends]
    receiving = [in_thread(receive, end) for end in ends]
    for each in sending:
        each.result()
    for each in receiving:
        assert [True] * count == each.result()


def test_a_message_that_is_too_long(ends: tuple[Connection, Connection]) -> None:
    """The limit is looked at before memory is taken; the other direction goes on."""
    here, there = ends
    here.send_bytes(b"x" * 1000)
    with pytest.raises(errors.MessageTooLongError):
        there.recv_bytes(999)
    there.send("still here")
    assert "still here" == here.recv()


def test_into_memory_of_ones_own(ends: tuple[Connection, Connection]) -> None:
    """`recv_bytes_into` fills what it is given."""
    here, there = ends
    here.send_bytes(b"x" * 100_000)
    buffer = bytearray(200_000)
    assert 100_000 == there.recv_bytes_into(buffer, 50)
    assert b"x" * 100_000 == buffer[50:100_050]
    assert 0 == buffer[100_050]


def test_a_signal_handler_that_raises(ends: tuple[Connection, Connection]) -> None:
    """Between messages it harms nothing."""
    here, there = ends

    class Enough(Exception):
        pass

    def raise_enough(*_: object) -> None:
        raise Enough

    before = signal.signal(signal.SIGALRM, raise_enough)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Enough):
            there.recv()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    here.send("hello")
    assert "hello" == there.recv()


def test_it_stays_in_its_process(ends: tuple[Connection, Connection]) -> None:
    """What it is encrypted with cannot be in two processes: pickling says so."""
    here, _ = ends
    with pytest.raises(TypeError, match="cannot be given to another process"):
        pickle.dumps(here)


def test_a_forked_child(ends: tuple[Connection, Connection]) -> None:
    """It can neither use its copy nor harm its parent's, and does not keep it open."""
    here, there = ends

    def child() -> None:
        for use in (lambda: here.send(1), there.recv):
            with pytest.raises(errors.BrokenConnectionError, match="forked child"):
                use()

    child_process = Forked(child)
    assert 0 == child_process.join()
    there.send("hello")
    assert "hello" == here.recv()
    here.close()
    with pytest.raises(errors.EndOfConnectionError):
        there.recv()


def test_what_was_sent_before_the_end(
    ends: tuple[Connection, Connection], in_thread: Callable[..., Any]
) -> None:
    """It is received, although who has sent it has not received everything himself."""
    here, there = ends
    there.send("farewell")
    sending = in_thread(here.send_bytes, bytes(20_000_000))
    assert there.poll(30)
    there.close()
    assert isinstance(sending.failure(), errors.BrokenConnectionError)
    assert "farewell" == here.recv()
    with pytest.raises(errors.BrokenConnectionError):
        here.send("anybody?")


# -- settings ----------------------------------------------------------------------------


def test_files_that_are_no_certificates(certificates: Any, tmp_path: Path) -> None:
    """What is wrong with which file is said when it is named, not when somebody connects."""
    certificate, key, authority = certificates.files()
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("hello")
    with pytest.raises(errors.ConfigurationError, match="nonsense"):
        Tls.from_certificates(nonsense, key, authority)
    with pytest.raises(errors.ConfigurationError, match="and its private key"):
        Tls.from_certificates(certificate, certificates.files()[1], authority)
    with pytest.raises(errors.ConfigurationError, match="authority"):
        Tls.from_certificates(certificate, key, nonsense)
    with pytest.raises(FileNotFoundError):
        Tls.from_certificates(tmp_path / "nowhere", key, authority)


def test_from_the_environment(certificates: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All or nothing, and what is missing is named."""
    assert Tls.from_environment() is None
    certificate, key, authority = map(str, certificates.files())
    monkeypatch.setenv("PROCESSION_TLS_CERTIFICATE", certificate)
    monkeypatch.setenv("PROCESSION_TLS_KEY", key)
    with pytest.raises(errors.ConfigurationError, match="missing: PROCESSION_TLS_AUTHORITY"):
        Tls.from_environment()
    monkeypatch.setenv("PROCESSION_TLS_AUTHORITY", authority)
    made = Tls.from_environment()
    assert made is not None
    assert certificate in repr(made)


def test_values_that_make_no_sense(certificates: Any, tls: Tls) -> None:
    """They are refused, with what is allowed."""
    with pytest.raises(ValueError, match="3 or more"):
        certificates.tls(silence=2)
    with pytest.raises(ValueError, match="tls is for TCP"):
        Listener(family="AF_UNIX", authkey=KEY, tls=tls)
    if HAS_KEYS:
        with pytest.raises(ValueError, match="needs an authkey"):
            Listener(LOOPBACK, tls=Tls.from_authkey())
        with pytest.raises(ValueError, match="1 to 128 bytes"):
            Tls.from_authkey(job="")
    else:
        with pytest.raises(errors.ConfigurationError, match=r"Python 3\.13"):
            Tls.from_authkey()


def test_a_pickle_has_no_secrets(certificates: Any) -> None:
    """Only names of files are in it."""
    files = certificates.files()
    pickled = pickle.dumps(Tls.from_certificates(*files))
    assert str(files[1]).encode() in pickled
    assert b"PRIVATE" not in pickled


def test_how_long_a_handshake_takes(
    listen: Callable[..., Listener], in_thread: Callable[..., Any], tls: Tls
) -> None:
    """Not a benchmark: a stall of Nagle's kind, 40 ms for each step, would show."""
    listener = listen(backlog=20)
    count = 20
    accepting = in_thread(lambda: [listener.accept() for _ in range(count)])
    begun = time.monotonic()
    clients = [Client(listener.address, authkey=KEY, tls=tls) for _ in range(count)]
    taken = time.monotonic() - begun
    for each in (*clients, *accepting.result()):
        each.close()
    assert taken / count < 0.08


def test_a_client_that_goes_on_too_early(
    listen: Callable[..., Listener], certificates: Any, in_thread: Any
) -> None:
    """Whoever sends messages before it was let in is refused: they would be overlooked."""
    listener = listen(authkey=None)
    accepting = in_thread(listener.accept)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.directory / "ours.authority")
    context.load_cert_chain(*certificates.files()[:2])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    address: Any = listener.address
    with socket.create_connection(address) as peer:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                peer.sendall(outgoing.read())
                incoming.write(peer.recv(1 << 14))
        client.write((4).to_bytes(4, "big") + b"more")
        peer.sendall(outgoing.read())  # the end of the handshake, and what follows it
        refused = accepting.failure()
    assert type(refused) is errors.AuthenticationError
    assert "gone on before the handshake was through" in str(refused)
