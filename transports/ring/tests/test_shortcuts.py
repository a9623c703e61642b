"""Connections over a ring do in one step what others do in several, and do the same."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("rings are a Linux thing", allow_module_level=True)

import procession
from procession.connection import Connection
from procession.errors import (
    BrokenConnectionError,
    ConnectionClosedError,
    ConnectionDirectionError,
    EndOfConnectionError,
    MessageTooLongError,
)
from procession.testing.forked import DEADLINE
from procession_ring import Ring
from procession_ring._channel import RingChannel
from procession_ring._implementation import NATIVE

pytestmark = pytest.mark.once

#: Bytes that travel beside a pickle, and not in it.
LARGE = 128 << 10


class Ends:
    """A pair of connections; and how often each has gone the long way, by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, duplex: bool = True) -> None:
        self.one, self.other = map(Connection.over, Ring().pair(duplex=duplex))
        self.long_ways: list[str] = []
        for name in ("_send_any", "_send_any_bytes", "_recv_any", "_recv_any_bytes"):
            usual = getattr(Connection, name)

            def counting(*args: Any, _usual: Any = usual, _name: str = name, **options: Any) -> Any:
                self.long_ways.append(_name)
                return _usual(*args, **options)

            monkeypatch.setattr(Connection, name, counting)


@contextmanager
def doing(*works: Callable[[], object]) -> Iterator[None]:
    """Do *works* in a thread each meanwhile; what they raise is raised at the end."""
    errors: list[BaseException] = []

    def work(what: Callable[[], object]) -> None:
        try:
            what()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(what,), daemon=True) for what in works]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    for error in errors:
        raise error


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    """Two ends that are used in this process."""
    ends = Ends(monkeypatch)
    yield ends
    ends.one.close()
    ends.other.close()


def test_common_case_is_short(ends: Ends, implementation: str) -> None:
    """What most programs do takes the short way, if it is compiled; else nobody has one."""
    if implementation != NATIVE:
        assert type(ends.one) is Connection
    ends.one.send({"some": "thing"})
    assert ends.other.recv() == {"some": "thing"}
    ends.one.send_bytes(b"bytes")
    assert ends.other.recv_bytes() == b"bytes"
    ends.one.send_bytes(b"")
    assert ends.other.recv_bytes() == b""
    ends.one.send_bytes(bytes(LARGE))
    assert ends.other.recv_bytes() == bytes(LARGE)
    assert not ends.long_ways


def test_it_is_a_connection(ends: Ends) -> None:
    """Nobody need know of the class: it looks, and travels, like any other."""
    assert isinstance(ends.one, Connection)
    assert type(ends.one).__name__ == "Connection"
    assert type(ends.one).__module__ == "procession.connection"
    assert repr(ends.one).startswith("<Connection duplex")
    assert ends.one.__reduce__()[0] == Connection.over


@pytest.mark.parametrize("name", ["send", "send_bytes", "recv", "recv_bytes"])
def test_all_arguments_are_understood(ends: Ends, name: str) -> None:
    """Uncommon arguments, also by name, do what they do elsewhere, and wrong ones are refused."""
    one, other = ends.one, ends.other
    one.send(obj=3)
    one.send_bytes(b"abcdef", 2, 3)
    one.send_bytes(bytearray(b"abcdef"), size=3)
    one.send_bytes(buf=memoryview(b"abcdef"), offset=4)
    assert other.recv() == 3
    assert other.recv_bytes(10) == b"cde"
    assert other.recv_bytes(maxlength=3) == b"abc"
    assert other.recv_bytes() == b"ef"
    with pytest.raises(TypeError):
        getattr(one, name)(1, 2, 3, 4)
    with pytest.raises(TypeError):
        getattr(one, name)(nonsense=1)
    with pytest.raises(ValueError, match="negative"):
        one.recv_bytes(-1)
    with pytest.raises(ValueError, match="length"):
        one.send_bytes(b"abc", 4)


def test_arrays(ends: Ends) -> None:
    """Large buffers travel beside the pickle, plain arrays without a pickler, as ever."""
    numpy = pytest.importorskip("numpy")
    one, other = ends.one, ends.other
    for size in (3, LARGE):
        array = numpy.arange(size, dtype=numpy.uint8)
        with doing(partial(one.send, array)):
            assert (other.recv() == array).all()
        with doing(partial(one.send, {"array": array, "other": array[::-1]})):
            received = other.recv()
        assert (received["array"] == array).all()
        assert (received["other"] == array[::-1]).all()
        received["array"][0] = 7  # its receiver's own
        with doing(partial(one.send, [array, array])):
            body = other.recv_bytes()
        assert (pickle.loads(body)[1] == array).all()


