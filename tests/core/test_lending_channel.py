"""Connections that lend: a channel beside which large buffers lie on shelves."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import select
import signal
import struct
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

if sys.platform != "linux":
    pytest.skip("only Linux has leases", allow_module_level=True)

import procession
from procession._channels import twin
from procession._channels.lending_channel import LendingChannel
from procession._channels.loan_desk import LoanDesk
from procession._contracts.channel import Channel, Message
from procession._contracts.transport import Transport
from procession._mailboxes import shelves as _shelves
from procession._mailboxes.shelves import MOST
from procession.connection import Connection, pipe
from procession.errors import (
    BrokenByDeathError,
    BusyConnectionError,
    DescriptorLostError,
    LeaseWarning,
    NothingToLendError,
    PeerDiedError,
)
from procession.testing import shortage
from procession.testing.forked import DEADLINE, crew, until
from procession.testing.killing import chosen_kills, chosen_seed
from procession.testing.killing_lenders import LenderTrial
from procession.testing.lending import Block, hold

channel = importlib.import_module("procession.testing.suites.channel")
channel_signals = importlib.import_module("procession.testing.suites.channel_signals")
transports = importlib.import_module("procession.testing.suites.transport")

KIBI, MIB = 1 << 10, 1 << 20
KILLS = chosen_kills(20)
Ends: TypeAlias = tuple[LendingChannel, LendingChannel]


def transport_named(name: str) -> Any:
    """Return the class of a transport, or skip the test where it is not installed."""
    module = pytest.importorskip(f"procession_{name}")
    return getattr(module, {"socketpair": "SocketPair"}.get(name, name.title()))


def lending(name: str) -> Any:
    """Return a transport whose pairs lend, and of whose ends somebody has asked for leases."""
    kind = transport_named(name)

    class Lending(kind):  # type: ignore[misc, valid-type]
        """Every large message lies on a shelf."""

        def pair(self, *, duplex: bool = True, **options: Any) -> tuple[Channel, Channel]:
            """See `Transport.pair`."""
            ends = LendingChannel.pair(*super().pair(duplex=duplex, **options))
            for end in ends:
                if end._in is not None:
                    end._in.ask()
            return ends

    return Lending


@pytest.fixture(params=["pipe", "ring"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """The receiving and the sending end of a pair that lends."""
    reader, writer = lending(request.param)().pair(duplex=False)
    yield reader, writer
    reader.close()
    writer.close()


def way_in(reader: LendingChannel) -> LoanDesk:
    """Return the desk of the direction that *reader* receives from."""
    assert reader._in is not None
    return reader._in


def way_out(writer: LendingChannel) -> LoanDesk:
    """Return the desk of the direction that *writer* sends to."""
    assert writer._out is not None
    return writer._out


def replace_inner(end: Any, inner: Any) -> None:
    """Have *end* send and receive through *inner*."""
    end._inner = inner


def held(reader: LendingChannel) -> list[int]:
    """Return which shelves somebody holds."""
    return [shelf for shelf in range(MOST) if way_in(reader).shelves._is_held(shelf)]


def waiting(reader: LendingChannel) -> list[int]:
    """Return the shelves whose messages wait, or are lost."""
    words = way_in(reader)._words
    return [shelf for shelf in range(MOST) if words[8 + shelf] > words[0]]


def pattern(number: int, size: int = 100 * KIBI) -> bytes:
    """What message *number* has in it."""
    return struct.pack("=I", number) * (size // 4)


def send(writer: LendingChannel, number: int, size: int = 100 * KIBI) -> None:
    """Send message *number*, which is large."""
    writer.send(b"%d" % number, [pattern(number, size)])


def lease(reader: LendingChannel, number: int, size: int = 100 * KIBI) -> memoryview:
    """Receive message *number* with a lease and return its buffer."""
    body, (buffer,) = reader.receive_leased()
    assert (b"%d" % number, pattern(number, size)) == (body, buffer)
    assert isinstance(buffer, memoryview)
    return buffer


def is_lent(buffer: memoryview) -> bool:
    """Return whether *buffer* lies on a shelf."""
    return hasattr(buffer.obj, "hold")


class TestPromises(channel.ChannelPromises, channel_signals.ChannelSignalPromises):  # type: ignore[misc, name-defined]
    """It is a channel like all others, with every large message on a shelf."""

    @pytest.fixture(params=["pipe", "ring"])
    def transport(self, request: pytest.FixtureRequest) -> type[Transport]:
        """The class under test."""
        kind: type[Transport] = lending(request.param)
        return kind

    @pytest.fixture
    def makers(self, transport: type[Transport]) -> dict[str, Callable[[], list[Any]]]:
        """What is made of descriptors."""
        made = transport()
        return {
            "one-way pair": lambda: list(made.pair(duplex=False)),
            "pair": lambda: list(made.pair(duplex=True)),
            "mailbox": list,
        }

    _suite = transports.TransportSuite
    test_descriptors_are_given_as_declared = _suite.test_descriptors_are_given_as_declared
    test_a_copy_of_an_end_is_the_same_end = _suite.test_a_copy_of_an_end_is_the_same_end
    test_the_end_comes_with_the_last_copy = _suite.test_the_end_comes_with_the_last_copy
    test_a_failed_attach_leaks_nothing = _suite.test_a_failed_attach_leaks_nothing


def test_descriptors_run_out_while_it_is_made() -> None:
    """Then nothing is made, and nothing stays open."""
    transport = transport_named("pipe")()
    for free in range(40):
        before = sorted(os.listdir("/proc/self/fd"))
        made = False
        with shortage.free_descriptors(free):
            try:
                for end in pipe(transport, lease_budget=0):
                    end.close()
                made = True
            except OSError:
                pass
        gc.collect()
        assert before == sorted(os.listdir("/proc/self/fd"))
        if made:
            return
    pytest.fail("it is never made")


# -- leases


def test_a_lease_lasts_as_long_as_the_last_view(ends: Ends) -> None:
    """A part of the memory keeps all of it, and then it is used again."""
    reader, writer = ends
    send(writer, 1)
    part = lease(reader, 1)[400:500].cast("I")[3:]
    for number in range(2, 9):
        send(writer, number)
    part[0] = 77
    assert 1 == len(held(reader))
    for number in range(2, 9):
        lease(reader, number)
    assert [77, *[1] * 21] == part.tolist()
    del part
    assert [] == held(reader)
    for number in range(50):
        send(writer, number)
        assert is_lent(lease(reader, number))
    assert [] == waiting(reader)


def test_nothing_is_lent_before_somebody_asks() -> None:
    """Until then large messages go through the channel."""
    reader, writer = LendingChannel.pair(*transport_named("ring")().pair(duplex=False))
    sender = threading.Thread(target=send, args=(writer, 1))
    sender.start()
    assert reader.wait(DEADLINE)
    assert not is_lent(lease(reader, 1))
    sender.join(DEADLINE)
    send(writer, 2)
    assert is_lent(lease(reader, 2))
    reader.close()
    writer.close()


def test_what_the_inner_channel_copies_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport that copies better than Python can does so for what its connections lend."""
    kind = transport_named("pipe")
    copied: list[int] = []

    def copy(target: Any, source: Any) -> None:
        copied.append(len(source))
        target[:] = source

    reader, writer = kind().pair(duplex=False)
    monkeypatch.setattr(type(reader), "copy", staticmethod(copy))
    lender, borrower = LendingChannel.pair(reader, writer)
    way_in(lender).ask()
    send(borrower, 1)
    lease(lender, 1)
    assert copied == [100 * KIBI]
    send(borrower, 2)
    assert lender.receive()[1] == [pattern(2)]
    assert copied == [100 * KIBI] * 3
    lender.close()
    borrower.close()


