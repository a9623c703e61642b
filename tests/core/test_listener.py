"""`Listener` and `Client`, with good clients and all kinds of bad ones."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("abstract sockets and /proc", allow_module_level=True)

from procession import errors
from procession._remote import listener as _listener
from procession.connection import Client, Connection, Listener
from procession.testing.forked import crew

KEY = b"the key"
FAMILIES = ["AF_UNIX", "AF_INET", "AF_INET6"]


@pytest.fixture
def listen(cleanup: ExitStack) -> Callable[..., Listener]:
    """Make a listener that is closed after the test."""

    def listen(*args: Any, **kwargs: Any) -> Listener:
        return cleanup.enter_context(Listener(*args, **kwargs))

    return listen


@pytest.fixture
def in_thread(cleanup: ExitStack) -> Callable[..., list[Any]]:
    """Call a function in a thread that is joined after the test; return where results go."""

    def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        results: list[Any] = []

        def work() -> None:
            try:
                results.append(function(*args, **kwargs))
            except BaseException as error:
                results.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        cleanup.callback(lambda: [each.close() for each in results[1:] if hasattr(each, "close")])
        cleanup.callback(thread.join, 5)
        results.insert(0, thread)
        return results

    return in_thread


def result(results: list[Any]) -> Any:
    """Wait for what a thread has returned or raised."""
    results[0].join(30)
    assert not results[0].is_alive()
    return results[1]


def stranger(listener: Listener) -> socket.socket:
    """A client without manners."""
    address = listener.address
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    client = socket.socket(family)
    client.connect(address)
    client.settimeout(30)
    return client


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "authkey"])
@pytest.mark.parametrize("family", FAMILIES)
def test_objects_both_ways(
    family: str, key: bytes | None, listen: Callable[..., Listener], in_thread: Callable[..., Any]
) -> None:
    """What `Pipe` gives to relatives, two processes that only know an address have, too."""
    listener = listen(family=family, authkey=key)
    client = in_thread(Client, listener.address, authkey=key)
    with listener.accept() as here, result(client) as there:
        here.send(["hello", {"x": 1}])
        assert ["hello", {"x": 1}] == there.recv()
        there.send_bytes(b"x" * 30_000)
        assert b"x" * 30_000 == here.recv_bytes()
        there.close()
        with pytest.raises(EOFError):
            here.recv()
    assert isinstance(listener.last_accepted, tuple) == (family != "AF_UNIX")


def test_addresses_by_name(listen: Callable[..., Listener], tmp_path: Path) -> None:
    """A path stays as given and is removed; an abstract name is never in a directory."""
    path = str(tmp_path / "l")
    with Listener(path) as listener:
        assert path == listener.address
        assert os.path.exists(path)
        with pytest.raises(OSError, match="Address already in use"):
            Listener(path)
    assert not os.path.exists(path)
    name = f"\0procession test {os.getpid()}"
    for given in (name, name.encode()):
        with Listener(given) as listener:
            assert name.encode() == listener.address
    assert listen().address[:1] == b"\0"


def test_dropped_listener_leaves_no_name(tmp_path: Path) -> None:
    """The name goes with the object, and at the end of the interpreter."""
    path = str(tmp_path / "l")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # as for a socket that is not closed
        Listener(path)
    assert not os.path.exists(path)
    program = f"from procession.connection import Listener; kept = Listener({path!r})"
    subprocess.run([sys.executable, "-W", "ignore::ResourceWarning", "-c", program], check=True)
    assert not os.path.exists(path)


def test_forked_copy_keeps_the_name(tmp_path: Path) -> None:
    """A child that closes its copy takes nothing from its parent."""
    path = str(tmp_path / "l")
    with Listener(path) as listener, crew() as fork:
        assert 0 == fork(listener.close).join()
        assert os.path.exists(path)


def test_killed_listener_leaves_nothing(temporary_directory: Path) -> None:
    """The address that is chosen when none is given is no file."""
    with crew() as fork:
        reader, writer = os.pipe()

        def work() -> None:
            kept = [Listener(), Listener(authkey=KEY)]
            os.write(writer, b"%d" % len(kept))
            signal.pause()

        process = fork(work)
        os.read(reader, 1)
        process.kill()
        os.close(reader)
        os.close(writer)
    assert [] == [each for each in temporary_directory.iterdir() if "listener" in each.name]


def test_bad_arguments(tmp_path: Path) -> None:
    """multiprocessing's classes, and texts that say what is allowed."""
    text: Any = "text"
    number: Any = 42
    for function in (Listener, Client):
        with pytest.raises(TypeError, match="authkey should be a byte string"):
            function(("localhost", 0), authkey=text)
        with pytest.raises(TypeError, match="address type of 42 unrecognized"):
            function(number)
        with pytest.raises(ValueError, match=r"Family AF_PIPE is not recognized\."):
            function("x", family="AF_PIPE")
        with pytest.raises(ValueError, match=r"Family AF_PIPE is not recognized\."):
            function(r"\\.\pipe\x")
        with pytest.raises(ValueError, match=r"unrecognized family 'AF_NOPE'.*'AF_INET6'"):
            function("x", family="AF_NOPE")
        with pytest.raises(OSError, match="AF_UNIX path too long"):
            function("x" * 200)
    with pytest.raises(TypeError):
        Listener(("localhost", 0), family="AF_UNIX")
    with pytest.raises(FileNotFoundError):
        Client(str(tmp_path / "nobody"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            Client(unused.getsockname())


def test_closed_listener(listen: Callable[..., Listener]) -> None:
    """`accept` says so, and closing again is allowed."""
    listener = listen()
    listener.close()
    listener.close()
    assert "closed" in repr(listener)
    with pytest.raises(OSError, match="listener is closed"):
        listener.accept()


@pytest.mark.parametrize("family", FAMILIES)
def test_closing_wakes_who_accepts(
    family: str, listen: Callable[..., Listener], in_thread: Callable[..., Any]
) -> None:
    """A server's thread can be ended: by closing its listener."""
    listener = listen(family=family, authkey=KEY)
    accepting = in_thread(listener.accept)
    with stranger(listener) if family != "AF_INET6" else socket.socket() as client:
        if family != "AF_INET6":
            assert client.recv(100)  # it is being served
        listener.close()
        assert isinstance(result(accepting), errors.ConnectionClosedError)


def test_wrong_key(listen: Callable[..., Listener], in_thread: Callable[..., Any]) -> None:
    """Both sides hear of it, and the next client is served."""
    listener = listen(authkey=KEY)
    client = in_thread(Client, listener.address, authkey=b"another")
    with pytest.raises(errors.AuthenticationError, match="digest received was wrong"):
        listener.accept()
    assert "digest sent was rejected" in str(result(client))
    assert isinstance(result(client), errors.AuthenticationError)
    client = in_thread(Client, listener.address, authkey=KEY)
    with listener.accept(), result(client):
        pass


def test_listener_without_a_key(
    listen: Callable[..., Listener], in_thread: Callable[..., Any]
) -> None:
    """A client that wants proof does not get on with a listener that gives none."""
    listener = listen()
    client = in_thread(Client, listener.address, authkey=KEY)
    with listener.accept() as connection:
        connection.send("no challenge")
        assert isinstance(result(client), errors.AuthenticationError)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """Make a directory instead."""
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\0\0\0\5hello",
        b"\0\0\1\1" + b"x" * 257,
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff\0\0\0\1\0\0\0\0",
        b"\xff\xff\xff\xfe",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_nonsense_is_named(nonsense: bytes, listen: Callable[..., Listener]) -> None:
    """The error is an `AuthenticationError`, at once, and the client is hung up on."""
    listener = listen(authkey=KEY)
    with stranger(listener) as client:
        client.sendall(nonsense)
        with pytest.raises(errors.AuthenticationError):
            listener.accept()
        try:
            while client.recv(1000):
                continue
        except ConnectionResetError:
            pass


@pytest.mark.parametrize("said", [b"", b"\0\0", b"\0\0\0\x28{sha256}1234"])
def test_client_that_hangs_up(said: bytes, listen: Callable[..., Listener]) -> None:
    """At any byte: an `EOFError`."""
    listener = listen(authkey=KEY)
    with stranger(listener) as client:
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            listener.accept()


def test_nothing_is_unpickled_before_the_handshake(
    listen: Callable[..., Listener], tmp_path: Path
) -> None:
    """A pickle in place of an answer is not even looked at."""
    mark = tmp_path / "mark"
    body = pickle.dumps(Trap(str(mark)))
    listener = listen(authkey=KEY)
    with stranger(listener) as client:
        client.sendall(len(body).to_bytes(4, "big") + body)
        with pytest.raises(errors.AuthenticationError):
            listener.accept()
    assert not mark.exists()


@pytest.mark.parametrize("said", [b"", b"\0", b"\0\0\0\x28{sha256}1234"])
def test_stalling_client_keeps_nobody_waiting(
    said: bytes, listen: Callable[..., Listener], in_thread: Callable[..., Any]
) -> None:
    """Whoever knows the key is let in past those who stall at any byte."""
    listener = listen(authkey=KEY, handshake_timeout=20.0, backlog=10)
    with stranger(listener) as client:
        client.sendall(said)
        good = in_thread(Client, listener.address, authkey=KEY)
        started = time.monotonic()
        with listener.accept(), result(good):
            assert time.monotonic() - started < 10


def test_dripping_client_is_timed_out(listen: Callable[..., Listener], cleanup: ExitStack) -> None:
    """The deadline is for the whole handshake: a byte now and then does not prolong it."""
    listener = listen(authkey=KEY, handshake_timeout=0.3)
    client = cleanup.enter_context(stranger(listener))
    stop = threading.Event()

    def drip() -> None:
        try:
            client.sendall(b"\0\0\0\x50")
            while not stop.wait(0.02):
                client.sendall(b"x")
        except OSError:
            return  # hung up on

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        with pytest.raises(
            errors.HandshakeTimeoutError, match=r"has not finished|has sent nothing"
        ):
            listener.accept()
    finally:
        stop.set()
        thread.join()


def test_time_between_accepts_does_not_count(
    listen: Callable[..., Listener], in_thread: Callable[..., Any]
) -> None:
    """A handshake cannot go on while nobody accepts, so that time is not the client's."""
    listener = listen(authkey=KEY, handshake_timeout=1.5, backlog=5)
    with stranger(listener) as silent:
        first = in_thread(Client, listener.address, authkey=KEY)
        with listener.accept(), result(first):
            assert silent.recv(100)  # its handshake has begun
            time.sleep(1.6)  # not a wait for anything: the time itself is what is tested
        second = in_thread(Client, listener.address, authkey=KEY)
        with listener.accept(), result(second):
            pass
        with pytest.raises(errors.HandshakeTimeoutError):
            listener.accept()


def test_a_thousand_silent_clients(listen: Callable[..., Listener], cleanup: ExitStack) -> None:
    """Bounded descriptors and memory, a named error for each, and good clients are served."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 1000
    if hard != resource.RLIM_INFINITY and hard < count + 500:
        pytest.skip(f"needs {count + 500} descriptors, and the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), hard))
    cleanup.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
    listener = listen(authkey=KEY, backlog=128, handshake_timeout=0.5)
    served: list[Connection] = []
    refused: list[BaseException] = []
    most = 0

    def serve() -> None:
        nonlocal most
        while True:
            try:
                served.append(listener.accept())
            except (errors.AuthenticationError, EOFError) as error:
                refused.append(error)
            except errors.ConnectionClosedError:
                return
            most = max(most, len(listener._handshakes))

    thread = threading.Thread(target=serve)
    thread.start()
    cleanup.callback(thread.join)
    cleanup.callback(listener.close)
    silent = []
    for number in range(count):
        silent.append(cleanup.enter_context(stranger(listener)))
        if number % 250 == 0:
            with Client(listener.address, authkey=KEY, timeout=20):
                pass
    with Client(listener.address, authkey=KEY, timeout=20):
        pass
    deadline = time.monotonic() + 20
    while (len(refused), len(served)) != (count, 5) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert count == len(refused)
    assert 5 == len(served)
    assert most <= _listener.MOST_HANDSHAKES
    for each in served:
        each.close()


def test_server_that_stalls(cleanup: ExitStack) -> None:
    """A client with a deadline has an error when it is over, wherever the server stalls."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(b"\0stalls %d" % os.getpid())
        server.listen(5)
        for said in (b"", b"\0\0", b"\0\0\0\x3b#CHALLENGE#"):
            deadline = threading.Event()

            def serve(said: bytes = said, done: threading.Event = deadline) -> None:
                peer, _ = server.accept()
                with peer:  # the client may hang up first
                    peer.sendall(said)
                    done.wait(30)

            thread = threading.Thread(target=serve)
            thread.start()
            with pytest.raises(errors.HandshakeTimeoutError):
                Client(server.getsockname(), authkey=KEY, timeout=0.2)
            deadline.set()
            thread.join()


def test_full_backlog(listen: Callable[..., Listener], cleanup: ExitStack) -> None:
    """A client with a deadline has an error when the listener does not even let it in."""
    listener = listen(authkey=KEY, backlog=0)
    cleanup.enter_context(stranger(listener))
    with pytest.raises(errors.HandshakeTimeoutError, match=r"has not let us in within 0\.2"):
        Client(listener.address, authkey=KEY, timeout=0.2)


def test_private_address_turns_other_users_away() -> None:
    """An abstract name has no permissions, so we look at who is there."""
    if os.geteuid() != 0:
        pytest.skip("needs to be root, to become somebody else")
    with Listener() as listener, crew() as fork:

        def as_nobody() -> None:
            os.setresuid(65534, 65534, 65534)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(listener.address)
                client.recv(1)

        process = fork(as_nobody)
        with pytest.raises(errors.AuthenticationError, match="another user"):
            listener.accept()
        process.join()


def test_several_threads_accept(
    listen: Callable[..., Listener], in_thread: Callable[..., Any]
) -> None:
    """Each client goes to exactly one of them."""
    listener = listen(authkey=KEY, backlog=20)
    accepting = [in_thread(listener.accept) for _ in range(6)]
    clients = [in_thread(Client, listener.address, authkey=KEY) for _ in range(6)]
    for number, client in enumerate(clients):
        result(client).send(number)
    assert list(range(6)) == sorted(result(each).recv() for each in accepting)


def test_forked_processes_share_a_listener() -> None:
    """Each client goes to one of the processes that accept at one address."""
    with Listener(authkey=KEY, backlog=20) as listener, crew() as fork:

        def serve() -> None:
            while True:
                with listener.accept() as connection:
                    connection.send(os.getpid())

        pids = {fork(serve).pid for _ in range(3)}
        for _ in range(30):
            with Client(listener.address, authkey=KEY) as client:
                assert client.recv() in pids


def test_a_forked_child_closes_its_own_copy(
    listen: Callable[..., Listener], in_thread: Callable[..., Any]
) -> None:
    """The process that has made the listener goes on accepting."""
    listener = listen(("127.0.0.1", 0), authkey=KEY)
    with crew() as fork:
        assert 0 == fork(listener.close).join()
    client = in_thread(Client, listener.address, authkey=KEY, timeout=20)
    with listener.accept() as here, result(client) as there:
        here.send("hello")
        assert "hello" == there.recv()


def test_signal_handler_does_not_end_accept(
    listen: Callable[..., Listener], in_thread: Callable[..., Any]
) -> None:
    """After a signal was handled the wait goes on; a handler that raises ends it."""
    listener = listen(authkey=KEY)
    handled = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: handled.set())
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        client = in_thread(lambda: handled.wait(30) and Client(listener.address, authkey=KEY))
        with listener.accept(), result(client):
            pass

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGUSR1, interrupt)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(KeyboardInterrupt):
            listener.accept()
    finally:
        signal.signal(signal.SIGUSR1, before)
    client = in_thread(Client, listener.address, authkey=KEY)
    with listener.accept(), result(client):
        pass


def test_sockets_are_tuned(listen: Callable[..., Listener], in_thread: Callable[..., Any]) -> None:
    """No 40 ms for a second small packet, and a vanished peer is noticed; a busy one is not."""
    listener = listen(family="AF_INET", authkey=KEY)
    client = in_thread(Client, listener.address, authkey=KEY)
    with listener.accept() as here, result(client) as there:
        for each in (here, there):
            with socket.socket(fileno=os.dup(each.fileno())) as peer:
                assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert 0 == peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                assert peer.gettimeout() is None
