"""Connections and the channels below them: the promises of `Channel`, kept under failure.

What users see on every pair is in tests/behaviour; here are the ends of messages that were
cut, signal handlers, forks, other people's framing.
"""

from __future__ import annotations

import array
import errno
import multiprocessing
import os
import pickle
import random
import re
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

if sys.platform == "win32":
    pytest.skip("connections over descriptors need a POSIX system", allow_module_level=True)

from procession import errors
from procession._channels.descriptor_channel import DescriptorChannel
from procession._channels.stream_channel import StreamChannel, pack_length
from procession._messages.pickling import SHORTEST_BUFFER, dumps, join, loads
from procession.connection import Connection, pipe, wait
from procession.plugin import TransportFeatures
from procession.testing.forked import DEADLINE, crew, until

if TYPE_CHECKING:
    from procession._contracts.channel import Channel

KIB, MIB = 1 << 10, 1 << 20
#: More than any transport holds, so that its sender has to wait.
LARGE = 8 * MIB

Pair = Callable[..., "tuple[Channel, Channel]"]


def stream_pair(*, duplex: bool = True) -> tuple[Channel, Channel]:
    """Give channels with multiprocessing's framing."""
    if duplex:
        one, other = (end.detach() for end in socket.socketpair())
        return StreamChannel((one,), (one,)), StreamChannel((other,), (other,))
    reader, writer = os.pipe()
    return StreamChannel((reader,), ()), StreamChannel((), (writer,))


def transport_pair(name: str, kind: str) -> Pair:
    """Give `pair` of an installed transport."""
    transport = getattr(pytest.importorskip(f"procession_{name}"), kind)
    if transport.unavailable() is not None:
        pytest.skip(transport.unavailable())
    pair: Pair = transport().pair
    return pair


@pytest.fixture(params=["stream", "pipe", "socketpair", "ring", "tcp"])
def make(request: pytest.FixtureRequest) -> Pair:
    """Make two connected ends, in each way there is."""
    if request.param == "stream":
        return stream_pair
    kinds = {"pipe": "Pipe", "socketpair": "SocketPair", "ring": "Ring", "tcp": "Tcp"}
    return transport_pair(request.param, kinds[request.param])


@pytest.fixture(params=["stream", "pipe", "socketpair", "tcp"])
def make_of_descriptors(request: pytest.FixtureRequest) -> Pair:
    """As `make`, where an end is a `DescriptorChannel`."""
    kinds = {"pipe": "Pipe", "socketpair": "SocketPair", "tcp": "Tcp"}
    if request.param == "stream":
        return stream_pair
    return transport_pair(request.param, kinds[request.param])


