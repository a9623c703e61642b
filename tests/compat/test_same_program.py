"""One program, run on multiprocessing and on procession: nobody can tell the difference.

Each file in ``programs`` is a typical multiprocessing program; its first argument is the package
that it imports and its second the start method. Output and exit status must be equal to the letter;
of what is printed to stderr, the frames inside either library are left out (see `_normalised`).
"""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEADLINE = 40.0
PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))


def _run(package: str, program: Path, method: str, transport: str) -> tuple[int, str, str]:
    environment = {**os.environ, "PROCESSION_TRANSPORT": transport}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(program), package, method],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        if sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        pytest.fail(f"{program.name} did not end on {package}:\n{output}\n{errors}")
    return process.returncode, output, _normalised(errors)


@functools.cache
def _reference(program: Path, method: str) -> tuple[int, str, str]:
    return _run("multiprocessing", program, method, "")


_FRAME = re.compile(
    r'^ *[|+ -]*  File "[^"\n]*/(?:multiprocessing|procession|procession_\w+)/[^"\n]*".*\n'
    r"(?:^[ |]{4,}(?!File ).*\n)*",
    re.MULTILINE,
)


def _normalised(errors: str) -> str:
    """Leave out the frames of the library, and what differs with the run."""
    return re.sub(r"0x[0-9a-f]+", "0x...", _FRAME.sub("", errors))


def test_frames_of_the_program_are_compared() -> None:
    """The normalisation removes frames of the libraries and nothing else."""
    text = (
        "Process bob:\nTraceback (most recent call last):\n"
        '  File "/usr/lib/python3/multiprocessing/process.py", line 314, in _bootstrap\n'
        "    self.run()\n"
        '  File "/home/program.py", line 3, in work\n    1 / 0\n    ~~^~~\n'
        "ZeroDivisionError: division by zero\n"
    )

    assert (
        "Process bob:\nTraceback (most recent call last):\n"
        '  File "/home/program.py", line 3, in work\n    1 / 0\n    ~~^~~\n'
        "ZeroDivisionError: division by zero\n"
    ) == _normalised(text)


each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)


@each_program
@pytest.mark.one_pair_per("method")
def test_same_on_every_method(program: Path, pair: Any, subject: str) -> None:
    """Exit status, output and errors are those of multiprocessing."""
    _compare(program, pair, subject)


@pytest.mark.once
@each_program
@pytest.mark.one_pair_per("transport")
def test_same_on_every_transport(program: Path, pair: Any, subject: str) -> None:
    """However messages travel, exit status, output and errors are those of multiprocessing."""
    _compare(program, pair, subject)


def _compare(program: Path, pair: Any, subject: str) -> None:
    expected = _reference(program, pair.method)

    assert expected == _run(subject, program, pair.method, pair.transport)
    assert 0 == expected[0]
