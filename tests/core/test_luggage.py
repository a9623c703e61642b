"""Luggage: descriptors that travel with a message, and that nobody has to look after."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

if sys.platform != "linux":
    pytest.skip("looks into /proc", allow_module_level=True)

import numpy

from procession import Lock, Queue, Value, errors
from procession._channels.packet_channel import PacketChannel
from procession._channels.packet_sockets import PacketSocketChannel
from procession._choosing import selection
from procession._ground.companion import _MOST_STRAY, Inlet, Outlet
from procession._ground.encoder import Encoder
from procession._ground.handoff import Exportable, Handoff, Recipe, Takeover
from procession._ground.sockets import BorrowedSocket
from procession._messages import broker as _broker
from procession.connection import Connection, pipe
from procession.shared_memory import AnonymousMemory, shared_array
from procession.testing.forked import crew, until

Ends = tuple[Connection, Connection]


def transport(name: str) -> Any:
    """Return a transport, or skip the test where it is not installed."""
    pytest.importorskip(f"procession_{name}")
    return selection.registry().load("transport", name)()


@pytest.fixture(params=["pipe", "socketpair", "tcp", "ring", "ring in Python"])
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A transport whose channels have companions."""
    name, _, implementation = request.param.partition(" in ")
    if implementation:
        monkeypatch.setenv("PROCESSION_RING_IMPLEMENTATION", implementation.lower())
    return transport(name)


@pytest.fixture
def ends(carrier: Any) -> Iterator[Ends]:
    """A duplex pair."""
    here, there = pipe(carrier)
    with here, there:
        yield here, there


@pytest.fixture
def narrow_ends(carrier: Any) -> Iterator[Ends]:
    """A duplex pair where fewer messages can be on their way than descriptors."""
    options: dict[str, Any] = {"size": 32 << 10} if carrier.features.sizes else {}
    here, there = pipe(carrier, **options)
    with here, there:
        if isinstance(there.channel, PacketSocketChannel):
            with BorrowedSocket(there.fileno()) as own:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)
        yield here, there


@pytest.fixture
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be put on offer."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("the broker was asked")

    monkeypatch.setattr(_broker, "offer", refuse)


