"""`Ring` and `RingChannel`: what only they promise, on both implementations."""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import procession

if sys.platform != "linux":
    pytest.skip("rings are a Linux thing", allow_module_level=True)

import fcntl
import resource

from procession.plugin import Channel, Handoff, Takeover
from procession.testing.forked import crew, sleeps, until
from procession_ring import Ring
from procession_ring._channel import RingChannel
from procession_ring._implementation import NATIVE, PYTHON, VARIABLE
from procession_ring._lane import RingLane
from procession_ring._layout import (
    HEADER_SIZE,
    LANE_OFFSETS,
    OFFSETS,
    RECORD,
    RECORD_MARK,
    STREAM_MAGIC,
)
from procession_ring._memory import new_stream_memory
from procession_ring._transport import VARIABLE as SIZE_VARIABLE

KIB = 1024
SIZE = 64 * KIB


class Shown(Handoff):
    """Shows the descriptors of what is exported to it."""

    def give(self, fd: int, /) -> int:
        """Return *fd* itself."""
        return fd


def memory_of(channel: Channel) -> int:
    """The descriptor of its memory."""
    return int(channel.export(Shown())[0][0])


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """A one-way pair."""
    reader, writer = Ring(size=SIZE).pair(duplex=False)
    yield reader, writer
    reader.close()
    writer.close()


@pytest.fixture
def both() -> Iterator[tuple[Channel, Channel]]:
    """A two-way pair."""
    one, other = Ring(size=SIZE).pair()
    yield one, other
    one.close()
    other.close()


def test_the_layouts_agree(implementation: str) -> None:
    """The twin looks where the compiled one does."""
    if implementation == NATIVE:
        from procession_ring import _native

        words = {(kind, word.split(".")[-1]): at for kind, word, at in _native.offsets()}
        assert words == {
            **{("stream", word): at for word, at in OFFSETS.items()},
            **{("lane", word): at for word, at in LANE_OFFSETS.items()},
        }


