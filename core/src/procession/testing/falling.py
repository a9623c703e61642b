"""Children that are killed at a known message, by themselves or by a script of faults."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

_SIGKILL = 9


def _fall(really: bool) -> None:
    """Be killed, if no script has done it already."""
    if really:
        os.kill(os.getpid(), _SIGKILL)
    raise AssertionError("the script has not killed this process")


def echo_and_fall(connection: Any, count: int, really: bool) -> None:
    """Send back *count* messages and be killed."""
    for _ in range(count):
        connection.send(connection.recv())
    _fall(really)


def put_and_fall(queue: Any, count: int, really: bool) -> None:
    """Put *count* items and be killed."""
    for number in range(count):
        queue.put(number)
    _fall(really)


def take_and_fall(queue: Any, count: int, really: bool) -> None:
    """Take *count* items and be killed."""
    for _ in range(count):
        queue.get()
    _fall(really)


def answer_or_fall(number: int, fatal: int, really: bool) -> int:
    """Return *number*; be killed over *fatal*, before the answer, if it is to be done really."""
    if number == fatal and really:
        _fall(really)
    return number
