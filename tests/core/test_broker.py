"""The broker: descriptors for whoever gets an object in a message, and for nobody else."""

from __future__ import annotations

import _thread
import ctypes
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("looks into /proc and at abstract sockets", allow_module_level=True)

from procession import errors
from procession._channels.stream_channel import StreamChannel
from procession._ground.handoff import Exportable, Handoff, Recipe, Takeover
from procession._messages import broker as _broker
from procession.connection import Connection
from procession.process import current_process
from procession.testing.forked import crew, until

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


class Bundle(Exportable):
    """So many descriptors."""

    def __init__(self, descriptors: list[int]) -> None:
        self.descriptors = descriptors

    def export(self, handoff: Handoff, /) -> Recipe:
        """Give all."""
        return (tuple(map(handoff.give, self.descriptors)),)

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Bundle:
        """Take all."""
        return cls(list(map(takeover.take, recipe[0])))

    def close(self) -> None:
        """Close all."""
        for fd in self.descriptors:
            os.close(fd)


@pytest.fixture
def ends() -> Iterator[tuple[Connection, Connection]]:
    """A one-way pair over a pipe."""
    reader, writer = os.pipe()
    with Connection(reader, writable=False) as here, Connection(writer, readable=False) as there:
        yield here, there


@pytest.fixture
def line() -> Iterator[tuple[Connection, Connection]]:
    """A duplex pair to send through."""
    first, second = (StreamChannel((fd,), (fd,)) for fd in map(socket.socket.detach, sockets()))
    with Connection.over(first) as here, Connection.over(second) as there:
        yield here, there


def sockets() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets."""
    return socket.socketpair()


def serving() -> list[threading.Thread]:
    """The threads that hand out descriptors."""
    return [each for each in threading.enumerate() if each.name == "procession-broker"]


def forget_offers() -> None:
    """Fetch what a test has left on offer, so that the thread ends."""
    with _broker._broker._lock:
        claims = [(_broker._broker._address, each) for each in _broker._broker._offers]
        counts = [len(each) for each in _broker._broker._offers.values()]
    for (address, ticket), count in zip(claims, counts, strict=True):
        for fd in _broker._fetch(address, ticket, count):
            os.close(fd)
    until(lambda: not serving())


def test_connection_through_a_connection(
    ends: tuple[Connection, Connection], line: tuple[Connection, Connection]
) -> None:
    """It arrives usable in a running process, while the sender's own stays open."""
    receiver, sender = ends
    here, there = line

    def child() -> None:
        with there.recv() as received:
            received.send("from the child")

    with crew() as fork:
        process = fork(child)
        here.send(sender)
        assert "from the child" == receiver.recv()
        assert 0 == process.join()
    sender.send("from its parent")
    assert "from its parent" == receiver.recv()


def test_held_until_fetched(
    ends: tuple[Connection, Connection], line: tuple[Connection, Connection]
) -> None:
    """The sender may close its own end as soon as `send` has returned."""
    receiver, sender = ends
    here, there = line
    here.send(sender)
    sender.close()
    with there.recv() as received:
        received.send("still open")

    assert "still open" == receiver.recv()
    with pytest.raises(EOFError):
        receiver.recv()


def test_nothing_runs_when_nothing_is_on_offer(ends: tuple[Connection, Connection]) -> None:
    """The thread and its socket end with the last fetch, and begin again with an offer."""
    _, sender = ends
    assert [] == serving()
    for _ in range(3):
        pickles = [pickle.dumps(sender) for _ in range(3)]
        assert 1 == len(serving())
        assert serving()[0].daemon
        for each in pickles:
            pickle.loads(each).close()
        until(lambda: not serving())


def test_who_is_about_to_fork_waits_for_its_end(ends: tuple[Connection, Connection]) -> None:
    """Right after the last fetch there is no thread that a fork would warn of; before it, there is.

    And nobody waits for it while something is on offer.
    """
    _, sender = ends
    for _ in range(20):
        first, last = pickle.dumps(sender), pickle.dumps(sender)
        pickle.loads(first).close()
        _broker.rest()
        assert 1 == len(serving())
        pickle.loads(last).close()
        _broker.rest()
        assert [] == serving()


def test_any_thread_may_wait_for_its_end(ends: tuple[Connection, Connection]) -> None:
    """Also one that `threading` does not know, and need not know afterwards."""
    _, sender = ends
    known = threading.enumerate()
    finished = _thread.allocate_lock()
    finished.acquire()

    def wait() -> None:
        _broker.rest()
        finished.release()

    pickle.loads(pickle.dumps(sender)).close()
    _thread.start_new_thread(wait, ())
    assert finished.acquire(timeout=30)
    assert known == threading.enumerate()


