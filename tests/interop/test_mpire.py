"""mpire: workers that are subclasses of the context's process, made when it is imported.

It has no parameter for a context: a program gives it one under the name of a start method,
before it is imported, in every process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.beyond("it takes the standard package's own contexts"),
    pytest.mark.one_pair_per("method"),
]

DEADLINE = 60.0

HEAD = """\
import multiprocessing
import sys
from unittest import mock

import procession

def context(method):
    return procession.get_context(method, transport=sys.argv[2])

with mock.patch.object(multiprocessing, "get_context", context):
    from mpire import WorkerPool

from procession.testing import clients
"""

MAPS = """
def add(shared, number):
    shared[number] = number * number
    return shared[number]

def is_ours(shared, number):
    return procession.parent_process() is not None

if __name__ == "__main__":
    assert type(multiprocessing.get_context()).__module__ == "multiprocessing.context"
    shared = context(sys.argv[1]).Array("i", 10)
    with WorkerPool(n_jobs=2, start_method=sys.argv[1], shared_objects=shared) as pool:
        print(pool.map(add, range(10), chunk_size=2))
        print(list(shared))
        print(all(pool.map(is_ours, range(4))))
"""

TIMES_OUT = """
if __name__ == "__main__":
    with WorkerPool(n_jobs=1, start_method=sys.argv[1]) as pool:
        try:
            pool.map(clients.hang, [1], task_timeout=0.5)
        except TimeoutError:
            print("timeout")
    with WorkerPool(n_jobs=1, start_method=sys.argv[1]) as pool:
        print(pool.map(clients.square, [3]))
"""


def run(tmp_path: Path, pair: Any, text: str) -> list[str]:
    """Return the lines that a program prints."""
    path = tmp_path / "program.py"
    path.write_text(HEAD + text)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(path), pair.method, pair.transport],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout.splitlines()


def test_it_maps(tmp_path: Path, pair: Any) -> None:
    """With shared objects; the workers are processes of ours.

    What becomes of a task that fails is mpire's own affair: it takes up to 20 seconds then.
    """
    squares = str([number**2 for number in range(10)])
    assert [squares, squares, "True"] == run(tmp_path, pair, MAPS)


def test_what_takes_too_long_is_ended(tmp_path: Path, pair: Any) -> None:
    """It kills its worker, and another pool works."""
    assert ["timeout", "[9]"] == run(tmp_path, pair, TIMES_OUT)