def test_pickling_that_fails(ends: Ends) -> None:
    """The error says where the culprit is, nothing was sent, and the next object is."""
    with pytest.raises(Exception, match="pickle") as caught:
        ends.one.send({"good": 1, "bad": lambda: None})
    assert any("bad" in note for note in caught.value.__notes__)
    ends.one.send("good")
    assert ends.other.recv() == "good"


class Raising:
    """Raises what it was given, when it is pickled."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [ZeroDivisionError(), TypeError("mine"), KeyboardInterrupt()])
def test_errors_of_the_object(ends: Ends, error: BaseException) -> None:
    """What the object's own code raises is raised, itself."""
    with pytest.raises(type(error)) as caught:
        ends.one.send(Raising(error))
    assert caught.value is error
    assert not ends.other.poll()


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()])
def test_descriptors_of_what_is_not_sent(error: BaseException) -> None:
    """What was to travel beside a message that is none is given back."""
    one, other = procession.get_context(transport="ring").Pipe()
    with one, other:
        one.send(1)
        assert other.recv() == 1
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(type(error)):
            one.send([other, Raising(error)])
        assert len(os.listdir("/proc/self/fd")) == before
        one.send(2)
        assert other.recv() == 2


class Sending:
    """Sends something else through the same end while it is pickled."""

    def __init__(self, connection: Connection, obj: object) -> None:
        self.connection = connection
        self.obj = obj

    def __reduce__(self) -> Any:
        self.connection.send(self.obj)
        return int, (5,)


def test_sending_within_sending(ends: Ends) -> None:
    """Pickling may use the same connection, whose state is not in the middle of anything."""
    numpy = pytest.importorskip("numpy")
    array = numpy.ones(LARGE, dtype=numpy.uint8)
    with doing(partial(ends.one.send, [array, Sending(ends.one, [array, "inner"])])):
        assert ends.other.recv()[1] == "inner"
        outer = ends.other.recv()
    assert outer[1] == 5
    assert (outer[0] == array).all()


class Closing:
    """Closes the connection while it is pickled."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __reduce__(self) -> Any:
        self.connection.close()
        return int, (5,)


def test_closed_while_pickling(ends: Ends) -> None:
    """The end that is gone when the pickle is ready is not used."""
    with pytest.raises(ConnectionClosedError):
        ends.one.send(Closing(ends.one))


def test_closed(ends: Ends) -> None:
    """A closed end says so, whatever is asked of it; the other one that nobody is there."""
    ends.one.send(1)
    ends.one.close()
    for use in (ends.one.recv, ends.one.recv_bytes, lambda: ends.one.send(1)):
        with pytest.raises(ConnectionClosedError):
            use()
    with pytest.raises(ConnectionClosedError):
        ends.one.send_bytes(b"")
    assert ends.other.recv() == 1
    with pytest.raises(EndOfConnectionError):
        ends.other.recv()
    with pytest.raises(EndOfConnectionError):
        ends.other.recv_bytes()
    with pytest.raises(BrokenConnectionError):
        ends.other.send(1)
    with pytest.raises(BrokenConnectionError):
        ends.other.send_bytes(b"")


def test_wrong_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that only sends does not receive, and the other way round."""
    ends = Ends(monkeypatch, duplex=False)
    with pytest.raises(ConnectionDirectionError):
        ends.one.send(1)
    with pytest.raises(ConnectionDirectionError):
        ends.one.send_bytes(b"")
    with pytest.raises(ConnectionDirectionError):
        ends.other.recv()
    with pytest.raises(ConnectionDirectionError):
        ends.other.recv_bytes()
    ends.other.close()
    ends.one.close()


@pytest.mark.parametrize("by_pickle", [False, True])
def test_limits_hold(ends: Ends, by_pickle: bool) -> None:
    """What is longer than `recv_limit` is refused, also by an end that has travelled."""
    other = ends.other
    ends.one.send(1)
    assert other.recv() == 1
    other.recv_limit = 100
    if by_pickle:
        # As `pickle` does it with what a connection is sent as.
        made, (channel,), state = other.__reduce__()
        other = made(channel)
        other.__setstate__(state)
    ends.one.send(bytes(1000))
    with pytest.raises(MessageTooLongError, match="recv_limit"):
        other.recv()


def test_no_limit_any_more(ends: Ends) -> None:
    """The way is short again when the limit was taken back."""
    ends.other.recv_limit = 100
    ends.other.recv_limit = None
    ends.one.send(bytes(1000))
    assert ends.other.recv() == bytes(1000)
    assert not ends.long_ways


def test_another_serializer() -> None:
    """An encoder is asked for every object, and what needs none is short all the same."""
    pytest.importorskip("procession_cloudpickle")
    one, other = procession.get_context(transport="ring", serializer="cloudpickle").Pipe()
    with one, other:
        one.send_bytes(b"as it is")
        assert other.recv_bytes() == b"as it is"
        one.send(lambda: "by the serializer")
        assert other.recv()() == "by the serializer"


