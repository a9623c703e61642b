"""Makers of processes with options, which clean up after a test, also after a failed one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from procession.testing import payloads

DEADLINE = 30.0


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    """Callbacks to run after the test, the last one first."""
    with ExitStack() as stack:
        yield stack


def _end(process: Any) -> None:
    try:
        process.kill()
    except (AttributeError, ValueError):  # never started, or closed by the test
        return
    process.join(DEADLINE)
    process.close()


@pytest.fixture
def start(ctx: Any, cleanup: ExitStack) -> Callable[..., Any]:
    """Make and start a process; it is killed and closed after the test."""

    def start(target: Callable[..., object], *args: Any, **options: Any) -> Any:
        process = ctx.Process(target=target, args=args, **options)
        cleanup.callback(_end, process)
        process.start()
        return process

    return start


@pytest.fixture
def finish(start: Callable[..., Any]) -> Callable[..., Any]:
    """Make, start and join a process; return it once it has ended."""

    def finish(*args: Any, **options: Any) -> Any:
        process = start(*args, **options)
        process.join(DEADLINE)
        assert process.exitcode is not None
        return process

    return finish


@pytest.fixture
def ask(ctx: Any, finish: Callable[..., Any], cleanup: ExitStack) -> Callable[..., Any]:
    """Return what a function of `payloads` returns in a child with options."""

    def ask(function: Callable[..., object], *args: Any, **options: Any) -> Any:
        receiver, sender = ctx.Pipe(False)
        cleanup.callback(receiver.close)
        cleanup.callback(sender.close)
        assert finish(payloads.call, sender, function, *args, **options).exitcode == 0
        return receiver.recv()

    return ask