def test_many_threads_offer_and_fetch(ends: tuple[Connection, Connection]) -> None:
    """Offers and fetches at once never meet a socket that is just being closed."""
    _, sender = ends
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                pickle.loads(pickle.dumps(sender)).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: not serving())

    assert [] == failures


def test_several_descriptors_are_not_inheritable() -> None:
    """All of an object's descriptors arrive, in their order, and stay out of programs."""
    pipes = [os.pipe() for _ in range(10)]
    bundle = Bundle([fd for pair in pipes for fd in pair])
    received = pickle.loads(pickle.dumps(bundle))
    for mine, its in zip(bundle.descriptors, received.descriptors, strict=True):
        assert os.fstat(mine).st_ino == os.fstat(its).st_ino
        assert not os.get_inheritable(its)
    received.close()
    bundle.close()


def test_no_descriptor_at_all() -> None:
    """An object that needs none crosses, too."""
    assert [] == pickle.loads(pickle.dumps(Bundle([]))).descriptors


def test_too_many_descriptors() -> None:
    """More than the kernel passes at once are refused by the sender."""
    reader, writer = os.pipe()
    with pytest.raises(ValueError, match="65 descriptors"):
        pickle.dumps(Bundle([reader] * 65))
    os.close(reader)
    os.close(writer)


def test_failed_export_keeps_nothing() -> None:
    """What was duplicated before an export failed is closed again."""
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="Bad file descriptor"):
        pickle.dumps(Bundle([reader, writer, -1]))
    assert [] == serving()
    os.close(reader)
    os.close(writer)


def test_good_for_one_fetch(ends: tuple[Connection, Connection]) -> None:
    """The second who unpickles the same message hears that it was fetched."""
    _, sender = ends
    other = pickle.dumps(sender)
    twice = pickle.dumps(sender)
    pickle.loads(twice).close()
    with pytest.raises(errors.DescriptorLostError, match="somebody has fetched it") as caught:
        pickle.loads(twice)
    assert isinstance(caught.value, OSError)
    pickle.loads(other).close()


def test_receiver_in_another_network(line: tuple[Connection, Connection]) -> None:
    """A process in a sandbox hears that this may be the reason; its sender lives after all."""
    here, there = line

    def child() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
            here.send(os.strerror(ctypes.get_errno()))
            return
        here.send("ready")
        with pytest.raises(errors.DescriptorLostError, match="in a sandbox or container"):
            here.recv()

    reader, writer = os.pipe()
    with crew() as fork, Connection(reader, writable=False) as end:
        process = fork(child)
        answer = there.recv()
        if answer != "ready":
            pytest.skip(f"NOT TRIED: no network namespace can be made here: {answer}")
        there.send(end)
        assert 0 == process.join()
    os.close(writer)
    forget_offers()


@pytest.mark.parametrize("how", ["exits", "is killed"])
def test_giver_has_gone(how: str, line: tuple[Connection, Connection]) -> None:
    """The error names the process that has sent the object and has ended since."""
    here, there = line

    def child() -> None:
        reader, _ = os.pipe()
        there.send_bytes(pickle.dumps(Connection(reader, writable=False)))
        if how == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)

    with crew() as fork:
        process = fork(child)
        message = here.recv_bytes()
        process.join()
        with pytest.raises(errors.DescriptorLostError, match="has ended") as caught:
            pickle.loads(message)
    assert f"{current_process().name!r} (pid {process.pid})" in str(caught.value)
    assert "StreamChannel" in str(caught.value)


def test_other_family_is_refused(
    ends: tuple[Connection, Connection], line: tuple[Connection, Connection]
) -> None:
    """Without the key nothing is handed out, and the object stays for who has it."""
    _, sender = ends
    here, there = line
    message = pickle.dumps(sender)

    def child() -> None:
        current_process().authkey = b"another"
        with pytest.raises(errors.AuthenticationError, match="authkey"):
            pickle.loads(message)
        there.send("refused")

    with crew() as fork:
        process = fork(child)
        assert "refused" == here.recv()
        assert 0 == process.join()
    pickle.loads(message).close()


def address_of(message: bytes) -> Any:
    """Where the broker of this process listens."""
    assert message
    return _broker._broker._address


