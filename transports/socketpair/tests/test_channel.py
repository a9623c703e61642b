"""`SocketPair` and its channel: what they are made of, beyond what every transport promises."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest

if sys.platform != "linux":
    pytest.skip("needs SOCK_SEQPACKET", allow_module_level=True)

from procession.errors import BrokenConnectionError
from procession.plugin import PacketSocketChannel
from procession_socketpair import SocketPair


@pytest.fixture
def ends() -> Iterator[tuple[PacketSocketChannel, PacketSocketChannel]]:
    """A duplex pair."""
    first, second = SocketPair().pair(duplex=True)
    assert isinstance(first, PacketSocketChannel)
    assert isinstance(second, PacketSocketChannel)
    yield first, second
    first.close()
    second.close()


def test_one_descriptor_at_each_end(ends: tuple[PacketSocketChannel, PacketSocketChannel]) -> None:
    """Both directions and the bulk share one socket, which programs do not inherit."""
    for end in ends:
        assert end.reader == end.writer == end.bulk_reader == end.bulk_writer == end.fileno()
        assert not os.get_inheritable(end.fileno())


@pytest.mark.parametrize("length", [0, 1, 4096, 65535])
def test_a_short_message_is_one_packet(
    ends: tuple[PacketSocketChannel, PacketSocketChannel], length: int
) -> None:
    """Up to 64 KiB, a message is read alone, in one system call."""
    first, second = ends
    first.send(b"x" * length)
    first.send(b"next")

    assert b"x" * length + b"\0" == os.read(second.fileno(), 1 << 20)
    assert b"next\0" == os.read(second.fileno(), 1 << 20)


def test_bulk_is_in_packets_that_fit(
    ends: tuple[PacketSocketChannel, PacketSocketChannel],
) -> None:
    """No packet of a long message is longer than what default buffers take."""
    first, second = ends
    first.send(b"", [bytes(300_000)])
    assert os.read(second.fileno(), 1 << 20)[-1]
    lengths = [len(os.read(second.fileno(), 1 << 20)) for _ in range(3)]

    assert [131072, 131072, 300_000 - 2 * 131072] == lengths


@pytest.mark.parametrize("size", [1 << 20, 2 << 20, 16 << 20])
def test_long_bulk_is_in_long_packets(
    ends: tuple[PacketSocketChannel, PacketSocketChannel], size: int
) -> None:
    """Each packet wakes the receiver; but there are several, so that both sides are at work."""
    first, second = ends
    with ThreadPoolExecutor(1) as sender:
        sending = sender.submit(first.send, b"", [bytes(size)])
        os.read(second.fileno(), 1 << 20)
        lengths: list[int] = []
        while sum(lengths) < size:
            lengths.append(len(os.read(second.fileno(), 1 << 20)))
        sending.result()

    assert {min(size // 8, 512 << 10)} == set(lengths)


# -- where the kernel has no memory for long packets


def limit_buffer(end: PacketSocketChannel, size: int) -> None:
    """Have the kernel take no longer packets than about twice *size* bytes."""
    with socket.socket(fileno=os.dup(end.writer)) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        own.setblocking(True)
        own.settimeout(None)


@pytest.mark.parametrize("limit", [1 << 17, 1 << 16, 1 << 15])
def test_packets_become_as_short_as_the_kernel_wants(
    ends: tuple[PacketSocketChannel, PacketSocketChannel], limit: int
) -> None:
    """What is refused was not sent: the message arrives whole, and so do those after it."""
    first, second = ends
    # From the header's packet on, which is short; many buffers come first, then a long one.
    buffers = [os.urandom(1000) for _ in range(1500)] + [os.urandom(5 << 20)]
    limit_buffer(first, limit)
    with ThreadPoolExecutor(1) as sender:
        for _ in range(3):
            sending = sender.submit(first.send, b"body", buffers)
            body, received = second.receive()
            sending.result()
            assert b"body" == bytes(body)
            assert buffers == [bytes(each) for each in received]

    assert first._longest_write <= 2 * limit
    assert not first.closed


def test_a_kernel_without_memory_for_anything_is_an_error(
    ends: tuple[PacketSocketChannel, PacketSocketChannel],
) -> None:
    """Packets do not become shorter for ever; what was torn is closed, and says so."""
    first, second = ends
    limit_buffer(first, 1)  # some kilobytes, the least there is
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
        first.send(b"", [bytes(5 << 20)])

    assert first.closed
    with pytest.raises(BrokenConnectionError):
        second.receive()


def test_a_handler_that_has_no_memory_is_not_mistaken_for_the_kernel(
    ends: tuple[PacketSocketChannel, PacketSocketChannel],
) -> None:
    """It may raise the same errors as a packet that is too long, and nothing hides them."""
    first, _ = ends

    def fail(number: int, frame: FrameType | None) -> None:
        raise OSError(errno.ENOBUFS, "no memory in the handler")

    before = signal.signal(signal.SIGALRM, fail)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(OSError, match="no memory in the handler"):
            first.send(b"", [bytes(16 << 20)])  # nobody receives
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert first.closed, "half a message was sent"


def test_room_is_all_that_the_kernel_has(
    ends: tuple[PacketSocketChannel, PacketSocketChannel],
) -> None:
    """Who watches over the wait for room can be as far ahead as who does not."""
    _, writer = ends
    while writer.wait_for_room(1, 0):
        writer.send(b"x")
    os.set_blocking(writer.writer, False)
    with pytest.raises(BlockingIOError):
        os.write(writer.writer, b"x")


def test_too_small_buffers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that limits socket memory too tightly is named, and nothing stays open."""
    monkeypatch.setattr(
        "procession._channels.packet_sockets._BUFFER", 1
    )  # the kernel gives its least
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=r"limited to \d+ bytes.*net\.core\.wmem_max"):
        SocketPair().pair()
    assert len(before) == len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_unavailable_elsewhere(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """Where sockets do not keep packets apart the reason is given."""
    assert SocketPair.unavailable() is None
    monkeypatch.setattr(sys, "platform", platform)
    assert "SOCK_SEQPACKET" in str(SocketPair.unavailable())


def test_a_whole_message_of_a_peer_that_did_not_read(
    ends: tuple[PacketSocketChannel, PacketSocketChannel],
) -> None:
    """A peer that closes with messages unread has sent what it has sent, to the end."""
    first, second = ends
    first.send(b"never read")
    body = bytes(range(256)) * 400  # more than one packet
    second.send(body)
    start = os.read(first.fileno(), first.longest_packet)
    second.close()

    assert (body, ()) == first._receive_long(start, None, None)
