"""`PipeLane`: packets of every size, counted by the kernel."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("packet pipes are a Linux thing", allow_module_level=True)

import fcntl

from procession_pipe._lane import PipeLane


@pytest.fixture
def lane() -> Iterator[PipeLane]:
    """A new lane."""
    lane = PipeLane.create()
    yield lane
    lane.close()


def test_packets_of_every_length(lane: PipeLane) -> None:
    """Each length comes out as it went in, with its kind, and counts as one."""
    for length in range(lane.limit + 1):
        packet = bytes([length & 255]) * length
        assert lane.send(packet, length & 1)
        assert 1 == lane.pending()
        assert (packet, length & 1) == lane.receive()
    assert lane.receive() is None


@pytest.mark.parametrize("length", [0, 508, 509, 4093])
def test_every_packet_is_counted(lane: PipeLane, length: int) -> None:
    """The count is exact from empty to full and back, and a full lane takes nothing."""
    sent = 0
    while lane.send(bytes(length)):
        sent += 1
        assert sent == lane.pending()
    assert 16 <= sent <= 256
    for left in range(sent - 1, -1, -1):
        assert lane.receive() is not None
        assert left == lane.pending()


def test_a_small_pipe_does(lane: PipeLane) -> None:
    """With as little room as the kernel gives over its quota, packets are still counted."""
    fcntl.fcntl(lane.fileno(), fcntl.F_SETPIPE_SZ, 2 * 4096)

    assert [True, True, False] == [lane.send(b"packet") for _ in range(3)]
    assert 2 == lane.pending()


def test_close(lane: PipeLane) -> None:
    """Closing twice is no error, and closes each descriptor once."""
    fd = lane.fileno()
    lane.close()
    lane.close()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
