"""Somebody else's plugin works: built, installed beside core, and used from outside.

`tox -e sample` builds the wheels and names their folder in PROCESSION_WHEELHOUSE.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "procession-niced"
WHEELHOUSE = os.environ.get("PROCESSION_WHEELHOUSE")

pytestmark = [
    pytest.mark.skipif(WHEELHOUSE is None, reason="nothing is built: run `tox -e sample`"),
    pytest.mark.timeout(180),  # installs from the package index
]

PROGRAM = """\
import os

import procession


def answer(connection):
    connection.send(os.getppid())
    connection.close()


if __name__ == "__main__":
    assert "site-packages" in procession.__file__, procession.__file__
    with procession.use(start_method="niced"):
        ours, theirs = procession.Pipe()
        process = procession.Process(target=answer, args=(theirs,))
        process.start()
        assert ours.recv() == os.getpid()
        process.join(30)
        assert process.exitcode == 0, process
    print("niced" in procession.get_all_start_methods())
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder far from the repository, with an environment that has only what was built.

    The wheels are core, the example, and what the example asks for by name: the start method it
    is made of, and a transport for its tests.
    """
    folder = tmp_path_factory.mktemp("outside")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    names = ("procession", "procession_niced", "procession_spawn", "procession_pipe")
    wheels = [path for name in names for path in Path(WHEELHOUSE or "").glob(f"{name}-[0-9]*.whl")]
    assert len(wheels) == len(names)
    _python(
        folder, "-m", "pip", "install", "--quiet", *map(str, wheels), "pytest", "pytest-timeout"
    )
    return folder


def _python(folder: Path, *arguments: str) -> str:
    """Run the outside interpreter there, without what this run has in its environment."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PROCESSION_", "PYTHON", "PYTEST_"))
    }
    python = folder / "venv" / "bin" / "python"
    done = subprocess.run(
        [python, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_program_uses_it_by_name(outside: Path) -> None:
    """The user's view: install, choose, run."""
    (outside / "program.py").write_text(PROGRAM)
    assert _python(outside, "-W", "error", "program.py") == "True\n"


def test_a_copy_of_its_folder_passes_its_own_tests(outside: Path) -> None:
    """The author's view: nothing in the plugin needs this repository around it."""
    shutil.copytree(EXAMPLE / "tests", outside / "tests")
    _python(outside, "-m", "pytest", "-W", "error", "--import-mode=importlib", "tests")


def test_the_index_would_accept_it() -> None:
    """Twine renders the README and checks the metadata as the index does."""
    (wheel,) = Path(WHEELHOUSE or "").glob("procession_niced-*.whl")
    subprocess.run(
        [sys.executable, "-m", "twine", "--no-color", "check", "--strict", wheel], check=True
    )