def test_who_cannot_have_an_end_is_told_that_it_stays_on_its_host() -> None:
    """Another host's process cannot reach the sender; and with any other pipe it could."""
    transport = transport_named("pipe")()
    here, there = pipe(transport, lease_budget=0)
    with here, there:
        data = pickle.dumps(there)
        with pickle.loads(data) as end:
            here.send("on this host")
            assert end.recv() == "on this host"
        with pytest.raises(DescriptorLostError, match="stay on their host"):
            pickle.loads(data)
    one, other = pipe(transport)
    with one, other:
        data = pickle.dumps(other)
        pickle.loads(data).close()
        with pytest.raises(DescriptorLostError) as caught:
            pickle.loads(data)
    assert "leases" not in str(caught.value)


def test_a_lease_outlives_the_connection(ends: Ends) -> None:
    """Arrays do not depend on either end's being open."""
    reader, writer = ends
    send(writer, 1)
    buffer = lease(reader, 1)
    reader.close()
    writer.close()
    gc.collect()
    assert pattern(1) == buffer
    buffer[:4] = b"abcd"


def test_a_killed_holder_has_no_leases(ends: Ends) -> None:
    """The kernel ends the leases of whoever is killed; a forked child keeps its parent's."""
    reader, writer = ends
    for number in range(3):
        send(writer, number)
    ready, telling = os.pipe()
    mine = lease(reader, 0)

    def hold() -> None:
        leases = [lease(reader, number) for number in range(1, 3)]
        os.write(telling, b"x")
        select.select([], [], [], DEADLINE)
        del leases

    with crew() as fork:
        holder = fork(hold)
        os.read(ready, 1)
        del mine
        assert 3 == len(held(reader))
        holder.kill()
        assert [] == held(reader)
    os.close(ready)
    os.close(telling)


