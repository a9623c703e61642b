"""What the tests share that bring procession and the standard `multiprocessing` together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing import resource_sharer, resource_tracker, util
from pathlib import Path
from typing import Any

import pytest

from procession.testing import payloads, standard

DEADLINE = 30.0


@pytest.fixture(scope="session", autouse=True)
def helpers() -> Iterator[None]:
    """Start the helper processes of the standard package, which it keeps for good."""
    resource_tracker.ensure_running()
    for method in ("fork", "spawn"):
        multiprocessing.get_context(method).Value("i")  # the memory that it lies in is kept
    for method in multiprocessing.get_all_start_methods():
        context: Any = multiprocessing.get_context(method)
        process = context.Process(target=payloads.nothing)
        process.start()
        process.join()
        process.close()
    yield
    # Before the directory that it uses is removed.
    util._exit_function()  # type: ignore[attr-defined]


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    """Callbacks to run after the test, the last one first."""
    with ExitStack() as stack:
        yield stack
    resource_sharer.stop(DEADLINE)


@pytest.fixture
def standard_ctx(method: str) -> Any:
    """The standard package's context for objects that children of *method* can have."""
    return multiprocessing.get_context("fork" if method == "fork" else "spawn")


@pytest.fixture
def start(cleanup: ExitStack) -> Callable[..., Any]:
    """Start a process of any context; it is killed and closed after the test."""

    def start(ctx: Any, target: Callable[..., object], *args: Any, **options: Any) -> Any:
        process = ctx.Process(target=target, args=args, **options)
        process.start()
        cleanup.callback(end, process)
        return process

    def end(process: Any) -> None:
        process.kill()
        process.join(DEADLINE)
        process.close()

    return start


@pytest.fixture
def pipe(cleanup: ExitStack) -> Callable[[Any], tuple[Any, Any]]:
    """Make the two ends of a pipe of any context; both are closed after the test."""

    def pipe(ctx: Any) -> tuple[Any, Any]:
        here, there = ctx.Pipe()
        cleanup.callback(here.close)
        cleanup.callback(there.close)
        return here, there

    return pipe


@pytest.fixture
def ask(start: Callable[..., Any], pipe: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a function returns in a child of a context of procession."""

    def ask(ctx: Any, function: Callable[..., object], *args: Any, **options: Any) -> Any:
        here, there = pipe(ctx)
        process = start(ctx, standard.say, there, function, *args, **options)
        assert here.poll(DEADLINE)
        answer = here.recv()
        here.send("go")
        process.join(DEADLINE)
        assert process.exitcode == 0
        return answer

    return ask


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a fresh interpreter, with a deadline that ends its whole family."""

    def run(text: str, *args: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "program.py"
        path.write_text(text)
        process = subprocess.Popen(
            [sys.executable, str(path), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            if sys.platform != "win32":
                os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            pytest.fail(f"the program did not end:\n{output}\n{errors}")
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run
