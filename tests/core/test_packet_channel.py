"""`PacketChannel` where it waits: who is called meanwhile, and what is still whole afterwards."""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import FrameType

import pytest

if sys.platform != "linux":
    pytest.skip("packet pipes are a Linux thing", allow_module_level=True)

import socket

from procession._channels import packet_channel
from procession._channels.packet_channel import PacketChannel
from procession._channels.packet_sockets import PacketSocketChannel, packet_socket_pair
from procession._ground.sockets import BorrowedSocket
from procession.framing import pack_header

#: How long a wait lasts here before somebody looks, in seconds, instead of a whole one.
LOOK = 0.1
#: More than any of them keeps.
LARGE = 8 << 20
#: Of a wait, at the most, in seconds of computing.
IDLE = 0.05


class Pipes(PacketChannel):
    """Over a packet pipe and an ordinary one, as the transport `pipe` has them."""

    longest_packet = 4096
    longest_write = 1 << 20

    @classmethod
    def pair(cls) -> tuple[Pipes, Pipes]:
        """Make a one-way pair."""
        reader, writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
        bulk_reader, bulk_writer = os.pipe2(os.O_CLOEXEC)
        return cls((reader, bulk_reader), ()), cls((), (writer, bulk_writer))


def socket_pair() -> tuple[PacketSocketChannel, PacketSocketChannel]:
    """Return a one-way pair whose timeouts are short ones."""
    ends = PacketSocketChannel.pair(duplex=False)
    for end in ends:
        with BorrowedSocket(end.fileno()) as own:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                own.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", 0, int(LOOK * 1e6)))
    return ends


@pytest.fixture(params=[Pipes.pair, socket_pair], ids=["pipes", "sockets"])
def packets(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], tuple[PacketChannel, PacketChannel]]]:
    """What makes a reader and a writer; they are closed afterwards."""
    monkeypatch.setattr(packet_channel, "LONGEST_SLEEP", LOOK)
    with ExitStack() as cleanup:

        def make() -> tuple[PacketChannel, PacketChannel]:
            ends: tuple[PacketChannel, PacketChannel] = request.param()
            for end in ends:
                cleanup.callback(end.close)
            return ends

        yield make


def fill(writer: PacketChannel, body: bytes) -> int:
    """Send *body* until there is no more room; return how often it was sent."""
    sent = 0
    while writer.wait_for_room(len(body), 0):
        writer.send(body)
        sent += 1
    return sent


def never() -> None:
    """Be no part of it."""
    raise AssertionError("called in vain")


def test_whoever_waits_is_called_to_look(
    packets: Callable[[], tuple[PacketChannel, PacketChannel]],
) -> None:
    """Again and again, without computing meanwhile; what it raises ends the wait and no more."""
    reader, writer = packets()
    full_reader, full_writer = packets()
    looks: list[str] = []

    def look(which: str) -> Callable[[], None]:
        def called() -> None:
            looks.append(which)
            if looks.count(which) == 3:
                raise LookupError(which)

        return called

    def wait(work: Callable[..., object], *args: object) -> float:
        begun = time.thread_time()
        with pytest.raises(LookupError):
            work(*args)
        return time.thread_time() - begun

    assert reader.watch(look("message"), never)
    assert full_writer.watch(never, look("room"))
    sent = fill(full_writer, b"short")
    with ThreadPoolExecutor(1) as threads:
        receiving = threads.submit(wait, reader.receive)
        assert wait(full_writer.send, b"never") < IDLE
        assert receiving.result() < IDLE
    assert full_writer.watch(never, look("room for the first packet"))
    assert wait(full_writer.send, bytes(LARGE), [bytes(10)]) < IDLE
    assert {"message": 3, "room": 3, "room for the first packet": 3} == {
        each: looks.count(each) for each in looks
    }

    assert not full_writer.torn
    writer.send(b"later")
    assert b"later" == bytes(reader.receive()[0])
    for _ in range(sent):
        assert b"short" == bytes(full_reader.receive()[0])
    full_writer.send(b"last")
    assert b"last" == bytes(full_reader.receive()[0])