def test_what_was_filled_in_place_is_lent_to_both(ends: Ends) -> None:
    """Until both have let go of it, no other message comes into it."""
    reader, writer = ends
    memory = writer.reserve(100 * KIBI)
    assert memory is not None
    send(writer, 1)
    memory[:] = pattern(2)
    writer.send_reserved(b"2", memory)
    send(writer, 3)
    for number in range(1, 4):
        lease(reader, number)
    assert 1 == len(held(reader))
    assert pattern(2) == memory
    del memory
    assert [] == held(reader)


# -- what was lost on the way


@pytest.mark.parametrize("sent", [False, True])
def test_what_a_killed_sender_has_laid_out_is_free_again(ends: Ends, sent: bool) -> None:
    """Killed before it could send it, or right after: the next message that comes tells."""
    reader, writer = ends

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def send_and_die() -> None:
        class Deadly:
            def send(self, *message: Any) -> None:
                if sent:
                    inner.send(*message)
                die()

        inner = writer._inner
        replace_inner(writer, Deadly())
        send(writer, 1)

    with crew() as fork:
        assert -signal.SIGKILL == fork(send_and_die).join()
    assert 1 == len(waiting(reader))
    send(writer, 2)
    assert 2 == len(waiting(reader))
    if sent:
        lease(reader, 1)
    lease(reader, 2)
    assert [] == waiting(reader)


def test_what_a_killed_receiver_has_taken_is_free_again(ends: Ends) -> None:
    """Killed before it could look at it: that message is lost, and its memory is not."""
    reader, writer = ends
    for number in range(3):
        send(writer, number)

    def take_and_die() -> None:
        inner = reader._inner

        class Deadly:
            wait = inner.wait

            def receive(self, *arguments: Any) -> Any:
                inner.receive(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)

        replace_inner(reader, Deadly())
        reader.receive_leased()

    with crew() as fork:
        assert -signal.SIGKILL == fork(take_and_die).join()
    assert 3 == len(waiting(reader))
    lease(reader, 1)
    assert 1 == len(waiting(reader))
    lease(reader, 2)


