"""What the tests of behaviour share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DEADLINE = 30.0


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
