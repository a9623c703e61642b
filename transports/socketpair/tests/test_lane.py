"""`PacketSocketLane`: packets of every size, counted by the kernel."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("sockets of this kind are a Linux thing", allow_module_level=True)

from procession.plugin import PacketSocketLane


@pytest.fixture
def lane() -> Iterator[PacketSocketLane]:
    """A new lane."""
    lane = PacketSocketLane.create()
    yield lane
    lane.close()


def test_packets_of_every_length(lane: PacketSocketLane) -> None:
    """Each length comes out as it went in, with its kind, and counts as one."""
    for length in (*range(2100), *range(4000, lane.limit, 997), lane.limit):
        packet = bytes([length & 255]) * length
        assert lane.send(packet, length & 1)
        assert 1 == lane.pending()
        assert (packet, length & 1) == lane.receive()
    assert lane.receive() is None


@pytest.mark.parametrize("length", [0, 508, 509, 4093, 32765])
def test_every_packet_is_counted(lane: PacketSocketLane, length: int) -> None:
    """The count is exact from empty to full and back, and a full lane takes nothing."""
    sent = 0
    while lane.send(bytes(length)):
        sent += 1
        assert sent == lane.pending()
    assert 4 <= sent < 512
    for left in range(sent - 1, -1, -1):
        assert lane.receive() is not None
        assert left == lane.pending()


def test_close(lane: PacketSocketLane) -> None:
    """Closing twice is no error, and closes each descriptor once."""
    fd = lane.fileno()
    lane.close()
    lane.close()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