def descriptors() -> int:
    """How many this process has open."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def companion(end: Connection) -> int:
    """The socket beside an end."""
    channel: Any = end.channel
    found = channel.companion if isinstance(channel, PacketChannel) else channel._porter.companion
    assert found >= 0
    return int(found)


def post(outlet: Outlet, fd: int = 0) -> bool:
    """Send a descriptor for which no message comes; say whether there was room."""
    return outlet.post(outlet.new_ticket(), [fd])


def has_end(reader: int) -> bool:
    """Whether nobody has the writing end of a pipe any more."""
    os.set_blocking(reader, False)
    try:
        return os.read(reader, 1) == b""
    except BlockingIOError:
        return False


def end_of_a_pipe() -> tuple[int, Connection]:
    """A reading descriptor and a connection around the writing end."""
    reader, writer = os.pipe()
    return reader, Connection(writer, readable=False)


def use_memory(memory: AnonymousMemory) -> None:
    """Write something."""
    assert memory.buf is not None
    memory.buf[0] = 7


def is_memory_used(memory: AnonymousMemory) -> bool:
    """Whether somebody has."""
    assert memory.buf is not None
    return memory.buf[0] == 7


def use_value(value: Any) -> None:
    """Set it under its lock."""
    with value.get_lock():
        value.value = 7


KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], bool]]] = {
    "memory": (lambda: AnonymousMemory(4096), use_memory, is_memory_used),
    "value": (lambda: Value("i", 0), use_value, lambda value: value.value == 7),
    "lock": (Lock, lambda lock: lock.acquire(), lambda lock: not lock.acquire(block=False)),
    "queue": (Queue, lambda queue: queue.put(7), lambda queue: queue.get() == 7),
    "array": (lambda: shared_array(5), lambda array: array.fill(7), lambda array: array[4] == 7),
}


@pytest.mark.usefixtures("no_broker")
@pytest.mark.parametrize("kind", KINDS)
def test_running_process_uses_what_it_is_sent(kind: str, ends: Ends) -> None:
    """What is made of descriptors is the same in the receiver, and no thread is needed for it."""
    make, use, is_used = KINDS[kind]
    here, there = ends

    def child() -> None:
        first, things = there.recv()
        assert "first" == first
        use(things["key"])
        there.send("used")
        there.recv()

    with crew() as fork:
        process = fork(child)
        thing = make()  # after the fork: nothing of it is there
        threads = threading.active_count()
        here.send(("first", {"key": thing, "other": [1, 2]}))
        assert "used" == here.recv()
        assert is_used(thing)
        assert threads == threading.active_count()
        here.send(None)
        assert 0 == process.join()


@pytest.mark.usefixtures("no_broker")
def test_sockets_and_connections_travel(ends: Ends, carrier: Any) -> None:
    """Sockets do, and connections with a way for descriptors of their own."""
    here, there = ends
    # An end of tcp has a way of its own to running processes, as they may be on other hosts.
    near, far = pipe(transport("socketpair") if carrier.name == "tcp" else carrier)
    one, other = socket.socketpair()
    with near, far, one, other:
        here.send((far, other))
        arrived, arrived_socket = there.recv()
        with arrived, arrived_socket:
            far.close()
            other.close()
            arrived_socket.sendall(b"socket")
            assert b"socket" == one.recv(10)
            near.send(AnonymousMemory(10))
            memory = arrived.recv()
            assert 10 == memory.size
            use_memory(memory)
            arrived.send(memory)
            assert is_memory_used(near.recv())


def test_sender_killed_after_sending(ends: Ends) -> None:
    """What was sent arrives, and lives on, although its sender is dead."""
    here, there = ends

    def child() -> None:
        memory = AnonymousMemory(4096)
        use_memory(memory)
        there.send(memory)
        os.kill(os.getpid(), signal.SIGKILL)

    with crew() as fork:
        assert -signal.SIGKILL == fork(child).join()
        assert is_memory_used(here.recv())


def test_nothing_is_kept_by_the_sender(ends: Ends) -> None:
    """As soon as it is sent, the sender has nothing of it but the object itself."""
    here, there = ends
    memory = AnonymousMemory(100)
    here.send(memory)
    there.recv().close()
    before = descriptors()
    for _ in range(10):
        here.send(memory)
    assert before == descriptors()
    for _ in range(10):
        there.recv().close()
    assert before == descriptors()


@pytest.mark.parametrize("received", [0, 1])
def test_dropped_unread(ends: Ends, received: int) -> None:
    """What nobody has received when an end is closed is let go of, and so is what came first."""
    here, there = ends
    reader, sent = end_of_a_pipe()
    for _ in range(3):
        here.send(sent)
    sent.close()
    for _ in range(received):
        there.recv().close()
    assert not has_end(reader)
    there.close()
    assert has_end(reader)
    os.close(reader)


def test_receiver_killed_before_receiving(ends: Ends) -> None:
    """What was sent to a process that is killed before it looks keeps nothing alive."""
    here, there = ends
    reader, sent = end_of_a_pipe()

    def child() -> None:
        here.close()
        sent.close()
        signal.pause()

    with crew() as fork:
        process = fork(child)
        there.close()
        here.send(sent)
        sent.close()
        assert not has_end(reader)
        process.kill()
        until(lambda: has_end(reader))
    os.close(reader)


def test_forked_meanwhile(ends: Ends) -> None:
    """A message that was sent before a fork is received by the child, with its luggage."""
    here, there = ends
    here.send(AnonymousMemory(123))
    here.send(AnonymousMemory(456))
    assert 123 == there.recv().size

    def child() -> None:
        assert 456 == there.recv().size

    with crew() as fork:
        assert 0 == fork(child).join()


@pytest.mark.parametrize("length", [0, 4000, 4075, 4090, 65_520, 65_530, 300_000])
@pytest.mark.parametrize("arrays", [0, 1, 3, 600])
def test_beside_long_messages(ends: Ends, length: int, arrays: int) -> None:
    """Bodies and buffers of any length, and memory between them, all arrive as they were."""
    here, there = ends
    content = [numpy.full(70_000, each % 250, "u1") for each in range(arrays)]
    memory = AnonymousMemory(100)
    message = (memory, content[:1], AnonymousMemory(200), b"x" * length, content[1:])
    sender = threading.Thread(target=here.send, args=(message,))
    sender.start()
    first, begin, second, body, rest = there.recv()
    sender.join()
    assert (100, 200) == (first.size, second.size)
    assert b"x" * length == body
    assert all(numpy.array_equal(a, b) for a, b in zip(content, begin + rest, strict=True))
    here.send("next")
    assert "next" == there.recv()


def test_many_threads(ends: Ends) -> None:
    """Threads that send and threads that receive through one pair mix nothing up."""
    here, there = ends
    memories = [AnonymousMemory(size) for size in range(1, 9)]
    wrong: list[Any] = []

    def send() -> None:
        for _ in range(20):
            for memory in memories:
                here.send((memory.size, memory))
                here.send(memory.size)

    def receive() -> None:
        for _ in range(320):
            message = there.recv()
            if type(message) is tuple and message[0] != message[1].size:
                wrong.append(message)

    threads = [threading.Thread(target=each) for each in (send, receive) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not there.poll()


def test_many_processes_send(narrow_ends: Ends) -> None:
    """Processes that share a sending end without a lock harm nobody's short messages."""
    here, there = narrow_ends

    def child() -> None:
        for size in range(1, 201):
            there.send((size, AnonymousMemory(size)))

    with crew() as fork:
        members = [fork(child) for _ in range(3)]
        sizes = [0] * 201
        for _ in range(600):
            size, memory = here.recv()
            assert size == memory.size
            sizes[size] += 1
        assert [3] * 200 == sizes[1:]
        assert [0, 0, 0] == [member.join() for member in members]