def test_nobody_asks_before_each_message(
    packets: Callable[[], tuple[PacketChannel, PacketChannel]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is to be called while an end waits costs nothing while it has no need to."""
    reader, writer = packets()
    assert reader.watch(never, never)
    assert writer.watch(never, never)
    monkeypatch.setattr(packet_channel, "poller_of", never)
    monkeypatch.setattr(packet_channel, "wait_writable", never)
    for _ in range(100):
        writer.send(b"here", [b"and", b"here"])
        writer.send(b"and there")
        reader.receive()
        assert b"and there" == bytes(reader.receive()[0])


def test_who_asked_for_nothing_waits_as_well(
    packets: Callable[[], tuple[PacketChannel, PacketChannel]],
) -> None:
    """Others may have asked, and what they have the descriptors do holds for every process."""
    ends = packets()
    with ExitStack() as cleanup:
        reader, writer = (
            type(end)(
                tuple(map(os.dup, {end.reader: 0, end.bulk_reader: 0} if end.readable else ())),
                tuple(map(os.dup, {end.writer: 0, end.bulk_writer: 0} if end.writable else ())),
            )
            for end in ends
        )
        cleanup.callback(reader.close)
        cleanup.callback(writer.close)
        for end in ends:
            assert end.watch(never, never)

        with ThreadPoolExecutor(1) as threads:
            receiving = threads.submit(reader.receive)
            time.sleep(2.5 * LOOK)  # nothing to wait for: that it goes on waiting is the point
            assert not receiving.done()
            writer.send(b"late")
            assert b"late" == bytes(receiving.result()[0])

            sent = fill(writer, b"short")
            sending = threads.submit(writer.send, bytes(LARGE), [bytes(LARGE)])
            time.sleep(2.5 * LOOK)
            for _ in range(sent):
                assert b"short" == bytes(reader.receive()[0])
            time.sleep(2.5 * LOOK)  # in the middle of it
            body, buffers = reader.receive()
            assert [LARGE, LARGE] == [len(body), *map(len, buffers)]
            sending.result()


def test_a_pause_in_the_middle_of_a_message(
    packets: Callable[[], tuple[PacketChannel, PacketChannel]],
) -> None:
    """The rest of it may come later, also when an end is watched."""
    reader, writer = packets()
    assert reader.watch(never, never)
    for body, lengths in ((5, []), (5, [300_000])):
        header, _ = pack_header(body, lengths)
        os.write(writer.writer, header)
        with ThreadPoolExecutor(1) as threads:
            receiving = threads.submit(reader.receive)
            time.sleep(2.5 * LOOK)
            writer._write_rest([memoryview(bytes(5 + sum(lengths)))], False)
            received = receiving.result()
        assert [5, *lengths] == [len(received[0]), *map(len, received[1])]


@pytest.mark.parametrize("watched", [False, True])
def test_a_handler_receives_while_its_thread_waits(
    packets: Callable[[], tuple[PacketChannel, PacketChannel]], watched: bool
) -> None:
    """It gets the next message, and the one after it goes to the wait that it has interrupted."""
    reader, writer = packets()
    if watched:
        assert reader.watch(lambda: None, never)
        writer.send(b"first")
        assert b"first" == bytes(reader.receive()[0])
    received: list[bytes] = []

    def handle(number: int, frame: FrameType | None) -> None:
        late = threading.Timer(0.02, writer.send, [b"for the handler"])
        late.start()
        received.append(bytes(reader.receive()[0]))
        late.join()
        writer.send(b"for the thread")

    before = signal.signal(signal.SIGALRM, handle)
    try:
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            received.append(bytes(reader.receive()[0]))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [b"for the handler", b"for the thread"] * 3 == received


def test_a_closed_end_reads_nothing_of_others(
    packets: Callable[[], tuple[PacketChannel, PacketChannel]],
) -> None:
    """Not even where its descriptor's number is somebody else's by now."""
    reader, writer = packets()
    number = reader.reader
    reader.close()
    others, other_writer = packets()
    other_writer.send(b"not yours")
    assert number == others.reader
    with pytest.raises(OSError, match="Bad file"):
        reader.receive()
    assert b"not yours" == bytes(others.receive()[0])
    writer.close()


def test_only_a_bulk_apart_can_be_watched() -> None:
    """A socket without timeouts has to block: a long message would crawl if it did not."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    class Sockets(PacketChannel):
        longest_packet = longest_write = 64 << 10

    channel = Sockets((one.detach(),), ())
    assert not channel.watch(never, never)
    assert os.get_blocking(channel.reader)
    channel.close()
    other.close()


def test_sockets_wait_for_a_second() -> None:
    """Whoever watches over them is called that often."""
    for fd in packet_socket_pair():
        with socket.socket(fileno=fd) as own:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                seconds, micros = struct.unpack(
                    "@ll", own.getsockopt(socket.SOL_SOCKET, option, 16)
                )
                assert (1, 0) == (seconds, micros)