def test_all_of_the_memory_can_be_lost_and_comes_back(ends: Ends) -> None:
    """Also when no shelf is left for a message that would tell: copies tell as well."""
    reader, writer = ends
    way_in(reader).shelves._budget[0] = MIB
    desk = way_out(writer)
    for _ in range(2):
        shelf = desk.find(500 * KIBI)
        assert shelf is not None
        desk.shelves.write(shelf, b"", [bytes(500 * KIBI)])
        desk.next_head(shelf)  # and killed here
    with crew() as fork:
        sender = fork(lambda: send(writer, 1, 500 * KIBI))
        assert not is_lent(lease(reader, 1, 500 * KIBI))
        assert 0 == sender.join()
    assert [] == waiting(reader)
    send(writer, 2, 500 * KIBI)
    assert is_lent(lease(reader, 2, 500 * KIBI))


# -- when something has run out, or is wrong


def test_all_that_there_is_to_lend_is_lent(ends: Ends, recwarn: pytest.WarningsRecorder) -> None:
    """Who sends is told who holds the leases, once, and messages are copied, in order."""
    reader, writer = ends
    way_in(reader).shelves._budget[0] = MIB
    kept = []
    for number in range(2):
        send(writer, number, 500 * KIBI)
        kept.append(lease(reader, number, 500 * KIBI))

    def send_many() -> None:
        warnings.simplefilter("always")
        for number in range(2, 5):
            send(writer, number, 500 * KIBI)

    sender = threading.Thread(target=send_many)
    sender.start()
    for number in range(2, 5):
        assert not is_lent(lease(reader, number, 500 * KIBI))
    sender.join(DEADLINE)
    (warning,) = [each for each in recwarn if each.category is LeaseWarning]
    assert f"(pid {os.getpid()})" in str(warning.message)
    assert "a connection has no memory to lend for an object of 512 KiB" in str(warning.message)
    assert "keep 1024 of 1024 KiB" in str(warning.message)
    assert __file__ == warning.filename
    kept.clear()
    send(writer, 5, 500 * KIBI)
    assert is_lent(lease(reader, 5, 500 * KIBI))


def test_a_warning_that_is_an_error(ends: Ends) -> None:
    """Nothing was sent then, and the connection is as it was."""
    reader, writer = ends
    way_in(reader).shelves._budget[0] = MIB
    send(writer, 0, 900 * KIBI)
    buffer = lease(reader, 0, 900 * KIBI)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeaseWarning)
        with pytest.raises(LeaseWarning, match=r"del what recv\(lease=True\) has returned"):
            send(writer, 1, 900 * KIBI)
    assert not reader.wait(0)
    del buffer
    send(writer, 2, 900 * KIBI)
    lease(reader, 2, 900 * KIBI)


@pytest.mark.parametrize("free", [0, 1, 2])
def test_no_descriptor_for_a_lease(ends: Ends, free: int) -> None:
    """A copy does as well."""
    reader, writer = ends
    send(writer, 0)
    lease(reader, 0)

    def use() -> None:
        for lock in (way_in(reader).receiving, way_out(writer).sending):
            lock.run(lambda: None)  # which need one for themselves
        with shortage.free_descriptors(free):
            for number in range(1, 4):
                send(writer, number)
                body, (buffer,) = reader.receive_leased()
                assert (b"%d" % number, pattern(number)) == (bytes(body), bytes(buffer))
                del buffer

    with crew() as fork:
        assert 0 == fork(use).join()
    assert [] == held(reader)


def test_memory_that_makes_no_sense(ends: Ends) -> None:
    """Whatever somebody has written there, and sends: an error, and never another's memory."""
    reader, writer = ends
    desk = way_out(writer)
    for shelf, token, message in (
        (0, _shelves.token_of(99, b"", [10]), "no shelf 99"),
        (0, _shelves.token_of(3, b"", [10]), "not"),
        (0, _shelves.token_of(0, b"", [1 << 40]), "longer than the memory"),
        (0, b"\0\0\0", "has 3 bytes"),
        (0, struct.pack("=II", 0, 1 << 30), "no lengths"),
    ):
        send(writer, 1)
        lease(reader, 1)
        writer._inner.send(desk.next_head(shelf) + token)
        with pytest.raises(OSError, match=f"bad message.*{message}"):
            reader.receive_leased()
        writer._inner.send(desk.next_head(shelf)[:20])
        with pytest.raises(OSError, match="bad message"):
            reader.receive()
    send(writer, 2)
    lease(reader, 2)