def test_killed_senders(narrow_ends: Ends) -> None:
    """Senders killed at any instant cost none of another's messages, and leave nothing."""
    here, there = narrow_ends

    def victim() -> None:
        memory = AnonymousMemory(1)
        while True:
            there.send((1, memory))

    def other() -> None:
        for size in range(2, 402):
            there.send((size, AnonymousMemory(size)))

    rounds = int(os.environ.get("PROCESSION_KILLS", "4"))
    before = 0
    with crew() as fork:
        for round in range(rounds):
            members = [fork(victim), fork(other)]
            expected = 2
            while expected < 402:
                size, memory = here.recv()
                assert size == memory.size
                if size == 1:
                    if expected > 20 * (round % 15 + 1):
                        members[0].kill()
                else:
                    assert expected == size
                    expected += 1
            assert 0 == members[1].join()
            members[0].kill()
            while here.poll():
                here.recv()
            del memory
            # What a victim has sent without its message is found sooner or later, and not kept.
            assert descriptors() <= (before or descriptors()) + _MOST_STRAY
            before = before or descriptors()


def test_sender_killed_before_its_message(ends: Ends) -> None:
    """Descriptors whose message never came are passed over, few are kept, and no longer than
    the end is open.
    """
    here, there = ends
    reader, sent = end_of_a_pipe()
    outlet = Outlet(companion(here))
    here.send("warm")
    there.recv()
    before = descriptors()
    for _ in range(3 * _MOST_STRAY):
        assert post(outlet, sent.fileno())
    here.send(AnonymousMemory(5))
    assert 5 == there.recv().size
    assert _MOST_STRAY == descriptors() - before
    sent.close()
    assert not has_end(reader)
    there.close()
    assert has_end(reader)
    os.close(reader)


def test_taken_by_another_process(ends: Ends) -> None:
    """Descriptors that another process has taken are a clear error, and the next ones come."""
    here, there = ends
    here.send(AnonymousMemory(5))
    here.send(AnonymousMemory(6))
    os.read(companion(there), 100)
    with pytest.raises(errors.DescriptorLostError, match="SharedMap: another process has taken"):
        there.recv()
    assert 6 == there.recv().size


def test_no_room_for_descriptors(ends: Ends) -> None:
    """Where no more can be on their way, they are fetched from the sender, as from a queue."""
    here, there = ends
    outlet = Outlet(companion(here))
    while post(outlet):
        pass
    here.send(AnonymousMemory(5))
    assert 5 == there.recv().size
    until(lambda: not [each for each in threading.enumerate() if "broker" in each.name])


def test_receiver_without_descriptors_to_spare(ends: Ends) -> None:
    """Running out of descriptors is said, what did arrive is closed, and the next one comes."""
    here, there = ends
    here.send(AnonymousMemory(5))
    assert 5 == there.recv().size  # all modules are there
    here.send("warm")
    here.send(Value("i"))
    here.send(AnonymousMemory(6))

    def child() -> None:
        assert "warm" == there.recv()  # what a first use needs is there
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = []
        used = max(map(int, os.listdir("/proc/self/fd")))
        while (fd := os.dup(0)) < used:
            free.append(fd)
        before = sorted(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 1, limits[1]))
        with pytest.raises(errors.DescriptorLostError, match="too many open files"):
            there.recv()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert before == sorted(os.listdir("/proc/self/fd"))
        assert 6 == there.recv().size

    with crew() as fork:
        assert 0 == fork(child).join()


