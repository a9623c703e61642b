"""`SocketPair` and its channel: what they are made of, beyond what every transport promises."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("needs SOCK_SEQPACKET", allow_module_level=True)

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
    monkeypatch.setattr(socket.socket, "getsockopt", lambda *_: 4608)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=r"4608 bytes.*net\.core\.wmem_max"):
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
