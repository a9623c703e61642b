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
                raise ChildFailedError(_describe(gone[0])) from None


def check(ended: Collection[Process]) -> None:
    """Raise `ChildFailedError` if one of these, which have ended, has failed."""
    for child in ended:
        child.join()
        if child.exitcode != 0:
            raise ChildFailedError(_describe(child))


def _describe(child: Process) -> str:
    code = child.exitcode
    if code is None:
        how = "did not end"
    elif code < 0:
        how = f"was ended by {_signal_name(-code)}"
    else:
        how = f"ended with exit status {code}"
    return f"child {child.name!r} (pid {child.pid}) {how} before it had answered"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"
