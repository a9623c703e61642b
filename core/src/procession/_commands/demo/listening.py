"""Waiting for an answer, and for the end of those who should give it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection
from queue import Empty
from typing import TYPE_CHECKING, Any, Final

from procession.connection import wait

if TYPE_CHECKING:
    from procession.process import Process
    from procession.queues import Queue

__all__ = ["ChildFailedError", "check", "next_answer"]

_MOMENT: Final = 0.1
"""How long, in seconds, to wait before looking at the children and the screen again."""


class ChildFailedError(Exception):
    """A child has ended, or failed to, before it had done its work."""


def next_answer(
    answers: Queue, children: Collection[Process], idle: Callable[[], object] = bool
) -> Any:  # whatever a child has put into the queue
    """Return the next answer; call *idle* now and then until it comes.

    *children*: those who still owe an answer. Raises `ChildFailedError` when one of them
    has failed, or has ended without answering.
    """
    while True:
        try:
            return answers.get(timeout=_MOMENT)
        except Empty:
            idle()
        ended = wait([child.sentinel for child in children], timeout=0)
        gone = [child for child in children if child.sentinel in ended]
        check(gone)
        if gone:
            # It may have answered after we had given up and before we looked.
            try:
                return answers.get(timeout=_MOMENT)
            except Empty:
                raise ChildFailedError(f"{_title(gone[0])} ended without an answer") from None


def check(children: Collection[Process], patience: float = 5.0) -> None:
    """Wait for these to end; raise `ChildFailedError` if one of them fails, or does not end.

    *patience*: how long one of them may take, in seconds.
    """
    for child in children:
        child.join(patience)
        code = child.exitcode
        if code is None:
            raise ChildFailedError(f"{_title(child)} has not ended after {patience:g} seconds")
        if code < 0:
            raise ChildFailedError(f"{_title(child)} was ended by {_signal_name(-code)}")
        if code > 0:
            raise ChildFailedError(f"{_title(child)} ended with exit status {code}")


def _title(child: Process) -> str:
    return f"child {child.name!r} (pid {child.pid})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"