def test_a_message_of_the_same_memory_twice(ends: Ends) -> None:
    """Two forks that both send what was reserved once: the second message is an error."""
    reader, writer = ends
    memory = writer.reserve(100 * KIBI)
    assert memory is not None
    memory[:] = pattern(1)
    writer.send_reserved(b"1", memory)
    with crew() as fork:
        assert 0 == fork(lambda: writer.send_reserved(b"1", memory)).join()
    with pytest.raises(OSError, match="bad message"):
        reader.receive_leased()
    lease(reader, 1)


def test_a_handler_in_the_middle_is_refused(ends: Ends) -> None:
    """One that receives while this thread takes a message, and one that sends a large one."""
    reader, writer = ends
    with pytest.raises(BusyConnectionError, match="receiving"):
        way_in(reader).receiving.run(reader.receive)
    with pytest.raises(BusyConnectionError, match="sending"):
        way_out(writer).sending.run(send, writer, 1)
    send(writer, 2)
    lease(reader, 2)


def test_threads_of_one_process(ends: Ends) -> None:
    """Each message comes once, whole, whoever sends and whoever receives it."""
    reader, writer = ends
    got: Counter[int] = Counter()

    def produce(first: int) -> None:
        for number in range(first, first + 100):
            send(writer, number, 100 * KIBI if number % 3 else 0)

    def consume() -> None:
        while True:
            body, buffers = (reader.receive if got.total() % 3 else reader.receive_leased)()
            if not body:
                return
            number = int(bytes(body))
            assert pattern(number, 100 * KIBI if number % 3 else 0) == b"".join(buffers)
            got[number] += 1

    consumers = [threading.Thread(target=consume) for _ in range(3)]
    producers = [threading.Thread(target=produce, args=(first,)) for first in (0, 100, 200)]
    for thread in consumers + producers:
        thread.start()
    for thread in producers:
        thread.join(DEADLINE)
    for _ in consumers:
        writer.send(b"")
    for thread in consumers:
        thread.join(DEADLINE)
    assert Counter(range(300)) == got


# -- connections


@pytest.mark.parametrize("name", ["pipe", "socketpair", "ring", "tcp"])
def test_all_ways_of_receiving(name: str) -> None:
    """What was sent to lie on a shelf can be received in any way, and the end that is a copy."""
    first, second = pipe(transport_named(name)(), lease_budget=0)
    other = Connection.over(transports.crossed(second.channel))
    with first, second, other:
        assert first.channel.lends
        assert not second.poll()
        first.send("small")
        assert "small" == second.recv(lease=True)
        block = Block(1, 200_000)
        for _ in range(5):
            first.send(block)
        assert second.poll(DEADLINE)
        second.recv(lease=True).check()
        second.recv().check()
        with other.lease() as lease:
            lease.object.check()
            assert lease.in_place
        pickled = other.recv_bytes()
        into = bytearray(len(pickled))
        assert len(pickled) == second.recv_bytes_into(into)
        assert pickled == into
        assert not second.poll()
        second.recv_limit = 1000
        first.send(block)
        with pytest.raises(OSError, match="recv_limit is 1000"):
            second.recv(lease=True)
        first.send("next")
        assert "next" == second.recv()


def test_connections_that_lend_nothing() -> None:
    """They say so, and how to have one that does, before anything is received or sent."""
    first, second = pipe(transport_named("pipe")())
    with first, second:
        first.send("still there")
        for use in (
            lambda: second.recv(lease=True),
            second.lease,
            lambda: first.send_empty(10),
        ):
            with pytest.raises(NothingToLendError, match=r"made by Pipe\(leases=True\)"):
                use()
        assert "still there" == second.recv()
    with pytest.raises(OSError, match="closed"):
        second.recv(lease=True)
    receiver, sender = pipe(transport_named("pipe")(), duplex=False, lease_budget=0)
    with receiver, sender:
        with pytest.raises(OSError, match="write-only"):
            sender.recv(lease=True)
        with pytest.raises(OSError, match="read-only"):
            receiver.send_empty(10)