def test_stranger_learns_and_stops_nothing(ends: tuple[Connection, Connection]) -> None:
    """Whoever hangs up, sends nonsense or guesses a ticket disturbs nobody."""
    _, sender = ends
    message = pickle.dumps(sender)
    address = address_of(message)
    for nonsense in (b"", b"x", b"\0" * 32, b"\xff" * 32 + b"guess" * 20):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(address)
            stranger.sendall(nonsense)
            stranger.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while more := stranger.recv(1000):
                    answer += more
            except ConnectionResetError:
                pass
            # A nonce and the proof over both: nothing that could be used elsewhere.
            assert len(answer) in (0, 64)
    pickle.loads(message).close()


def test_slow_stranger_has_a_deadline(
    ends: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who says nothing keeps the others waiting for a bounded time only."""
    monkeypatch.setattr(_broker, "_DEADLINE", 0.2)
    _, sender = ends
    message = pickle.dumps(sender)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(address_of(message))
        assert b"" == stranger.recv(1)
    pickle.loads(message).close()


def test_impostor_is_noticed(
    ends: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The taker checks the giver, too: no ticket goes to somebody without the key."""
    seen = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(b"\0procession-test-impostor-%d" % os.getpid())
    listener.listen()

    def impostor() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(b"i" * 64)
            seen.append(peer.recv(1000))

    thread = threading.Thread(target=impostor)
    thread.start()
    claim = (listener.getsockname(), b"t" * 16, 1)
    with pytest.raises(errors.AuthenticationError):
        _broker.fetch(StreamChannel, (), claim, ("somebody", os.getpid()))
    thread.join()
    listener.close()

    assert [b""] == seen


def test_receiver_without_descriptors_to_spare(ends: tuple[Connection, Connection]) -> None:
    """Running out of descriptors is said, and what did arrive is closed."""
    import resource

    _, sender = ends
    message = pickle.dumps(Bundle([sender.fileno()] * 5))

    def child() -> None:
        used = max(map(int, os.listdir("/proc/self/fd")))
        free = []
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Everything below the highest is filled, then there is room for the socket and 2 more.
        while (fd := os.dup(0)) < used:
            free.append(fd)
        os.close(fd)
        top = fd + 3
        resource.setrlimit(resource.RLIMIT_NOFILE, (top, limits[1]))
        before = sorted(os.listdir("/proc/self/fd"))
        with pytest.raises(errors.DescriptorLostError, match="too many open files"):
            pickle.loads(message)
        assert before == sorted(os.listdir("/proc/self/fd"))

    import hmac  # noqa: F401 - imported here, since the child cannot open files any more

    _broker._key()
    with crew() as fork:
        assert 0 == fork(child).join()
    until(lambda: not serving())


def test_forked_child_holds_nothing_of_its_parents(line: tuple[Connection, Connection]) -> None:
    """What the parent has on offer is not kept open by its children, who have their own."""
    here, there = line
    reader, writer = os.pipe()
    sent = Connection(writer, readable=False)
    message = pickle.dumps(sent)
    sent.close()

    def child() -> None:
        assert {} == _broker._broker._offers
        assert [] == serving()
        mine, _ = os.pipe()
        there.send(Connection(mine, writable=False))
        here.close()
        there.poll(None)

    with crew() as fork:
        fork(child)
        here.recv().close()
        pickle.loads(message).close()
        until(lambda: not serving())
        # The child is alive; if it had the writing end, there would be no end here.
        os.set_blocking(reader, False)
        assert b"" == os.read(reader, 1)
    os.close(reader)


def test_interpreter_exits_with_offers() -> None:
    """What nobody has fetched keeps no process from ending, and nothing is printed."""
    code = (
        "import sys; sys.path[:] = sys.argv[1:]\n"
        "import os, pickle\n"
        "from procession.connection import Connection\n"
        "end = Connection(os.pipe()[0], writable=False)\n"
        "for _ in range(5): pickle.dumps(end)\n"
        "print('offered')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *sys.path],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert ("offered\n", "") == (found.stdout, found.stderr)


def test_forgotten_offers_can_be_taken_back(ends: tuple[Connection, Connection]) -> None:
    """Everything on offer is known, so that nothing is held without a way to it."""
    _, sender = ends
    for _ in range(3):
        pickle.dumps(sender)
    assert 3 == len(_broker._broker._offers)
    forget_offers()

    assert 0 == len(_broker._broker._offers)
