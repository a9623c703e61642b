"""What ``procession new`` writes works for whoever has only core: installed, tested, checked.

`tox -e sample` builds the wheels and names their folder in PROCESSION_WHEELHOUSE.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WHEELHOUSE = os.environ.get("PROCESSION_WHEELHOUSE")

pytestmark = [
    pytest.mark.skipif(WHEELHOUSE is None, reason="nothing is built: run `tox -e sample`"),
    pytest.mark.timeout(300),  # installs from the package index, and runs the whole kit
]


def _run(folder: Path, *command: str) -> str:
    """Run a program of the outside environment there, with nothing of this run's own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PROCESSION_", "PYTHON", "PYTEST_"))
    }
    done = subprocess.run(
        [str(folder / "venv" / "bin" / command[0]), *command[1:]],
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("noun", ["start-method", "transport"])
def test_a_new_project_is_a_plugin(tmp_path: Path, noun: str) -> None:
    """Core, the project, its tests, and the whole kit from the outside."""
    (core,) = Path(WHEELHOUSE or "").glob("procession-[0-9]*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    _run(tmp_path, "pip", "install", "--quiet", f"{core}[cli,testing]")

    _run(tmp_path, "procession", "new", noun, "my-own")
    project = tmp_path / "procession-my-own"
    _run(tmp_path, "pip", "install", "--quiet", f"{project}[testing]")

    _run(tmp_path, "pytest", "-q", str(project))
    said = _run(tmp_path, "procession", "check", "my-own", "--report", "report.md")
    assert ", 0 not kept" in said
    assert "not tested: pairs" in said
    assert "# Conformance of `my-own`" in (tmp_path / "report.md").read_text()