class Loud(Connection):
    """Somebody's own connection."""

    def send(self, obj: Any) -> None:
        """Send it in capitals."""
        super().send(obj.upper())


def test_derived_classes_keep_their_methods() -> None:
    """What a derived class overrides is not hidden by anything quicker."""
    first, second = Ring().pair(duplex=True)
    with Loud.over(first) as one, Connection.over(second) as other:
        assert type(one) is Loud
        one.send("hello")
        assert other.recv() == "HELLO"


def test_dropping_closes_at_once(ends: Ends) -> None:
    """An end that nobody has any more is closed without the collector of garbage."""
    receive = ends.other.recv
    gc.disable()
    try:
        del ends.one
        with pytest.raises(EndOfConnectionError):
            receive()
    finally:
        gc.enable()
        ends.one = ends.other


def test_closing_ends_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits in the short way, or is about to, learns that the end was closed."""
    for _ in range(20):
        ends = Ends(monkeypatch)
        with pytest.raises(ConnectionClosedError), doing(ends.other.recv):
            ends.other.close()
        ends.one.close()


def test_signal_handler_raises(ends: Ends) -> None:
    """A handler that raises ends the wait for a message, and the next one is received."""

    class Alarm(Exception):
        """Raised by the handler."""

    waiting = [True]

    def handle(*_: object) -> None:
        if waiting:  # once, and not where that is dealt with
            waiting.clear()
            raise Alarm

    def wait() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        ends.other.recv()

    before = signal.signal(signal.SIGALRM, handle)
    try:
        with pytest.raises(Alarm):
            wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    ends.one.send("after")
    assert ends.other.recv() == "after"


def test_many_threads(ends: Ends) -> None:
    """Threads that send small and large objects through one end get in nobody's way."""
    count, threads = 200, 4
    large = bytes(LARGE)

    def send(number: int) -> None:
        for index in range(count):
            ends.one.send((number, index, pickle.PickleBuffer(large) if index % 10 == 0 else None))

    with doing(*(partial(send, number) for number in range(threads))):
        received = [ends.other.recv() for _ in range(count * threads)]
    for number in range(threads):
        assert [index for sender, index, _ in received if sender == number] == list(range(count))
    assert all(
        (buffer is None) if index % 10 else bytes(buffer) == large for _, index, buffer in received
    )


class Forking:
    """Forks while it is pickled; the child sends an object of its own, and ends."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __reduce__(self) -> Any:
        pid = os.fork()
        if pid == 0:
            try:
                self.connection.send(["from the child"])
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        return str, ("from the parent",)


def test_forked_while_pickling(ends: Ends) -> None:
    """Neither process is in the other's way."""
    ends.one.send(Forking(ends.one))
    assert ends.other.recv() == ["from the child"]
    assert ends.other.recv() == "from the parent"


def test_nothing_is_kept(ends: Ends) -> None:
    """What was sent and received leaves no memory behind, and nor do errors."""

    def use() -> None:
        for _ in range(200):
            ends.one.send({"some": ["thing"]})
            ends.one.send_bytes(b"bytes")
            ends.other.recv()
            ends.other.recv_bytes()
            with pytest.raises(ZeroDivisionError):
                ends.one.send([Raising(ZeroDivisionError())])
            ends.one.send([pickle.PickleBuffer(bytes(LARGE))])
            ends.other.recv()

    use()
    gc.collect()
    before = sys.getallocatedblocks()
    use()
    gc.collect()
    assert sys.getallocatedblocks() - before < 100


def test_no_more_shortcuts_than_asked_for(implementation: str) -> None:
    """The class is refused what is no end, and nothing works before it was prepared."""
    if implementation != NATIVE:
        pytest.skip("there are none")
    from procession_ring._native import Shortcuts

    with pytest.raises(KeyError):
        Shortcuts.prepare({})
    (first, second) = Ring().pair(duplex=True)
    assert isinstance(first, RingChannel)
    with Connection.over(first) as one, Connection.over(second):
        short: Any = one
        with pytest.raises(TypeError, match="End"):
            short._shorten(1, None, True, False)
        with pytest.raises(TypeError, match="End"):
            short._shorten(None, 1, True, False)
        with pytest.raises(TypeError):
            short._shorten()


def test_the_repr_of_a_connection_makes_no_descriptor() -> None:
    """It stands in errors, also where none is left; and `fileno` makes every message dearer."""
    first, second = Ring().pair(duplex=True)
    with Connection.over(first) as one, Connection.over(second):
        before = os.listdir("/proc/self/fd")
        assert repr(one).startswith("<Connection duplex fd=")
        assert before == os.listdir("/proc/self/fd")