def test_transports_within_one_process_do_not_lend() -> None:
    """Their messages stay in its memory anyway."""
    from procession.testing.faults._transport import Memory

    with pytest.raises(NothingToLendError, match="threads"):
        pipe(Memory(), lease_budget=0)


def test_who_waits_is_told_who_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a lease, and for room, and where this process has the other end open itself."""
    numpy = pytest.importorskip("numpy")
    monkeypatch.setattr(twin, "_LONGEST_SLEEP", 0.05)
    if "fork" not in procession.get_all_start_methods():
        pytest.skip("needs fork")
    transport_named("pipe")
    ctx = procession.get_context("fork", transport="pipe")
    here, there = ctx.Pipe(leases=True)
    reports, reporter = ctx.Pipe()
    child = ctx.Process(target=hold, args=(there, reporter))
    child.start()
    with here, there, reports:
        here.send(Block(1, 100_000))
        assert 1 == reports.recv()
        child.kill()
        with pytest.raises(PeerDiedError, match=f"pid {child.pid}"):
            here.recv(lease=True)

        def fill_and_send() -> None:
            while True:
                with here.send_empty(1 << 17, "u1") as array:
                    array[:] = numpy.uint8(1)

        with pytest.raises(BrokenByDeathError, match=f"pid {child.pid}"):
            fill_and_send()
    child.join(DEADLINE)
    child.close()
    reporter.close()


# -- everybody is killed


@pytest.mark.timeout(60 + KILLS)
@pytest.mark.parametrize("name", ["pipe", "socketpair", "ring"])
@pytest.mark.parametrize("users", [1, 3])
def test_senders_and_receivers_are_killed_at_random(name: str, users: int) -> None:
    """Messages come once, whole and in order; those on loan stay as they are.

    But for one for each dead receiver, none is lost; and all memory is free at the end.
    """
    seed = chosen_seed()
    try:
        Trial(seed, lending(name)().pair(duplex=False), users).run(KILLS)
    except BaseException:
        print(f"replay with PROCESSION_SEED={seed}")
        raise


_AHEAD = 30


class Trial(LenderTrial):
    """A pair that lends."""

    def __init__(self, seed: int, ends: Ends, users: int) -> None:
        super().__init__(seed, users, journal_size=1 << 18)
        self.reader, self.writer = ends

    def hold_back(self) -> None:
        """Never have a copy sent, which a kill would tear: see `LenderTrial.hold_back`."""
        words = way_in(self.reader)._words
        while words[1] - words[0] > _AHEAD and self.reader.wait(0):
            select.select([self._stop], [], [], 0.001)

    def send(self, body: bytes, buffer: bytes) -> None:
        """See `LenderTrial.send`."""
        self.writer.send(body, [buffer] if buffer else [])

    def send_in_place(self, body: bytes, buffer: bytes) -> bool:
        """See `LenderTrial.send_in_place`."""
        memory = self.writer.reserve(len(buffer))
        if memory is None:
            return False
        memory[:] = buffer
        self.writer.send_reserved(body, memory)
        return True

    def receive(self, lease: bool) -> Message:
        """See `LenderTrial.receive`."""
        return self.reader.receive_leased() if lease else self.reader.receive()

    def await_end(self) -> None:
        """See `LenderTrial.await_end`."""
        until(lambda: not self.reader.wait(0))

    def rest(self) -> list[Message]:
        """See `LenderTrial.rest`."""
        assert [] == held(self.reader), "somebody dead has a lease"
        rest = []
        while self.reader.wait(0):
            rest.append(self.reader.receive_leased())
        return rest

    def close(self) -> None:
        """See `LenderTrial.close`."""
        send(self.writer, 1)
        assert is_lent(lease(self.reader, 1))
        assert [] == waiting(self.reader)
        self.reader.close()
        self.writer.close()