@pytest.fixture
def connections(make: Pair) -> Iterator[tuple[Connection, Connection]]:
    """A duplex pair of connections."""
    first, second = map(Connection.over, make(duplex=True))
    yield first, second
    first.close()
    second.close()


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Run *work* beside the test."""
    thread = threading.Thread(target=work)
    thread.start()
    return thread


# -- messages ------------------------------------------------------------------------------


# -- ends ----------------------------------------------------------------------------------


def test_close_is_idempotent_and_closes_all(make_of_descriptors: Pair) -> None:
    """A closed end holds no descriptor; using it is an error."""
    first, second = make_of_descriptors(duplex=True)
    numbers = [getattr(first, name) for name in ("reader", "writer", "bulk_reader")]
    first.close()
    first.close()
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
    assert first.closed
    for use in (lambda: first.send(b""), first.receive, first.wait, first.fileno):
        with pytest.raises(OSError):  # noqa: PT011 - each in words of its own
            use()
    second.close()


# -- signal handlers -----------------------------------------------------------------------


class Interrupt(Exception):
    """Raised by a signal handler."""


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Alarms:
    """Signals at random moments, raised in the code of channels only."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = 0
        signal.signal(signal.SIGALRM, self.handle)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise out of the package, not out of the accounting of a test; and again soon."""
        if frame is not None and frame.f_globals["__name__"].startswith("procession._"):
            self.count += 1
            self.next(0.00002)
            raise Interrupt

    def next(self, most: float) -> None:
        """Have the next signal in up to *most* seconds."""
        signal.setitimer(signal.ITIMER_REAL, self.random.uniform(0.000001, most))

    def stop(self) -> None:
        """Have none any more."""
        signal.setitimer(signal.ITIMER_REAL, 0)


#: Short ones, some of several parts, and some that have to be waited for.
SIZES = (8, 100, 5_000, 70_000, 300_000)


def numbered(number: int, size: int) -> bytes:
    """Make a message that cannot be taken for another or for a part of one."""
    return (number.to_bytes(8, "little") * (size // 8 + 1))[:size]


def check_numbered(body: Any, last: int) -> int:
    """Return the number of a message, which is whole and follows the one before."""
    body = bytes(body)
    number = int.from_bytes(body[:8], "little")
    assert last < number
    assert len(body) in SIZES
    assert numbered(number, len(body)) == body
    return number


def send_numbered(writer: Channel, seed: int) -> None:
    """Send messages of random sizes until nobody can receive any more."""
    sizes = random.Random(seed)
    with suppress(BrokenPipeError, ConnectionResetError):
        for number in range(1, 1 << 40):
            writer.send(numbered(number, sizes.choice(SIZES)))


def receive_numbered(reader: Channel) -> None:
    """Check messages until the end or a truncated one."""
    last = 0
    with suppress(EOFError, errors.BrokenConnectionError, ConnectionResetError):
        while True:
            last = check_numbered(reader.receive()[0], last)


def be_the_peer(theirs: Channel, mine: Channel, receiving: bool) -> None:
    """Send if the other one is *receiving*, or the other way round."""
    mine.close()
    if receiving:
        send_numbered(theirs, SEED)
    else:
        receive_numbered(theirs)


def use_under_alarms(mine: Channel, alarms: Alarms, receiving: bool) -> None:
    """Receive or send until there were enough alarms, or one has torn a message."""
    last = 0
    while alarms.count < INTERRUPTS:
        try:
            alarms.next(0.0003)
            if receiving:
                last = check_numbered(mine.receive()[0], last)
            else:
                last += 1
                mine.send(numbered(last, alarms.random.choice(SIZES)))
        except Interrupt:
            pass
        except OSError as error:
            alarms.stop()
            if error.errno != errno.EBADF or not (mine.torn and mine.closed):
                raise
            return
    alarms.stop()


INTERRUPTS = int(os.environ.get("PROCESSION_INTERRUPTS", "150"))
SEED = int(os.environ.get("PROCESSION_SEED", "1"))


@needs_proc
@pytest.mark.parametrize("receiving", [True, False], ids=["receive", "send"])
def test_interrupts_at_any_instruction(make_of_descriptors: Pair, receiving: bool) -> None:
    """Handlers that raise anywhere in `receive` and `send` never make a wrong message.

    What is received is whole and in order, or the end is closed and says so.
    """

    def work() -> None:
        alarms = Alarms(SEED)
        torn = 0
        while alarms.count < INTERRUPTS:
            reader, writer = make_of_descriptors(duplex=False)
            mine, theirs = (reader, writer) if receiving else (writer, reader)
            with crew() as fork:
                peer = fork(partial(be_the_peer, theirs, mine, receiving))
                theirs.close()
                use_under_alarms(mine, alarms, receiving)
                torn += mine.torn
                mine.close()
                assert 0 == peer.join()
        assert torn

    with crew() as fork:
        assert 0 == fork(work).join()


# -- threads and forks ---------------------------------------------------------------------


def test_forked_child_inherits_no_held_lock(make_of_descriptors: Pair) -> None:
    """A thread that sends and one that receives do not block the end in a forked child."""
    first, second = make_of_descriptors(duplex=True)
    assert isinstance(first, DescriptorChannel)
    blocked = in_thread(lambda: first.send(bytes(LARGE)))
    waiting = in_thread(first.receive)
    until(lambda: bool(first.sending))

    def child() -> None:
        assert not first.sending
        for lock in (first.send_lock, first.receive_lock):
            assert lock.acquire(blocking=False)

    with crew() as fork:
        assert 0 == fork(child).join()
    assert LARGE == len(second.receive()[0])
    second.send(b"done")
    blocked.join(DEADLINE)
    waiting.join(DEADLINE)
    first.close()
    second.close()


def test_no_weak_reference_stays(make_of_descriptors: Pair) -> None:
    """What is remembered for forks is forgotten with the channel, closed or collected."""
    from procession._channels import descriptor_channel

    before = len(descriptor_channel._open)
    first, second = make_of_descriptors(duplex=True)
    assert before + 2 == len(descriptor_channel._open)
    first.close()
    del second

    assert before == len(descriptor_channel._open)


# -- pickling ------------------------------------------------------------------------------


class Holder:
    """Has one out-of-band buffer, without numpy."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def __reduce__(self) -> Any:
        return Holder, (pickle.PickleBuffer(self.memory),)


