"""Whatever lies in the memory of a ring, whoever reads it gets a message or an error."""

from __future__ import annotations

import os
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("rings are a Linux thing", allow_module_level=True)

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procession.plugin import Handoff
from procession_ring import Ring
from procession_ring._lane import RingLane
from procession_ring._layout import HEADER_SIZE, LANE_OFFSETS, OFFSETS, RECORD, RECORD_MARK

pytestmark = pytest.mark.once

SIZE = 16 << 10
EXAMPLES = int(os.environ.get("PROCESSION_EXAMPLES", "150"))


class Shown(Handoff):
    """Shows the descriptors of what is exported to it."""

    def give(self, fd: int, /) -> int:
        """Return *fd* itself."""
        return fd


positions = st.one_of(
    st.integers(0, 2 * SIZE),
    st.sampled_from([0, 16, SIZE - 16, SIZE, SIZE + 16, 1 << 32, (1 << 64) - 16, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)
lengths = st.one_of(st.integers(0, 3 * SIZE), st.integers(0, (1 << 64) - 1))
records = st.builds(
    lambda body, count, mark, table: RECORD.pack(body, count, mark) + table,
    lengths,
    st.one_of(st.integers(0, 8), st.integers(0, (1 << 32) - 1)),
    st.sampled_from([RECORD_MARK, RECORD_MARK, RECORD_MARK, 0]),
    st.lists(lengths, max_size=8).map(
        lambda numbers: b"".join(number.to_bytes(8, sys.byteorder) for number in numbers)
    ),
)
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@fuzz
@given(
    head=positions,
    tail=positions,
    size=st.one_of(st.just(None), st.sampled_from([SIZE // 4, 4 * SIZE, 8 * SIZE]), positions),
    place=st.integers(0, SIZE // 16 - 8),
    record=records,
)
def test_a_connection(head: int, tail: int, size: int | None, place: int, record: bytes) -> None:
    """No position and no length makes a reader read or write outside, or wait for ever."""
    ring = Ring(size=SIZE)
    ring._full = 4 * SIZE
    reader, writer = ring.pair(duplex=False)
    memory = reader.export(Shown())[0][0]
    writer.send(b"first", [memoryview(b"buffer")])
    os.pwrite(memory, record, HEADER_SIZE + 16 * place)
    os.pwrite(memory, head.to_bytes(8, sys.byteorder), OFFSETS["head"])
    os.pwrite(memory, tail.to_bytes(8, sys.byteorder), OFFSETS["tail"])
    if size is not None:
        os.pwrite(memory, size.to_bytes(8, sys.byteorder), OFFSETS["size"])
    writer.close()
    try:
        for _ in range(20):
            if not reader.wait(0):
                break
            body, buffers = reader.receive()
            assert len(body) + sum(map(len, buffers)) <= 80 * SIZE
    except (EOFError, OSError, MemoryError):
        pass  # these, and nothing else, and no crash
    reader.close()


@fuzz
@given(head=positions, tail=positions, data=st.binary(min_size=64, max_size=256))
def test_a_lane(head: int, tail: int, data: bytes) -> None:
    """The same for the packets of queues."""
    lane = RingLane.create(SIZE)
    memory = lane.export(Shown())[0]
    lane.send(b"packet")
    for start in range(HEADER_SIZE, HEADER_SIZE + SIZE - len(data), 1024):
        os.pwrite(memory, data, start)
    os.pwrite(memory, head.to_bytes(8, sys.byteorder), LANE_OFFSETS["head"])
    os.pwrite(memory, tail.to_bytes(8, sys.byteorder), LANE_OFFSETS["tail"])
    try:
        for _ in range(20):
            lane.send(b"x" * 100)
            packet = lane.receive()
            assert packet is None or len(packet[0]) <= lane.limit
    except OSError:
        pass  # this, and nothing else, and no crash
    lane.close()
