"""Makers of processes, pipes and queues that clean up after a test, also after a failed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

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
def make(ctx: Any, cleanup: ExitStack) -> Callable[..., Any]:
    """Make a process of the context, unstarted; it is killed and closed after the test."""

    def make(target: Callable[..., object] | None = None, *args: Any, **options: Any) -> Any:
        process = ctx.Process(target=target, args=args, **options)
        cleanup.callback(_end, process)
        return process

    return make


@pytest.fixture
def start(make: Callable[..., Any]) -> Callable[..., Any]:
    """Make and start a process."""

    def start(*args: Any, **options: Any) -> Any:
        process = make(*args, **options)
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
def pipe(ctx: Any, cleanup: ExitStack) -> Callable[..., tuple[Any, Any]]:
    """Make the two ends of a pipe; both are closed after the test."""

    def pipe(duplex: bool = True) -> tuple[Any, Any]:
        ends = ctx.Pipe(duplex)
        for end in ends:
            cleanup.callback(end.close)
        return ends[0], ends[1]

    return pipe


@pytest.fixture
def queue(ctx: Any, cleanup: ExitStack) -> Callable[..., Any]:
    """Make a queue; the test empties it, and it is closed and its thread joined afterwards."""

    def queue(maxsize: int = 0, kind: str = "Queue") -> Any:
        made = getattr(ctx, kind)(maxsize) if kind != "SimpleQueue" else ctx.SimpleQueue()
        if kind != "SimpleQueue":
            cleanup.callback(made.join_thread)
        cleanup.callback(made.close)
        return made

    return queue


@pytest.fixture
def ask(pipe: Callable[..., tuple[Any, Any]], finish: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a function of `payloads` returns in a child."""
    from procession.testing import payloads

    def ask(function: Callable[..., object], *args: Any, **options: Any) -> Any:
        receiver, sender = pipe(False)
        finish(payloads.call, sender, function, *args, **options)
        assert receiver.poll()
        return receiver.recv()

    return ask


@pytest.fixture
def run_program(subject: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a new interpreter, with a deadline that ends its whole family.

    ``{mp}`` in the text stands for the package under test.
    """

    def run_program(
        text: str = "",
        *args: str,
        options: tuple[str, ...] = (),
        command: tuple[str, ...] = (),
        given: str | None = None,
        **popen: Any,
    ) -> subprocess.CompletedProcess[str]:
        if not command:
            path = tmp_path / "program.py"
            path.write_text(text.replace("{mp}", subject))
            command = (str(path), *args)
        line = [sys.executable, *options, *command]
        process = subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=tmp_path,
            **popen,
        )
        try:
            output, errors = process.communicate(given, timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            if sys.platform != "win32":
                os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            pytest.fail(f"the program did not end: {line}\n{output}\n{errors}")
        return subprocess.CompletedProcess(line, process.returncode, output, errors)

    return run_program