@pytest.mark.parametrize("length", [*range(40), 4080, 16 * KIB, SIZE // 4 - 1, SIZE, 5 * SIZE + 3])
def test_every_length_at_every_place(ends: tuple[Channel, Channel], length: int) -> None:
    """Messages go around the end of the memory, wherever they begin."""
    reader, writer = ends
    message = os.urandom(length)
    sender = threading.Thread(
        target=lambda: (
            [writer.send(message, [memoryview(message)]) for _ in range(30)]
            and [writer.send(message) for _ in range(30)]
        )
    )
    sender.start()
    for _ in range(30):
        body, (buffer,) = reader.receive()
        assert message == bytes(body) == bytes(buffer)
    for _ in range(30):
        assert message == bytes(reader.receive()[0])
    sender.join()


def test_many_buffers(ends: tuple[Channel, Channel]) -> None:
    """Thousands of buffers, some empty, come out as they went in."""
    reader, writer = ends
    buffers = [memoryview(bytes([n & 255]) * (n % 50)) for n in range(20_000)]
    sender = threading.Thread(target=writer.send, args=(b"body", buffers))
    sender.start()
    body, received = reader.receive()
    sender.join()
    assert b"body" == body
    assert list(map(bytes, buffers)) == list(map(bytes, received))


def test_many_odd_buffers_in_little_room() -> None:
    """However the pieces fall, no position ever goes back."""
    reader, writer = Ring(size=16 * KIB).pair(duplex=False)
    data = memoryview(os.urandom(5 * KIB))
    messages = [
        [data[: (start * 37 + number * 101) % length] for start in range(40)]
        for number in range(10)
        for length in (9, 90, 900, len(data))
    ]

    def work() -> None:
        for buffers in messages:
            writer.send(buffers[0], buffers)

    sender = threading.Thread(target=work)
    sender.start()
    for buffers in messages:
        body, received = reader.receive()
        assert buffers[0] == bytes(body)
        assert list(map(bytes, buffers)) == list(map(bytes, received))
    sender.join()
    reader.close()
    writer.close()


def test_a_connection_is_of_one_implementation(
    implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that would use other locks is told so, and takes nothing over."""
    one, other = Ring(size=SIZE).pair()
    pytest.importorskip("procession_ring._native")
    monkeypatch.setenv(VARIABLE, PYTHON if implementation == NATIVE else NATIVE)
    before = sorted(os.listdir("/proc/self/fd"))

    class Duplicates(Handoff):
        def give(self, fd: int, /) -> int:
            return os.dup(fd)

    class Taken(Takeover):
        def take(self, token: Any, /) -> int:
            return int(token)

    with pytest.raises(OSError, match=f"of another implementation.*{VARIABLE}"):
        RingChannel.attach(other.export(Duplicates()), Taken())
    assert before == sorted(os.listdir("/proc/self/fd"))
    one.send(b"goes on")
    assert b"goes on" == other.receive()[0]
    one.close()
    other.close()


def test_a_message_of_nothing_into_memory(ends: tuple[Channel, Channel]) -> None:
    """It is received once, and what comes after it next."""
    reader, writer = ends
    writer.send(b"")
    writer.send(b"next")
    into = memoryview(bytearray(10))
    assert b"" == bytes(reader.receive(into)[0])
    assert b"next" == bytes(reader.receive(into)[0])


def test_the_memory_is_reserved_and_sealed(ends: tuple[Channel, Channel]) -> None:
    """No page is missing later, and nobody can take one away: no SIGBUS."""
    memory = memory_of(ends[0])
    status = os.fstat(memory)
    assert status.st_blocks * 512 >= status.st_size == HEADER_SIZE + SIZE
    seals = fcntl.fcntl(memory, fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_SHRINK
    with pytest.raises(PermissionError):
        os.ftruncate(memory, HEADER_SIZE)


def test_no_memory_is_an_error_at_creation() -> None:
    """What does not fit is refused when the pair is made, and leaves nothing open."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = sorted(os.listdir("/proc/self/fd"))
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            Ring(size=SIZE).pair()
        with pytest.raises(OSError, match="File too large"):
            Ring(size=SIZE).mailbox()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, usual)
    assert before == sorted(os.listdir("/proc/self/fd"))


def test_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is what the call says, or the environment, or the default; a power of two."""

    def size(ring: Ring) -> tuple[int, int]:
        reader, writer = ring.pair(duplex=False)
        status = os.fstat(memory_of(reader))
        reader.close()
        writer.close()
        return status.st_blocks * 512 - HEADER_SIZE, status.st_size - HEADER_SIZE

    assert (256 * KIB, 1024 * KIB) == size(Ring())  # it can grow, as nobody wants anything else
    assert (128 * KIB, 128 * KIB) == size(Ring(size=100_000))
    monkeypatch.setenv(SIZE_VARIABLE, "20000")
    assert (32 * KIB, 32 * KIB) == size(Ring())
    for wrong in ("many", "1", "-5", str(1 << 40)):
        monkeypatch.setenv(SIZE_VARIABLE, wrong)
        with pytest.raises(ValueError, match=f"{SIZE_VARIABLE} is .*bytes"):
            Ring()
    with pytest.raises(ValueError, match="size is 5; a ring has between"):
        Ring(size=5)


def test_a_size_in_the_configuration_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It counts where neither a call nor the variable says anything, and is checked as well."""
    monkeypatch.delenv(SIZE_VARIABLE, raising=False)
    monkeypatch.delenv("PROCESSION_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.procession]\nring-size = 40000\n")
    assert 64 * KIB == Ring()._size
    assert 16 * KIB == Ring(size=16 * KIB)._size
    monkeypatch.setenv(SIZE_VARIABLE, "20000")
    assert 32 * KIB == Ring()._size
    monkeypatch.delenv(SIZE_VARIABLE)
    file.write_text("[tool.procession]\nring-size = 500\n")
    with pytest.raises(ValueError, match=r"ring-size in .*pyproject.toml is 500; a ring has betw"):
        Ring()


def context_over(transport: str) -> Any:
    """A context of whatever start method there is."""
    if not procession.get_all_start_methods() or transport not in procession.get_all_transports():
        pytest.skip(f"needs a start method and {transport}")
    return procession.get_context(transport=transport)


def test_sizes_of_calls_and_contexts() -> None:
    """What the call says counts first, then the context; of pipes, and of all kinds of queues."""
    context = context_over("ring")
    larger = context.with_size(1 << 20)

    def pipe_size(size: int | None = None) -> int:
        ends = larger.Pipe(size=size)
        found = os.fstat(memory_of(ends[0].channel)).st_size // 2 - HEADER_SIZE
        for end in ends:
            end.close()
        return found

    def limit(queue: Any) -> int:
        found: int = queue._mailbox._lane.limit
        queue.close()
        return found

    assert 1 << 20 == pipe_size()
    assert 16 * KIB == pipe_size(size=16 * KIB)
    smaller = context.with_size(16 * KIB)
    for made in (smaller.Queue(), smaller.JoinableQueue(3), smaller.SimpleQueue()):
        assert 4 * KIB == limit(made)
    for made in (
        smaller.Queue(size=64 * KIB),
        smaller.JoinableQueue(3, size=64 * KIB),
        smaller.SimpleQueue(size=64 * KIB),
    ):
        assert 16 * KIB == limit(made)
    assert 4 * KIB == limit(smaller.with_options(nice=1).Queue())
    assert 64 * KIB == limit(smaller.with_size(None).Queue())
    with pytest.raises(ValueError, match="size is 5; a ring has between"):
        context.Queue(size=5)
    assert 4 * KIB == limit(pickle.loads(pickle.dumps(smaller)).Queue())
    assert 64 * KIB == limit(pickle.loads(pickle.dumps(context)).Queue())
    not_a_size: Any = "large"
    with pytest.raises(TypeError):
        context.with_size(not_a_size)


@pytest.mark.parametrize("transport", ["pipe", "socketpair"])
def test_a_transport_without_sizes_refuses_one(transport: str) -> None:
    """It says so, and what to do, and does not ignore it."""
    context = context_over(transport)
    sized = context.with_size(1 << 20)
    makers: list[Callable[[], object]] = [
        partial(context.Pipe, size=1 << 20),
        partial(context.Queue, size=1 << 20),
        sized.SimpleQueue,
    ]
    for make in makers:
        with pytest.raises(ValueError, match=f"size is 1048576, .*'{transport}' has no sizes"):
            make()


def test_an_unknown_implementation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in the variable does not choose anything."""
    monkeypatch.setenv(VARIABLE, "fast")
    with pytest.raises(ValueError, match="can be 'native' or 'python'"):
        Ring().pair()


# -- waiting


def readable(fd: int, timeout: float = 0) -> bool:
    """Whether select says that *fd* is readable."""
    return bool(select.select([fd], [], [], timeout)[0])


def test_a_sender_killed_before_it_rang_does_not_silence_the_next_one(
    ends: tuple[Channel, Channel],
) -> None:
    """Whoever sleeps in select is woken by the next message, and once only."""
    reader, writer = ends
    fd = reader.fileno()
    for _ in range(3):
        # So it leaves the memory: it has said that it rings, and then it was killed.
        os.pwrite(memory_of(reader), struct.pack("=I", 0), OFFSETS["armed"])
        assert not readable(fd)
        writer.send(b"next")
        assert readable(fd)
        assert b"next" == reader.receive()[0]
        assert not readable(fd)


def test_a_bell_that_has_rung_in_vain_is_silenced(ends: tuple[Channel, Channel]) -> None:
    """Whoever looks and finds nothing is not told to look again."""
    reader, writer = ends
    fd = reader.fileno()
    bell = int(reader.export(Shown())[0][1])
    for _ in range(3):
        os.write(bell, struct.pack("=Q", 1))
        assert readable(fd)
        assert not reader.wait(0)
        assert not readable(fd)
        assert not reader.wait(0.001)
        writer.send(b"one")
        assert readable(fd)
        assert b"one" == reader.receive()[0]
        assert not readable(fd)


def test_the_bell_of_a_lane() -> None:
    """The same of a queue's."""
    lane = RingLane.create(SIZE)
    memory, bell = lane.export(Shown())
    fd = lane.fileno()
    for _ in range(3):
        os.pwrite(memory, struct.pack("=I", 0), LANE_OFFSETS["armed"])
        lane.send(b"next")
        assert readable(fd)
        assert (b"next", 0) == lane.receive()
        assert not readable(fd)
        os.write(bell, struct.pack("=Q", 1))
        assert lane.receive() is None
        assert not readable(fd)
    lane.close()


def test_no_wakeup_is_lost() -> None:
    """A process that sleeps in select is woken for every single message."""
    one, other = Ring(size=SIZE).pair()
    count = 3000
    with crew() as fork:

        def echo() -> None:
            one.close()
            fd = other.fileno()
            for _ in range(count):
                assert readable(fd, 20)
                other.send(other.receive()[0])

        process = fork(echo)
        other.close()
        fd = one.fileno()
        for number in range(count):
            one.send(b"%d" % number)
            assert readable(fd, 20), number
            assert b"%d" % number == one.receive()[0]
        assert 0 == process.join()
    one.close()


def test_several_threads_that_wait_and_receive(ends: tuple[Channel, Channel]) -> None:
    """Each message is received once, whoever waits for it in which way."""
    reader, writer = ends
    got: list[bytes] = []

    def work() -> None:
        while True:
            reader.wait(30)
            body, _ = reader.receive()
            if body == b"end":
                return
            got.append(bytes(body))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        writer.send(b"%d" % number)
    for _ in threads:
        writer.send(b"end")
    for thread in threads:
        thread.join()
    assert sorted(b"%d" % number for number in range(2000)) == sorted(got)


def test_several_threads_that_send(ends: tuple[Channel, Channel]) -> None:
    """Messages never interleave, short and long."""
    reader, writer = ends

    def work(name: int) -> None:
        for number in range(60):
            writer.send(bytes([name]) * (number * 3001 % (3 * SIZE)))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(1, 5)]
    for thread in threads:
        thread.start()
    for _ in range(4 * 60):
        body = bytes(reader.receive()[0])
        assert body == body[:1] * len(body)
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("what", ["receive", "wait", "send", "room"])
def test_closing_wakes_threads_that_wait(both: tuple[Channel, Channel], what: str) -> None:
    """A thread in the middle of waiting gets an error, and nothing crashes."""
    one, _ = both
    failures: list[BaseException] = []

    def work() -> None:
        try:
            if what == "send":
                one.send(bytes(3 * SIZE))
            elif what == "room":
                fill(one)
                one.wait_for_room(0)
            else:
                getattr(one, what)()
        except (OSError, AttributeError) as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: sleeps_thread(thread))
    one.close()
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(failures[0], OSError)