def test_too_many_descriptors(ends: Ends) -> None:
    """Of a message with more than one can take along, the rest is fetched, each by itself."""
    here, there = ends
    here.send("warm")
    there.recv()
    memories = [AnonymousMemory(size) for size in range(1, 100)]
    before = descriptors()
    here.send(memories)
    assert list(range(1, 100)) == [each.size for each in there.recv()]
    until(lambda: before == descriptors())


class Counted:
    """Says how often it was pickled."""

    def __init__(self, memory: AnonymousMemory) -> None:
        self.memory = memory
        self.times = 0

    def __reduce__(self) -> tuple[Any, ...]:
        self.times += 1
        return dict, ([(self.times, self.memory)],)


@pytest.mark.parametrize("encoder", [None, Encoder("cloudpickle")])
@pytest.mark.parametrize("way", ["room", "no room", "too many"])
def test_pickled_once(carrier: Any, way: str, encoder: Encoder | None) -> None:
    """Pickling an object may have side effects, so it is done once, whichever way it goes."""
    here, there = pipe(carrier, encoder=encoder)
    with here, there:
        if way == "no room":
            outlet = Outlet(companion(here))
            while post(outlet):
                pass
        count = 100 if way == "too many" else 2
        counted = [Counted(AnonymousMemory(size)) for size in range(1, 1 + count)]
        here.send((counted, numpy.full(70_000, 3, "u1"), b"x" * 300))
        assert [1] * count == [each.times for each in counted]
        found, array, rest = there.recv()
        assert list(range(1, 1 + count)) == [each[1].size for each in found]
        assert (70_000 * 3, 300) == (int(array.sum()), len(rest))
        array[0] = 1  # what is received can be written to
    until(lambda: not [each for each in threading.enumerate() if "broker" in each.name])


def test_memory_dropped_while_it_is_sent(ends: Ends) -> None:
    """What nobody else has any more is sent whole, though its pickle is all that refers to it."""
    here, there = ends
    here.send(AnonymousMemory(4))
    there.recv()
    before = descriptors()

    class Making:
        def __reduce__(self) -> tuple[Any, ...]:
            return list, ([AnonymousMemory(5), AnonymousMemory(6)],)

    here.send(Making())
    assert before == descriptors()
    assert [5, 6] == [each.size for each in there.recv()]


def test_error_while_it_is_packed(ends: Ends) -> None:
    """What is closed cannot be sent; what was packed before is not sent either, nor kept."""
    here, there = ends
    here.send(AnonymousMemory(1))
    there.recv()
    reader, sent = end_of_a_pipe()
    other_reader, closed = end_of_a_pipe()
    closed.close()
    os.close(other_reader)
    before = descriptors()
    with pytest.raises(errors.ConnectionClosedError) as caught:
        here.send((sent, closed))
    del caught
    assert before == descriptors()
    assert not there.poll()
    here.send("next")
    assert "next" == there.recv()
    sent.close()
    os.close(reader)


@pytest.mark.parametrize("into", [False, True])
def test_received_as_bytes(ends: Ends, into: bool) -> None:
    """What is received as bytes is a pickle with everything in it, once, also further on."""
    here, there = ends
    memory = AnonymousMemory(100)
    here.send((memory, numpy.full(70_000, 3, "u1")))
    if into:
        buffer = bytearray(200_000)
        received = bytes(buffer[: there.recv_bytes_into(buffer)])
    else:
        received = there.recv_bytes()

    def child() -> None:
        there.close()
        arrived, array = pickle.loads(here.recv_bytes())
        assert 3 == array[-1]
        use_memory(arrived)

    with crew() as fork:
        process = fork(child)
        there.send_bytes(received)
        assert 0 == process.join()
    assert is_memory_used(memory)
    until(lambda: not [each for each in threading.enumerate() if "broker" in each.name])


