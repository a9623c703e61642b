"""Children that draw random numbers. As `payloads`, importable and cheap."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any


def draw(connection: Any, _: str) -> None:
    """Send some numbers of `random` and some of numpy's global generator."""
    import random

    import numpy

    connection.send(([random.random() for _ in range(3)], numpy.random.rand(3).tolist()))


def draw_deeper(connection: Any, method: str) -> None:
    """Let a child of this process draw."""
    import procession

    process = procession.get_context(method).Process(target=draw, args=(connection, method))
    process.start()
    process.join()