def test_short_buffers_stay_inside() -> None:
    """A buffer below the limit is part of the body, one of the limit is not."""
    assert [] == dumps(Holder(bytearray(SHORTEST_BUFFER - 1)))[1]
    body, buffers = dumps(Holder(bytearray(SHORTEST_BUFFER)))
    assert [SHORTEST_BUFFER] == list(map(len, buffers))
    assert len(body) < 200


def test_buffers_are_not_copied() -> None:
    """The buffers of a message are views of the object's own memory."""
    memory = bytearray(SHORTEST_BUFFER)
    _, buffers = dumps(Holder(memory))
    buffers[0][:3] = b"new"

    assert b"new" == memory[:3]
    assert memory is loads(*dumps([1])) or memory is buffers[0].obj


def test_wide_buffers_are_bytes() -> None:
    """Buffers of any item size and shape go as their bytes."""
    numbers = array.array("d", range(SHORTEST_BUFFER))
    body, buffers = dumps(Holder(numbers))

    assert ("B", 8 * SHORTEST_BUFFER) == (buffers[0].format, len(buffers[0]))
    assert numbers.tobytes() == bytes(loads(body, buffers).memory)


def test_recv_bytes_of_an_object_is_a_whole_pickle(
    connections: tuple[Connection, Connection],
) -> None:
    """Large buffers are put back, without unpickling; plain pickle can load the result."""
    here, there = connections
    memory = bytearray(os.urandom(SHORTEST_BUFFER * 3))
    sender = in_thread(lambda: here.send(Holder(memory)))
    whole = there.recv_bytes()
    sender.join(DEADLINE)

    assert memory == bytes(pickle.loads(whole).memory)
    assert not memoryview(pickle.loads(whole).memory).readonly


def test_whole_pickle_counts_against_the_limit(
    connections: tuple[Connection, Connection],
) -> None:
    """maxlength means the bytes that `recv_bytes` would return."""
    here, there = connections
    sender = in_thread(lambda: here.send(Holder(bytearray(SHORTEST_BUFFER))))
    with pytest.raises(errors.MessageTooLongError, match="bad message length"):
        there.recv_bytes(SHORTEST_BUFFER - 1)
    sender.join(DEADLINE)


def test_recv_bytes_into_of_an_object(connections: tuple[Connection, Connection]) -> None:
    """An object with large buffers fits, or comes whole with BufferTooShort."""
    here, there = connections
    memory = bytearray(SHORTEST_BUFFER)
    into = bytearray(2 * SHORTEST_BUFFER)

    def send() -> None:
        here.send(Holder(memory))
        here.send(Holder(memory))

    sender = in_thread(send)
    length = there.recv_bytes_into(into)
    assert memory == bytes(pickle.loads(into[:length]).memory)
    with pytest.raises(errors.BufferTooShort) as caught:
        there.recv_bytes_into(bytearray(10))
    assert memory == bytes(pickle.loads(caught.value.args[0]).memory)
    sender.join(DEADLINE)


def test_join_runs_nothing() -> None:
    """Making one pickle of a message calls nothing that is named in it."""
    body = b"\x80\x05cno.such.module\nnothing\n."

    assert body in join(body, [b"buffer"])


# -- Connection(handle) and other people's framing -----------------------------------------


def test_handle_arguments() -> None:
    """What cannot be wrapped is refused before anything is taken over."""
    with pytest.raises(ValueError, match="invalid handle"):
        Connection(-1)
    with pytest.raises(ValueError, match="at least one of `readable` and `writable`"):
        Connection(5, readable=False, writable=False)
    anything: Any = "5"
    with pytest.raises(AttributeError):
        Connection(anything)


def test_multiprocessing_at_the_other_end() -> None:
    """A wrapped descriptor talks to multiprocessing's own Connection, both ways."""
    from multiprocessing.connection import Connection as Other

    ours, theirs = (end.detach() for end in socket.socketpair())
    with Connection(ours) as here, Other(theirs) as there:
        for size in (0, 1, 4, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, 64 * KIB, MIB):
            message = os.urandom(size)
            sender = in_thread(partial(here.send_bytes, message))
            assert message == there.recv_bytes()
            sender.join(DEADLINE)
            sender = in_thread(partial(there.send_bytes, message))
            assert message == here.recv_bytes()
            sender.join(DEADLINE)
        here.send({"a": [1, 2]})
        assert {"a": [1, 2]} == there.recv()
        there.send(("b", None))
        assert ("b", None) == here.recv()


