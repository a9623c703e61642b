"""Signals that an event loop of the parent handles, and a forked child should not.

asyncio handles a signal by a handler that does nothing, and by a descriptor to which the
interpreter writes the number of each signal, for the loop to read. A forked child has both.
So what is sent to it, to end it, would do nothing there, and before Python 3.12 the loop in the
parent would take it for its own. Ctrl-C under ``asyncio.run`` cancels a task, which the child
has not got.

The parent looks before a fork (`loop_signals`), and the child gives them up (`give_up`).
"""

from __future__ import annotations

import sys
from _signal import (  # type: ignore[import-not-found]  # `signal` would bring `enum`
    NSIG,
    SIG_DFL,
    SIGINT,
    default_int_handler,
    getsignal,
    set_wakeup_fd,
    signal,
)

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def loop_signals() -> list[tuple[int, Any]]:
    """Return the signals that asyncio handles here, each with the handler of a fresh process.

    Call it where ``asyncio.unix_events`` is loaded: without that, nothing need be looked at.
    """
    runners = sys.modules.get("asyncio.runners")
    if runners is None:
        return []
    does_nothing = getattr(sys.modules["asyncio.unix_events"], "_sighandler_noop", None)
    found: list[tuple[int, Any]] = []
    for number in range(1, NSIG):
        handler = getsignal(number)
        if handler is None:
            continue
        # A runner's own is a partial of a method of it.
        owner = getattr(getattr(handler, "func", None), "__self__", None)
        if handler is does_nothing or isinstance(owner, runners.Runner):
            found.append((number, default_int_handler if number == SIGINT else SIG_DFL))
    return found


def give_up(signals: Sequence[tuple[int, Any]]) -> None:
    """Handle *signals* in this process, just forked, as a fresh one does."""
    set_wakeup_fd(-1)
    for number, handler in signals:
        signal(number, handler)
