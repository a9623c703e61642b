"""Queues under load: many items, large items, nobody reading yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

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


@pytest.mark.one_pair_per("transport")
def test_sizes_around_every_power_of_two(queue: Make) -> None:
    """No size falls between two ways of carrying a message."""
    items = queue()
    for power in range(4, 18):
        for size in (2**power - 64, 2**power - 1, 2**power, 2**power + 1):
            item = bytes(max(0, size))
            items.put(item)
            assert item == items.get(timeout=DEADLINE)
