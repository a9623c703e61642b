"""The interpreter's own tests of `concurrent.futures`, with contexts of procession.

The executor is the standard library's. Two minutes for each start method, asked for by
``PROCESSION_CPYTHON`` as well; Python comes with these tests since 3.13.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if not os.environ.get("PROCESSION_CPYTHON"):
    pytest.skip("asked for by PROCESSION_CPYTHON", allow_module_level=True)

DEADLINE = 200.0
NAME = "test_concurrent_futures"
#: Those that make executors of processes.
MODULES = ("as_completed", "deadlock", "init", "process_pool", "shutdown", "wait")
ASKED_FOR = "multiprocessing.get_context(self.ctx)"


def _source() -> Path | None:
    """Return the folder of the tests; None if they were not installed with the interpreter."""
    package = importlib.util.find_spec("test")
    for place in package.submodule_search_locations or () if package is not None else ():
        folder = Path(place) / NAME
        if folder.is_dir():
            return folder
    return None


@pytest.mark.timeout(DEADLINE + 60)
@pytest.mark.parametrize("module", MODULES)
def test_a_context_is_as_good_as_theirs(tmp_path: Path, method: str, module: str) -> None:
    """What programs can rely on with `ProcessPoolExecutor`, they can with our contexts."""
    source = _source()
    if source is None:
        pytest.skip("the interpreter was installed without these tests")
    shutil.copytree(source, tmp_path / NAME, ignore=shutil.ignore_patterns("__pycache__"))
    util = tmp_path / NAME / "util.py"
    text = util.read_text()
    assert ASKED_FOR in text
    ours = f"__import__('procession').{ASKED_FOR.partition('.')[2]}"
    util.write_text(text.replace(ASKED_FOR, ours))
    kind = method.capitalize()
    tests = [sys.executable, "-m", "unittest", f"{NAME}.test_{module}", "-k", f"ProcessPool{kind}"]
    done = subprocess.run(tests, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE)

    assert 0 == done.returncode, done.stderr[-20000:]
    assert "Ran 0 tests" not in done.stderr
