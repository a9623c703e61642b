"""Several processes at one end of a connection, some of which are killed or stopped.

Each case with chance prints its seed when it fails; ``PROCESSION_SEED`` replays it, and
``PROCESSION_KILLS`` sets how many processes are killed in each case.
"""

from __future__ import annotations

import os
import random
import select
import signal
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

import pytest

if sys.platform != "linux":
    pytest.skip("rings are a Linux thing", allow_module_level=True)

from procession.errors import BusyConnectionError
from procession.plugin import Channel
from procession.testing.forked import DEADLINE, Forked, crew, sleeps, until
from procession.testing.killing import Journal
from procession_ring import Ring
from procession_ring._implementation import NATIVE

pytestmark = pytest.mark.once

KILLS = int(os.environ.get("PROCESSION_KILLS", "10"))
COUNT = 300
SIZE = 1 << 16
SHORT = (0, 10, 490, 3000)
MIXED = (0, 10, 3000, 16_000, 40_000, 70_000, 200_000)
ALL_LONG = (SIZE, 100_000, 300_001)
_NUMBERS = struct.Struct("=QQ")
END = b"end"
SHORT_MESSAGE = bytes(SIZE // 4 - 16)

Numbers = tuple[int, int]


def body(sender: int, number: int, sizes: tuple[int, ...]) -> bytes:
    """A message that shows whether it is whole."""
    size = sizes[(sender * 31 + number * 7) % len(sizes)]
    return _NUMBERS.pack(sender, number) + bytes([number & 255]) * size


def send(channel: Channel, sender: int, number: int, sizes: tuple[int, ...]) -> None:
    """Send message *number* of *sender*, every third one with a buffer."""
    message = body(sender, number, sizes)
    if number % 3 == 0:
        channel.send(message[:16], [memoryview(message)[16:]])
    else:
        channel.send(message)


def receive(channel: Channel, sizes: tuple[int, ...]) -> Numbers | None:
    """Receive one message, which must be whole and soon there; None if it is the last."""
    assert channel.wait(DEADLINE)
    message, buffers = channel.receive()
    whole = b"".join((message, *buffers))
    if whole == END:
        return None
    sender, number = _NUMBERS.unpack_from(whole)
    assert body(sender, number, sizes) == whole
    return sender, number


def receive_all(channel: Channel, sizes: tuple[int, ...], journal: Journal) -> None:
    """Receive and note messages up to the last."""
    while (numbers := receive(channel, sizes)) is not None:
        journal.add(*numbers)


def in_order(pairs: list[Numbers]) -> bool:
    """Whether the messages of each sender are in their order."""
    last: dict[int, int] = {}
    for sender, number in pairs:
        if number <= last.get(sender, -1):
            return False
        last[sender] = number
    return True


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """A one-way pair: reader and writer."""
    reader, writer = Ring(size=SIZE).pair(duplex=False)
    yield reader, writer
    reader.close()
    writer.close()


@pytest.fixture
def chance() -> random.Random:
    """The source of chance, whose seed is shown when the test fails."""
    seed = int(os.environ.get("PROCESSION_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"replay with PROCESSION_SEED={seed}")
    return random.Random(seed)


# -- nobody is killed


@pytest.mark.parametrize("sizes", [SHORT, MIXED, ALL_LONG], ids=["short", "mixed", "long"])
def test_several_processes_send(ends: tuple[Channel, Channel], sizes: tuple[int, ...]) -> None:
    """Every message arrives once and whole, in the order of its sender."""
    reader, writer = ends
    count = COUNT if sizes is SHORT else COUNT // 5

    def work(sender: int) -> None:
        for number in range(count):
            send(writer, sender, number, sizes)

    with crew() as fork:
        senders = [fork(partial(work, sender)) for sender in range(3)]
        got = [receive(reader, sizes) for _ in range(len(senders) * count)]
        assert [0] * len(senders) == [each.join() for each in senders]
    pairs = [numbers for numbers in got if numbers is not None]
    assert in_order(pairs)
    assert {(sender, number) for sender in range(3) for number in range(count)} == set(pairs)
    assert not reader.wait(0)


@pytest.mark.parametrize("how", ["receive", "select"])
@pytest.mark.parametrize("sizes", [SHORT, MIXED], ids=["short", "mixed"])
def test_several_processes_receive(
    ends: tuple[Channel, Channel], sizes: tuple[int, ...], how: str
) -> None:
    """Every message is received once, whoever waits for it, and all who wait get theirs."""
    reader, writer = ends
    count = COUNT if sizes is SHORT else COUNT // 5

    def work(journal: Journal) -> None:
        while True:
            if how == "select":
                assert select.select([reader.fileno()], [], [], DEADLINE)[0]
            numbers = receive(reader, sizes)
            if numbers is None:
                return
            journal.add(*numbers)

    with crew() as fork:
        journals = [Journal(), Journal(), Journal()]
        receivers = [fork(partial(work, journal)) for journal in journals]
        for number in range(count):
            send(writer, 0, number, sizes)
        for _ in receivers:
            writer.send(END)
        assert [0] * len(receivers) == [each.join() for each in receivers]
    got = [journal.pairs() for journal in journals]
    assert all(map(in_order, got))
    assert Counter((0, number) for number in range(count)) == Counter(chain.from_iterable(got))
    for journal in journals:
        journal.close()


def test_answers_of_two_processes_through_one_end() -> None:
    """Both ends of a two-way connection may have several processes, forked later or earlier."""
    one, other = Ring(size=SIZE).pair()

    def answer() -> None:
        while True:
            message, _ = other.receive()
            if message == END:
                return
            other.send(message)

    with crew() as fork:
        answerers = [fork(answer), fork(answer)]
        for number in range(COUNT):
            one.send(b"%d" % number)
            assert one.wait(DEADLINE)
            assert b"%d" % number == one.receive()[0]
        for _ in answerers:
            one.send(END)
        assert [0, 0] == [each.join() for each in answerers]
    one.close()
    other.close()


# -- killed


def _send_until_told(
    channel: Channel, stop: int, sender: int, sizes: tuple[int, ...], journal: Journal
) -> None:
    number = 0
    while not select.select([stop], [], [], 0)[0]:
        send(channel, sender, number, sizes)
        journal.add(sender, number)
        number += 1


def test_killed_senders_of_short_messages(
    ends: tuple[Channel, Channel], chance: random.Random
) -> None:
    """Whoever is killed has sent its last message or not; the others go on."""
    reader, writer = ends
    # Short enough to be sent in one piece: without a buffer.
    stop, stopper = os.pipe()
    journals: list[Journal] = []
    got: list[Numbers] = []

    def work(sender: int, journal: Journal) -> None:
        number = 0
        while not select.select([stop], [], [], 0)[0]:
            writer.send(body(sender, number, SHORT))
            journal.add(sender, number)
            number += 1

    def drain() -> None:
        while (numbers := receive(reader, SHORT)) is not None:
            got.append(numbers)

    with crew() as fork:

        def begin() -> Forked:
            journals.append(Journal())
            number = len(journals) - 1
            return fork(lambda: work(number, journals[number]))

        senders = [begin() for _ in range(3)]
        draining = threading.Thread(target=drain)
        draining.start()
        for _ in range(KILLS):
            select.select([], [], [], chance.random() * 0.004)
            senders.pop(chance.randrange(len(senders))).kill()
            senders.append(begin())
        os.write(stopper, b"x")
        assert [0] * len(senders) == [each.join() for each in senders]
        writer.send(END)
        draining.join(DEADLINE)
        assert not draining.is_alive()
    assert in_order(got)
    assert len(set(got)) == len(got)
    sent = {pair for journal in journals for pair in journal.pairs()}
    assert sent <= set(got)
    for sender, number in set(got) - sent:
        assert len(journals[sender]) == number  # it was killed before it could note it
    os.close(stop)
    os.close(stopper)
    for journal in journals:
        journal.close()


def test_killed_receivers_of_short_messages(
    ends: tuple[Channel, Channel], chance: random.Random
) -> None:
    """Each takes at most one message with it; the others go on, and so does the sender."""
    reader, writer = ends
    journals: list[Journal] = []
    sent = 0
    stop = threading.Event()

    def feed() -> None:
        nonlocal sent
        while not stop.is_set():
            writer.send(body(0, sent, SHORT))
            sent += 1

    with crew() as fork:

        def begin() -> Forked:
            journals.append(journal := Journal())
            return fork(lambda: receive_all(reader, SHORT, journal))

        receivers = [begin() for _ in range(3)]
        feeding = threading.Thread(target=feed)
        feeding.start()
        for _ in range(KILLS):
            select.select([], [], [], chance.random() * 0.004)
            receivers.pop(chance.randrange(len(receivers))).kill()
            receivers.append(begin())
        stop.set()
        feeding.join(DEADLINE)
        assert not feeding.is_alive()
        for _ in receivers:
            writer.send(END)
        assert [0] * len(receivers) == [each.join() for each in receivers]
    got = [journal.pairs() for journal in journals]
    assert all(map(in_order, got))
    times = Counter(chain.from_iterable(got))
    assert set(times.values()) <= {1}
    lost = {(0, number) for number in range(sent)} - set(times)
    assert len(lost) <= KILLS, lost
    for journal in journals:
        journal.close()


@pytest.mark.parametrize("sizes", [MIXED, ALL_LONG], ids=["mixed", "long"])
def test_a_sender_killed_among_others(chance: random.Random, sizes: tuple[int, ...]) -> None:
    """Nobody takes a part of a message for one, and nobody waits for ever for the rest."""
    for _ in range(KILLS):
        reader, writer = Ring(size=SIZE).pair(duplex=bool(chance.getrandbits(1)))
        journals = [Journal(), Journal()]
        stop, stopper = os.pipe()
        got: list[Numbers] = []
        with crew() as fork:

            def work(sender: int, writer: Channel, reader: Channel, journal: Journal) -> None:
                reader.close()
                try:
                    _send_until_told(writer, stop, sender, sizes, journal)  # noqa: B023
                except BrokenPipeError:
                    os._exit(7)

            senders = [
                fork(partial(work, sender, writer, reader, journal))
                for sender, journal in enumerate(journals)
            ]
            for _ in range(chance.randrange(100)):
                got.append(receive(reader, sizes) or (9, 9))
            senders[0].kill()
            # The writer's end stays open here and in the other one.
            broken = _receive_until(reader, sizes, got, stopper, journals[1], senders[1])
            # Who was told to stop before the next send does not hear of it.
            assert senders[1].join() in ((0, 7) if broken else (0,))
            if broken:
                with pytest.raises(BrokenPipeError):
                    writer.send(b"")
            else:
                assert {pair for journal in journals for pair in journal.pairs()} <= set(got)
        assert in_order(got)
        assert (9, 9) not in got
        for end in (reader, writer):
            end.close()
        for journal in journals:
            journal.close()
        os.close(stop)
        os.close(stopper)


def _receive_until(
    reader: Channel,
    sizes: tuple[int, ...],
    got: list[Numbers],
    stopper: int,
    journal: Journal,
    sender: Forked,
) -> bool:
    """Receive some more, tell the sender to stop, receive the rest; return if it was cut."""
    enough = len(got) + 20
    try:
        while len(got) < enough:
            got.append(receive(reader, sizes) or (9, 9))
        os.write(stopper, b"x")
        while not sender.stopped() or reader.wait(0):
            if reader.wait(0.01):
                got.append(receive(reader, sizes) or (9, 9))
    except OSError as error:
        assert "got end of file during message" in str(error)  # noqa: PT017
        return True
    return False


@pytest.mark.parametrize("sizes", [MIXED, ALL_LONG], ids=["mixed", "long"])
def test_a_receiver_killed_among_others(chance: random.Random, sizes: tuple[int, ...]) -> None:
    """The others get whole messages or an error, and senders learn that it is broken."""
    for _ in range(KILLS):
        reader, writer = Ring(size=SIZE).pair(duplex=bool(chance.getrandbits(1)))
        journals = [Journal(), Journal()]
        sent = 0
        with crew() as fork:

            def work(reader: Channel, writer: Channel, journal: Journal) -> None:
                writer.close()
                try:
                    receive_all(reader, sizes, journal)
                except OSError as error:
                    assert "got end of file during message" in str(error)  # noqa: PT017
                    os._exit(7)

            receivers = [fork(partial(work, reader, writer, journal)) for journal in journals]
            broken = False
            before = chance.randrange(60)
            try:
                for number in range(before + 40):
                    if number == before:
                        receivers[0].kill()
                    send(writer, 0, number, sizes)
                    sent += 1
                for _ in range(2):
                    writer.send(END)
            except BrokenPipeError:
                broken = True
            code = receivers[1].join()
            assert code in (0, 7)
            assert not (broken and code == 0)
        pairs = [journal.pairs() for journal in journals]
        assert all(map(in_order, pairs))
        times = Counter(chain.from_iterable(pairs))
        assert set(times.values()) <= {1}
        if code == 0:
            assert sent - len(times) <= 1
        for end in (reader, writer):
            end.close()
        for journal in journals:
            journal.close()


# -- stopped


def is_stopped(pid: int) -> bool:
    """Whether process *pid* was stopped by a signal."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"T"


@pytest.fixture
def stopped(ends: tuple[Channel, Channel]) -> Iterator[tuple[Channel, Channel, Forked]]:
    """Reader and writer, and a process that was stopped in the middle of a message."""
    reader, writer = ends
    with crew() as fork:
        process = fork(lambda: writer.send(bytes(3 * SIZE)))
        until(lambda: sleeps(process.pid) and reader.wait(0))
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: is_stopped(process.pid))
        yield reader, writer, process


class Interrupted(Exception):
    """Raised by a signal handler."""


def test_waiting_for_another_process_ends_in_time(
    stopped: tuple[Channel, Channel, Forked],
) -> None:
    """Whoever has the side keeps nobody longer than they want to wait; then all goes on."""
    reader, writer, process = stopped
    for timeout in (0, 0.01, 0.3):
        assert not writer.wait_for_room(0, timeout)
    os.kill(process.pid, signal.SIGCONT)
    late = threading.Thread(target=writer.send, args=(b"late",))
    late.start()
    assert bytes(3 * SIZE) == bytes(reader.receive()[0])
    assert b"late" == bytes(reader.receive()[0])
    late.join(DEADLINE)
    assert 0 == process.join()


@pytest.mark.parametrize("what", ["send", "room"])
def test_waiting_for_another_process_is_interrupted(
    stopped: tuple[Channel, Channel, Forked], what: str
) -> None:
    """By a signal handler that raises, after which the end can be used as before."""
    reader, writer, process = stopped

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    def strike() -> None:
        until(lambda: sleeps(me))
        os.kill(os.getpid(), signal.SIGUSR1)

    me = threading.get_native_id()
    usual = signal.signal(signal.SIGUSR1, interrupt)
    try:
        thread = threading.Thread(target=strike)
        thread.start()
        with pytest.raises(Interrupted):
            writer.send(b"never") if what == "send" else writer.wait_for_room(0)
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, usual)
    os.kill(process.pid, signal.SIGCONT)
    assert bytes(3 * SIZE) == bytes(reader.receive()[0])
    writer.send(b"next")
    assert b"next" == bytes(reader.receive()[0])


@pytest.mark.parametrize("what", ["send", "room"])
def test_waiting_for_another_process_ends_with_a_close(
    stopped: tuple[Channel, Channel, Forked], what: str
) -> None:
    """A thread that waits gets an error when another one closes the end."""
    _, writer, _ = stopped
    failures: list[BaseException] = []

    def work() -> None:
        try:
            writer.send(b"never") if what == "send" else writer.wait_for_room(0)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: _blocks(thread))
    writer.close()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert "handle is closed" in str(failures[0])


def _blocks(thread: threading.Thread) -> bool:
    with open(f"/proc/self/task/{thread.native_id}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"S"


def test_a_receiver_that_waits_keeps_nobody_from_receiving(
    ends: tuple[Channel, Channel],
) -> None:
    """Who was stopped while it waited for a message holds nothing."""
    reader, writer = ends
    with crew() as fork:
        process = fork(reader.receive)
        until(lambda: sleeps(process.pid))
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: is_stopped(process.pid))
        writer.send(b"for us")
        assert b"for us" == reader.receive()[0]
        os.kill(process.pid, signal.SIGCONT)
        writer.send(b"for it")
        assert 0 == process.join()


def _fails_with(error: type[BaseException], work: Callable[[], object]) -> None:
    with pytest.raises(error):
        work()


def test_a_message_that_a_signal_handler_cuts_breaks_it_for_all(
    ends: tuple[Channel, Channel],
) -> None:
    """The end is closed in that process; the others, whose ends are open, learn of it."""
    reader, writer = ends
    done, tell = os.pipe()

    def cut() -> None:
        def interrupt(number: int, frame: object) -> None:
            raise Interrupted

        signal.signal(signal.SIGUSR1, interrupt)
        _fails_with(Interrupted, lambda: writer.send(bytes(3 * SIZE)))
        os.write(tell, b"x")
        signal.pause()

    with crew() as fork:
        process = fork(cut)
        until(lambda: sleeps(process.pid) and reader.wait(0))
        os.kill(process.pid, signal.SIGUSR1)
        os.read(done, 1)
        with pytest.raises(OSError, match="got end of file during message"):
            reader.receive()
        with pytest.raises(BrokenPipeError):
            writer.send(b"")
        assert not process.stopped()
    os.close(done)
    os.close(tell)


def test_a_child_forked_in_the_middle_of_a_message_does_not_send_the_rest(
    implementation: str, ends: tuple[Channel, Channel]
) -> None:
    """The message is its parent's: the child gets an error, and the message arrives whole."""
    if implementation != NATIVE:
        pytest.skip("Python code can be interrupted anywhere, and not only where it waits")
    reader, writer = ends

    def forking() -> None:
        children: list[int] = []
        signal.signal(signal.SIGUSR1, lambda *_: children.append(os.fork()))
        try:
            writer.send(bytes(3 * SIZE))
            writer.send(b"from the parent")
        except BusyConnectionError:
            os._exit(7 if children == [0] else 8)
        (child,) = children
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    with crew() as fork:
        process = fork(forking)
        until(lambda: sleeps(process.pid) and reader.wait(0))
        os.kill(process.pid, signal.SIGUSR1)
        until(lambda: has_child(process.pid))
        assert bytes(3 * SIZE) == bytes(reader.receive()[0])
        assert b"from the parent" == bytes(reader.receive()[0])
        assert 7 == process.join()
    assert not reader.wait(0)


def has_child(pid: int) -> bool:
    """Whether process *pid* has a child."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return bool(file.read())


def test_a_sender_killed_before_its_long_message_has_begun() -> None:
    """Without room for the mark, nothing was written, and what was sent before stays whole."""
    reader, writer = Ring(size=SIZE).pair(duplex=False)
    short = os.urandom(SIZE // 4 - 16)
    for _ in range(4):
        writer.send(short)
    with crew() as fork:
        sender = fork(lambda: writer.send(bytes(2 * SIZE)))
        until(lambda: sleeps(sender.pid))
        sender.kill()
    for _ in range(4):
        assert short == bytes(reader.receive()[0])
    writer.send(b"goes on")
    assert b"goes on" == bytes(reader.receive()[0])
    reader.close()
    writer.close()


def test_a_sender_without_room_goes_on_when_there_is_little() -> None:
    """It is let sleep for more, but not for long: a reader may wait for what it sends next."""
    reader, writer = Ring(size=SIZE).pair(duplex=False)
    short = bytes(1000)
    sent = 0
    while writer.wait_for_room(len(short), 0):
        writer.send(short)
        sent += 1
    with crew() as fork:
        sender = fork(lambda: writer.send(short))
        until(lambda: sleeps(sender.pid))
        reader.receive()
        assert 0 == sender.join()
    for _ in range(sent):
        assert short == bytes(reader.receive()[0])
    reader.close()
    writer.close()


def test_whoever_waits_is_called_to_look(ends: tuple[Channel, Channel]) -> None:
    """About once a second, and what it raises ends the wait and nothing else."""
    reader, writer = ends
    looks: list[str] = []

    def look(which: str, most: int) -> Callable[[], None]:
        def called() -> None:
            looks.append(which)
            if looks.count(which) == most:
                raise LookupError(which)

        return called

    assert reader.watch(look("receiving", 2), look("never", 1))
    assert writer.watch(look("never", 1), look("sending", 1))
    with pytest.raises(LookupError, match="receiving"):
        reader.receive()
    for _ in range(4):
        writer.send(SHORT_MESSAGE)
    with pytest.raises(LookupError, match="sending"):
        writer.send(SHORT_MESSAGE)
    assert writer.watch(look("never", 1), look("long", 1))
    with pytest.raises(LookupError, match="long"):
        writer.send(bytes(SIZE), [memoryview(SHORT_MESSAGE)])
    for _ in range(4):
        assert SHORT_MESSAGE == bytes(reader.receive()[0])
    assert ["receiving", "receiving", "sending", "long"] == looks
    writer.send(b"goes on")
    assert b"goes on" == bytes(reader.receive()[0])