def test_bytes_that_nobody_unpickles(ends: Ends) -> None:
    """A limit that is exceeded closes what came with the message."""
    here, there = ends
    reader, sent = end_of_a_pipe()
    here.send((sent, b"x" * 1000))
    sent.close()
    with pytest.raises(errors.MessageTooLongError):
        there.recv_bytes(100)
    gc.collect()
    assert has_end(reader)
    os.close(reader)


class Nested:
    """Pickles something within its own state."""

    def __init__(self, obj: Any) -> None:
        self.obj = obj

    def __reduce__(self) -> tuple[Any, ...]:
        return Nested.again, (pickle.dumps(self.obj),)

    @classmethod
    def again(cls, state: bytes) -> Nested:
        """Keep the pickle, for later."""
        return cls(state)


def test_pickle_in_a_pickle(ends: Ends) -> None:
    """A pickle that an object makes of a part of itself does not depend on the message."""
    here, there = ends
    here.send((AnonymousMemory(1), Nested(AnonymousMemory(2))))
    first, nested = there.recv()
    assert (1, 2) == (first.size, pickle.loads(nested.obj).size)
    until(lambda: not [each for each in threading.enumerate() if "broker" in each.name])


@pytest.mark.parametrize("protocol", range(6))
def test_pickle_without_a_connection(protocol: int) -> None:
    """Any pickler of any protocol still makes what another process can fetch."""
    found = pickle.loads(pickle.dumps([AnonymousMemory(3)], protocol))
    assert 3 == found[0].size
    until(lambda: not [each for each in threading.enumerate() if "broker" in each.name])


@pytest.mark.usefixtures("no_broker")
def test_other_serializer(carrier: Any) -> None:
    """What another serializer pickles takes its descriptors along, too."""
    here, there = pipe(carrier, encoder=Encoder("cloudpickle"))
    with here, there:
        memory = AnonymousMemory(8)
        here.send((lambda: 5, memory))
        function, found = there.recv()
        assert (5, 8) == (function(), found.size)


class Bare(Exportable):
    """Has no descriptors after all."""

    def export(self, handoff: Handoff, /) -> Recipe:
        """Give nothing."""
        return ()

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Bare:
        """Take nothing."""
        return cls()


class OwnWay(Bare):
    """Knows another way to a running process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return str, ("own way",)


@pytest.mark.parametrize("encoder", [None, Encoder("cloudpickle")])
def test_without_descriptors(carrier: Any, encoder: Encoder | None) -> None:
    """What has none, and what has a way of its own, arrive alone and beside what has some."""
    here, there = pipe(carrier, encoder=encoder)
    with here, there:
        for _ in range(2):
            here.send(OwnWay())
            assert "own way" == there.recv()
            here.send([OwnWay(), Bare(), AnonymousMemory(7)])
            own_way, bare, memory = there.recv()
            assert ("own way", Bare, 7) == (own_way, type(bare), memory.size)
            here.send(Bare())
            assert type(there.recv()) is Bare
    until(lambda: not [each for each in threading.enumerate() if "broker" in each.name])


def test_unpicklable_is_explained(ends: Ends) -> None:
    """What cannot be pickled beside memory is said, nothing is sent, and nothing kept."""
    here, there = ends
    here.send(AnonymousMemory(1))
    there.recv()
    before = descriptors()
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)) as caught:
        here.send([AnonymousMemory(8), threading.Lock()])
    assert "obj[1]" in "".join(getattr(caught.value, "__notes__", ()))
    del caught
    assert before == descriptors()
    assert not there.poll()


def test_nobody_left(ends: Ends) -> None:
    """Sending to nobody is the same error as without luggage."""
    here, there = ends
    there.close()
    with pytest.raises(BrokenPipeError):
        here.send(AnonymousMemory(1))
    here.close()
    with pytest.raises(errors.ConnectionClosedError):
        here.send(AnonymousMemory(1))


def test_interrupted_while_it_arrives(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler that raises loses this message, and not the connection."""
    here, there = ends
    here.send(AnonymousMemory(1))
    here.send(AnonymousMemory(2))

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Inlet, "collect", interrupt)
        with pytest.raises(KeyboardInterrupt):
            there.recv()
    assert 2 == there.recv().size


def test_one_way(carrier: Any) -> None:
    """A one-way pair carries descriptors in its one direction."""
    reader, writer = pipe(carrier, duplex=False)
    with reader, writer:
        writer.send(AnonymousMemory(9))
        assert 9 == reader.recv().size
