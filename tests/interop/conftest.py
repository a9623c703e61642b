"""The libraries that these tests run on procession, and which of them are installed.

They are not among what the other tests need: `tox -e interop` installs them. Where one is not
installed, its tests are not collected, unless ``PROCESSION_INTEROP`` names it: then they fail.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

import procession

DEADLINE = 40.0

#: The names of those that must be there.
REQUIRED = os.environ.get("PROCESSION_INTEROP", "").split(",")

collect_ignore = [
    path.name
    for path in Path(__file__).parent.glob("test_*.py")
    if (name := path.stem.removeprefix("test_")) not in REQUIRED
    and importlib.util.find_spec(name) is None
]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Check that no child is left behind. The libraries keep threads and files, and may."""
    yield
    for child in procession.active_children():
        child.join(DEADLINE)
    assert [] == procession.active_children()


class Served:
    """A program that serves, and who answers."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def ask(self, until: Callable[[set[int]], bool]) -> set[int]:
        """Ask until enough workers have answered; return their numbers."""
        deadline = time.monotonic() + DEADLINE
        workers: set[int] = set()
        while not until(workers):
            assert time.monotonic() < deadline, f"only {workers} have answered"
            try:
                with urlopen(f"http://127.0.0.1:{self.port}/", timeout=5) as response:
                    number, name = response.read().decode().split()
            except OSError:
                continue  # nobody serves yet, or who did was killed
            assert "Process-" in name
            workers.add(int(number))
        return workers

    def stop(self) -> tuple[int, str]:
        """Stop it as an administrator does; return its exit code and what it has printed."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, errors


@pytest.fixture
def serve(pair: Any, tmp_path: Path) -> Iterator[Callable[[str], Served]]:
    """Run a program, which prints the port that it serves at, on the start method of the pair."""
    started: list[subprocess.Popen[str]] = []

    def serve(text: str) -> Served:
        path = tmp_path / "program.py"
        path.write_text(text)
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(path), pair.method, pair.transport],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        return Served(process, int(process.stdout.readline()))

    yield serve
    for process in started:
        if process.poll() is None and sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
