"""Queues under load: many items, large items, nobody reading yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from procession.testing import payloads

DEADLINE = 60.0
MIB = 2**20
Make = Callable[..., Any]


@pytest.mark.slow
@pytest.mark.one_pair_per("transport")
def test_many_items_with_nobody_reading(queue: Make) -> None:
    """put never waits for a reader on a queue without a limit; all is there afterwards."""
    items = queue()
    count = 60_000
    for number in range(count):
        items.put(number)

    assert count == items.qsize()
    for number in range(count):
        if items.get(timeout=DEADLINE) != number:
            pytest.fail(f"item {number} is out of order")
    assert items.empty()


@pytest.mark.parametrize("size", [65_535, 65_537, MIB, 3 * MIB + 1])
def test_large_items(queue: Make, start: Make, size: int) -> None:
    """Items larger than any buffer arrive whole and in order, among small ones."""
    items = queue()
    wanted = [bytes([number]) * size if number % 2 else number for number in range(6)]
    process = start(payloads.put_all, items, wanted)

    assert wanted == [items.get(timeout=DEADLINE) for _ in wanted]
    process.join(DEADLINE)
    assert 0 == process.exitcode


def test_large_items_of_many_producers(queue: Make, start: Make) -> None:
    """Large items of several producers do not mix."""
    items = queue()
    parts = [bytes([who]) * 400_000 for who in range(3)]
    processes = [start(payloads.put_all, items, [part] * 4) for part in parts]
    received = [items.get(timeout=DEADLINE) for _ in range(12)]
    for process in processes:
        process.join(DEADLINE)

    assert sorted(parts * 4) == sorted(received)


@pytest.mark.parametrize("size", [MIB, 32 * MIB])
def test_arrays(queue: Make, start: Make, size: int) -> None:
    """Arrays of 1 and 32 MiB go through a queue."""
    numpy = pytest.importorskip("numpy")
    items = queue()
    wanted = numpy.arange(size // 8, dtype="i8")
    process = start(payloads.put_all, items, [wanted, "end"])

    assert numpy.array_equal(wanted, items.get(timeout=DEADLINE))
    assert "end" == items.get(timeout=DEADLINE)
    process.join(DEADLINE)
    assert 0 == process.exitcode


@pytest.mark.one_pair_per("transport")
def test_sizes_around_every_power_of_two(queue: Make) -> None:
    """No size falls between two ways of carrying a message."""
    items = queue()
    for power in range(4, 18):
        for size in (2**power - 64, 2**power - 1, 2**power, 2**power + 1):
            item = bytes(max(0, size))
            items.put(item)
            assert item == items.get(timeout=DEADLINE)
