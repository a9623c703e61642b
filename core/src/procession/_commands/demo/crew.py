"""Starting several children and seeing them all end, whatever happens in between."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from procession._commands.demo.listening import check

if TYPE_CHECKING:
    from procession.process import Process

__all__ = ["crew"]

_PATIENCE: Final = 5.0
"""How long, in seconds, a child may take to end once it has been told to."""


@contextmanager
def crew(children: Sequence[Process]) -> Iterator[None]:
    """Start *children*; when the block ends, wait for them, or end them if it has failed.

    All of them have ended and are closed afterwards, also after an interrupt, for which
    neither the starting nor the ending can be left half done. Raises `ChildFailedError` if
    one of them fails or does not end by itself.
    """
    started: list[Process] = []
    try:
        with _interrupts_held():
            for child in children:
                child.start()
                started.append(child)
        yield
        check(started)
    finally:
        with _interrupts_held():
            for child in started:
                _end(child)


def _end(child: Process) -> None:
    for act in (child.terminate, child.kill):
        if child.is_alive():
            act()
            child.join(_PATIENCE)
    child.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let an interrupt wait until the end of the block.

    A child that is started in it begins with interrupts held, too, so that Ctrl-C finds none
    without a handler of its own and no tracebacks of half-started children are printed.
    """
    if sys.platform == "win32":  # there is nothing like it
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