def test_one_direction_of_a_handle() -> None:
    """A wrapped pipe reads or writes, as it was said to."""
    reader, writer = os.pipe()
    with Connection(reader, writable=False) as here, Connection(writer, readable=False) as there:
        assert (True, False) == (here.readable, here.writable)
        there.send("x")
        assert "x" == here.recv()
        with pytest.raises(errors.ConnectionDirectionError, match="connection is read-only"):
            here.send("y")
        with pytest.raises(errors.ConnectionDirectionError, match="connection is write-only"):
            there.recv()


def test_lengths_beyond_2_gib_are_8_bytes() -> None:
    """The framing of the largest messages, without any of their bytes."""
    assert b"\x7f\xff\xff\xff" == pack_length(0x7FFFFFFF)
    assert struct.pack("!iQ", -1, 0x80000000) == pack_length(0x80000000)
    assert struct.pack("!iQ", -1, 1 << 40) == pack_length(1 << 40)


def test_long_length_is_read() -> None:
    """A length of 8 bytes is understood, also where 4 would have done."""
    reader, writer = os.pipe()
    os.write(writer, struct.pack("!iQ", -1, 3) + b"abc" + struct.pack("!iQ", -1, 1 << 40))
    with Connection(reader, writable=False) as here:
        assert b"abc" == here.recv_bytes()
        with pytest.raises(OSError, match="bad message length"):
            here.recv_bytes(1 << 30)
    os.close(writer)


def test_negative_length() -> None:
    """A length that is none is refused."""
    reader, writer = os.pipe()
    os.write(writer, struct.pack("!i", -2))
    with (
        Connection(reader, writable=False) as here,
        pytest.raises(OSError, match="bad message length"),
    ):
        here.recv_bytes()
    os.close(writer)


def test_stream_byte_by_byte() -> None:
    """However the bytes arrive, the message is the same."""
    reader, writer = os.pipe()
    data = struct.pack("!i", 5) + b"hello" + struct.pack("!iQ", -1, 2) + b"hi"

    def drip() -> None:
        for byte in data:
            os.write(writer, bytes([byte]))

    with Connection(reader, writable=False) as here:
        sender = in_thread(drip)
        assert b"hello" == here.recv_bytes()
        assert b"hi" == here.recv_bytes()
        sender.join(DEADLINE)
    os.close(writer)


@pytest.mark.parametrize("cut", range(1, 9))
def test_stream_cut_anywhere(cut: int) -> None:
    """The end within a length or within a body is no end of connection."""
    reader, writer = os.pipe()
    os.write(writer, (struct.pack("!i", 5) + b"hello")[:cut])
    os.close(writer)
    with (
        Connection(reader, writable=False) as here,
        pytest.raises(OSError, match="got end of file during message"),
    ):
        here.recv_bytes()


@pytest.mark.parametrize("name", ["pipe", "socketpair"])
def test_nonsense_in_packets(name: str) -> None:
    """A packet that cannot be one is an error, and the end is closed."""
    first, second = transport_pair(name, {"pipe": "Pipe", "socketpair": "SocketPair"}[name])()
    assert isinstance(second, DescriptorChannel)
    os.write(second.writer, b"\xff" * 40)
    connection = Connection.over(first)
    with pytest.raises(OSError, match="bad message"):
        connection.recv()
    assert connection.closed
    second.close()


@pytest.mark.parametrize("name", ["pipe", "socketpair"])
def test_lengths_beyond_2_gib_in_packets(name: str) -> None:
    """The header of a message of 1 TiB is understood and refused by the limit."""
    from procession.framing import pack_header

    first, second = transport_pair(name, {"pipe": "Pipe", "socketpair": "SocketPair"}[name])()
    assert isinstance(second, DescriptorChannel)
    os.write(second.writer, pack_header(1 << 40, ())[0])
    with Connection.over(first) as here, pytest.raises(OSError, match=str(1 << 40)):
        here.recv_bytes(1 << 39)
    second.close()


