"""Makers of processes that clean up after a test, also after a failed one."""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

DEADLINE = 30.0


@pytest.fixture
def no_faulthandler() -> Iterator[None]:
    """Undo that pytest has enabled faulthandler: that a user has done so would be respected."""
    was_enabled = faulthandler.is_enabled()
    faulthandler.disable()
    yield
    if was_enabled and sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)


def _end(process: Any) -> None:
    try:
        process.kill()
    except (AttributeError, ValueError):  # never started, or closed by the test
        return
    process.join(DEADLINE)
    process.close()


@pytest.fixture
def start(ctx: Any) -> Iterator[Callable[..., Any]]:
    """Make and start a process; it is killed and closed after the test."""
    with ExitStack() as stack:

        def start(target: Callable[..., object] | None = None, *args: Any, **options: Any) -> Any:
            process = ctx.Process(target=target, args=args, **options)
            stack.callback(_end, process)
            process.start()
            return process

        yield start


@pytest.fixture
def finish(start: Callable[..., Any]) -> Callable[..., Any]:
    """Make, start and join a process; return it once it has ended."""

    def finish(*args: Any, **options: Any) -> Any:
        process = start(*args, **options)
        process.join(DEADLINE)
        assert process.exitcode is not None
        return process

    return finish
