"""What children of tests do with queues, several objects at a time."""

from __future__ import annotations

from typing import Any


def put_many(items: Any, count: int) -> None:
    """Put the numbers up to *count* together; all of them must be put."""
    assert count == items.put_many(range(count))