# -- the connection itself -----------------------------------------------------------------


class OwnTransport:
    """A transport that is nobody's plugin."""

    name = "own"
    features = TransportFeatures()

    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        """See `Transport.pair`."""
        return stream_pair(duplex=duplex)


def test_pipe_of_any_transport() -> None:
    """`pipe` makes the connections of `Pipe` from a transport."""
    transport: Any = OwnTransport()
    first, second = pipe(transport, False)
    with first, second:
        second.send(1)
        assert 1 == first.recv()


def test_a_transport_without_duplex_is_not_asked_for_it() -> None:
    """What a transport declares absent is refused by core, with what would work."""
    transport: Any = OwnTransport()
    transport.features = TransportFeatures(duplex=False)
    with pytest.raises(errors.IncompatiblePluginsError, match=r"'own' has no duplex.*duplex=False"):
        pipe(transport)
    first, second = pipe(transport, False)
    first.close()
    second.close()


def test_repr_tells_state(connections: tuple[Connection, Connection]) -> None:
    """Direction, descriptor and closedness can be read."""
    here, _ = connections
    assert re.fullmatch(r"<Connection duplex fd=\d+>", repr(here))
    here.close()
    assert "<Connection closed>" == repr(here)


def test_recv_bytes_into_wants_writable_memory(
    connections: tuple[Connection, Connection],
) -> None:
    """Memory that cannot be written to is refused before anything is received."""
    here, there = connections
    there.send_bytes(b"kept")
    with pytest.raises(TypeError, match="read-only"):
        here.recv_bytes_into(b"1234")
    assert 4 == here.recv_bytes_into(bytearray(4))


def test_closed_connection_is_not_sent(connections: tuple[Connection, Connection]) -> None:
    """A closed end cannot be pickled: it would arrive closed, and nobody would know."""
    here, there = connections
    here.close()
    with pytest.raises(errors.ConnectionClosedError, match="handle is closed"):
        there.send(here)


def test_errors_are_the_builtin_ones_too(connections: tuple[Connection, Connection]) -> None:
    """Each end of things has a class of its own, and multiprocessing's."""
    here, there = connections
    there.close()
    with pytest.raises(errors.EndOfConnectionError) as end:
        here.recv()
    assert isinstance(end.value, EOFError)
    here.close()
    with pytest.raises(errors.ConnectionClosedError) as closed:
        here.recv()
    assert isinstance(closed.value, OSError)


# -- wait ----------------------------------------------------------------------------------


def test_wait_for_everything_there_is() -> None:
    """Connections, ours and multiprocessing's, sockets, files and numbers, in their order."""
    own, peer = (Connection.over(end) for end in stream_pair())
    theirs, their_peer = multiprocessing.Pipe()
    plug, other_plug = socket.socketpair()
    number, writer = os.pipe()
    things: list[Any] = [own, theirs, plug, number]
    assert [] == wait(things, 0)
    assert [] == wait(iter(things), -5)
    peer.send(1)
    assert [own] == wait(things)
    os.write(writer, b"x")
    other_plug.close()
    their_peer.close()
    assert things == wait(iter(things), 1e9)
    for thing in (own, peer, theirs, plug):
        thing.close()
    os.close(number)
    os.close(writer)


def test_wait_for_nothing() -> None:
    """No objects, no answer."""
    assert [] == wait([], 0)
    assert [] == wait([], 0.001)


def test_wait_refuses_closed(connections: tuple[Connection, Connection]) -> None:
    """A closed connection can never be ready, and that is said."""
    here, there = connections
    here.close()
    with pytest.raises(OSError, match="handle is closed"):
        wait([there, here], 0)


def test_wait_for_the_same_twice(connections: tuple[Connection, Connection]) -> None:
    """Whoever asks twice is answered twice."""
    here, there = connections
    there.send(1)
    assert [here, here] == wait([here, here])


def test_imports_stay_slim() -> None:
    """A child that has a connection imports neither socket nor typing nor re for it."""
    import subprocess

    code = (
        "import sys; sys.path[:] = sys.argv[1:];"
        "import procession.connection, procession._channels.stream_channel;"
        "import procession._channels.packet_channel;"
        "print(*({'socket', 're', 'typing', 'attr', 'pluggy', 'subprocess', 'multiprocessing',"
        " 'hmac', 'secrets', 'tempfile'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *sys.path],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "" == found.stdout.strip()