def fill(channel: Channel) -> None:
    """Send until there is no room for another message, however short."""
    while channel.wait_for_room(SIZE // 8, 0):
        channel.send(bytes(SIZE // 8))
    while channel.wait_for_room(0, 0):
        channel.send(b"")


def sleeps_thread(thread: threading.Thread) -> bool:
    """Whether *thread* is blocked in the kernel."""
    with open(f"/proc/self/task/{thread.native_id}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"S"


def test_a_timeout_is_kept(ends: tuple[Channel, Channel]) -> None:
    """Waiting ends when it should, also when it is longer than one sleep."""
    reader, writer = ends
    fill(writer)
    for timeout in (0.0, 0.01, 0.6):
        begun = time.monotonic()
        assert not writer.wait_for_room(0, timeout)
        assert timeout <= time.monotonic() - begun < timeout + 5
    while reader.wait(0):
        reader.receive()
    for timeout in (0.0, 0.01, 0.6):
        begun = time.monotonic()
        assert not reader.wait(timeout)
        assert timeout <= time.monotonic() - begun < timeout + 5


def test_room_is_waited_for_by_one_thread_at_a_time(ends: tuple[Channel, Channel]) -> None:
    """A sender that waits does not keep another thread from asking with a timeout."""
    reader, writer = ends
    fill(writer)
    thread = threading.Thread(target=writer.send, args=(b"late",))
    thread.start()
    until(lambda: sleeps_thread(thread))
    for timeout in (0, 0.05):
        assert not writer.wait_for_room(0, timeout)
    received = b""
    while received != b"late":
        received = bytes(reader.receive()[0])
    thread.join(30)
    assert writer.wait_for_room(0, 0)


def is_stopped(pid: int) -> bool:
    """Whether process *pid* was stopped by a signal."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"T"


def test_a_forked_child_inherits_no_held_lock(both: tuple[Channel, Channel]) -> None:
    """A thread that waits in an end does not block it in a forked child."""
    one, other = both

    def parent() -> None:
        thread = threading.Thread(target=one.receive)
        thread.start()
        until(lambda: sleeps_thread(thread))
        me = os.getpid()

        def child() -> None:
            # So that only we can take what comes.
            os.kill(me, signal.SIGSTOP)
            until(lambda: is_stopped(me))
            other.send(b"for the child")
            body, _ = one.receive()
            os.kill(me, signal.SIGCONT)
            assert b"for the child" == body

        with crew() as fork:
            assert 0 == fork(child).join()
        other.send(b"for the thread")
        thread.join(30)
        assert not thread.is_alive()

    with crew() as fork:
        assert 0 == fork(parent).join()


def test_a_closed_end_holds_nothing(both: tuple[Channel, Channel]) -> None:
    """Neither descriptors nor memory, and using it is an error."""
    one, _ = both
    numbers = [*one.export(Shown())[0], one.fileno()]
    one.close()
    one.close()
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
    assert one.closed
    for use in (lambda: one.send(b""), one.receive, one.wait, one.fileno):
        with pytest.raises(OSError, match="handle is closed"):
            use()


class Interrupted(Exception):
    """Raised by a signal handler."""


@pytest.fixture
def alarm() -> Iterator[None]:
    """Have SIGUSR1 raise `Interrupted`."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    usual = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, usual)


def test_an_interrupted_wait_leaves_everything_usable(
    both: tuple[Channel, Channel], alarm: None
) -> None:
    """KeyboardInterrupt while nothing was there, or while there was no room, takes nothing."""
    one, other = both
    me = threading.get_native_id()

    def strike() -> None:
        until(lambda: sleeps(me))
        os.kill(os.getpid(), signal.SIGUSR1)

    for wait in (one.receive, one.wait):
        thread = threading.Thread(target=strike)
        thread.start()
        with pytest.raises(Interrupted):
            wait()
        thread.join()
        other.send(b"next")
        assert b"next" == one.receive()[0]
    count = 0
    while count < 7:  # they fill all but a part of the ring
        one.send(bytes(SIZE // 8))
        count += 1
    length = SIZE // 4 - 100
    for wait_for_room in (partial(one.wait_for_room, length), partial(one.send, bytes(length))):
        thread = threading.Thread(target=strike)
        thread.start()
        with pytest.raises(Interrupted):
            wait_for_room()
        thread.join()
    for _ in range(count):
        assert bytes(SIZE // 8) == bytes(other.receive()[0])
    one.send(b"goes on")
    assert b"goes on" == other.receive()[0]


def test_an_interrupted_part_of_a_message_closes(
    both: tuple[Channel, Channel], alarm: None
) -> None:
    """The peer sees a truncated message and never a wrong one."""
    one, other = both
    me = threading.get_native_id()

    def strike() -> None:
        until(lambda: sleeps(me))
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=strike)
    thread.start()
    with pytest.raises(Interrupted):
        one.send(bytes(2 * SIZE))
    thread.join()
    assert one.closed
    with pytest.raises(OSError, match="got end of file during message"):
        other.receive()


# -- memory that is not what it should be


def tail_of(channel: Channel) -> int:
    """The position up to which messages are committed."""
    (tail,) = struct.unpack("=Q", os.pread(memory_of(channel), 8, OFFSETS["tail"]))
    return int(tail)


@pytest.mark.parametrize(
    ("offset", "word"),
    [
        (OFFSETS["tail"], struct.pack("=Q", SIZE + 16)),
        (OFFSETS["tail"], struct.pack("=Q", 1 << 63)),
        (OFFSETS["tail"], struct.pack("=Q", 5)),
        (OFFSETS["head"], struct.pack("=Q", (1 << 64) - 16)),
        (HEADER_SIZE, RECORD.pack(1 << 48, 0, RECORD_MARK)),
        (HEADER_SIZE, RECORD.pack(5, 1 << 31, RECORD_MARK)),
        (HEADER_SIZE, RECORD.pack(5, 0, 0)),
        (HEADER_SIZE, RECORD.pack(5, 1, RECORD_MARK) + struct.pack("=Q", 1 << 60)),
    ],
)
def test_corrupt_memory_is_an_error(
    ends: tuple[Channel, Channel], offset: int, word: bytes
) -> None:
    """Lengths and positions are checked before anything is done about them."""
    reader, writer = ends
    writer.send(b"12345678", [memoryview(b"buffer")])
    os.pwrite(memory_of(reader), word, offset)
    with pytest.raises(OSError, match="bad message"):
        reader.receive()
    assert reader.closed


def test_a_position_in_the_middle_of_a_message(ends: tuple[Channel, Channel]) -> None:
    """Who left it there has gone: nothing can be received any more, nor sent."""
    reader, writer = ends
    writer.send(b"12345678")
    os.pwrite(memory_of(reader), struct.pack("=Q", 3), OFFSETS["head"])
    with pytest.raises(OSError, match="got end of file during message"):
        reader.receive()
    assert reader.closed
    with pytest.raises(BrokenPipeError):
        writer.send(b"")


def test_foreign_memory_is_refused() -> None:
    """Only the memory of a ring of this version is used, and only as much as is there."""
    for word, wrong in (
        ("magic", STREAM_MAGIC + 1),
        ("size", SIZE * 2),
        ("full", SIZE * 2),
        ("full", SIZE // 2),
        ("full", SIZE + 16),
    ):
        memory = new_stream_memory(SIZE, SIZE, 1)
        os.pwrite(memory, struct.pack("=Q", wrong), OFFSETS[word])
        with pytest.raises(OSError, match="not the memory of a ring"):
            RingChannel((memory, 0, -1, 0), (0, -1))
        os.close(memory)


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_unavailable_elsewhere(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """Where there is no memfd the reason is given, and nothing fails before."""
    assert Ring.unavailable() is None
    monkeypatch.setattr("sys.platform", platform)
    assert "Linux" in str(Ring.unavailable())


def test_the_twin_is_offered_where_stores_stay_in_order_only(
    implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere the reader could see that a message is there before it sees the message."""
    usual = os.uname()
    foreign = os.uname_result((*usual[:4], "aarch64"))
    monkeypatch.setattr(os, "uname", lambda: foreign)
    if implementation == NATIVE:
        assert Ring.unavailable() is None
    else:
        assert "does not keep stores in order" in str(Ring.unavailable())


def test_it_says_which_implementation_is_in_use(
    implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wonders about the speed sees it in `procession plugins`."""
    assert ("compiled" if implementation == NATIVE else "pure Python") == " ".join(
        Ring.details().split()[: 1 if implementation == NATIVE else 2]
    )
    monkeypatch.setenv(VARIABLE, "fast")
    assert "'fast'" in str(Ring.unavailable())
