"""Somebody else's plugins work: built, installed beside core, and used from outside.

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
EXAMPLES = ("niced", "bubblewrap", "subinterpreter")
#: Why one of them cannot be tried, on whatever machine.
REFUSED = {"subinterpreter": "Python 3.14 has it"} if sys.version_info < (3, 14) else {}
#: What the kit has to be told of a plugin, as its README says.
SETTINGS = {"bubblewrap": {"PROCESSION_BUBBLEWRAP_NETWORK": "1"}}
WHEELHOUSE = os.environ.get("PROCESSION_WHEELHOUSE")

pytestmark = [
    pytest.mark.skipif(WHEELHOUSE is None, reason="nothing is built: run `tox -e sample`"),
    pytest.mark.timeout(300),  # installs from the package index
]

PROGRAM = """\
import os
import sys

import procession


def answer(connection):
    connection.send(os.getpid())
    connection.close()


if __name__ == "__main__":
    assert "site-packages" in procession.__file__, procession.__file__
    name = sys.argv[1]
    if name not in procession.get_all_start_methods():
        try:
            procession.get_context(name)
        except procession.errors.PluginUnavailableError as error:
            print(error)
            raise SystemExit(0)
    with procession.use(start_method=name):
        ours, theirs = procession.Pipe()
        process = procession.Process(target=answer, args=(theirs,))
        process.start()
        assert ours.recv() in (process.pid, os.getpid())
        process.join(30)
        assert process.exitcode == 0, process
    print("it works")
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder far from the repository, with an environment that has only what was built.

    The wheels are core, the examples, and what these ask for by name: the start method that one
    is made of, and a transport for their tests. One environment for all, which take a minute.
    """
    folder = tmp_path_factory.mktemp("outside")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    names = ["procession", "procession_spawn", "procession_pipe"]
    names += [f"procession_{name}" for name in EXAMPLES]
    wheels = [path for name in names for path in Path(WHEELHOUSE or "").glob(f"{name}-[0-9]*.whl")]
    assert len(wheels) == len(names)
    needed = ["pytest", "pytest-timeout", "psutil", "click", "rich"]  # the kit's, the command's
    _python(folder, "-m", "pip", "install", "--quiet", *map(str, wheels), *needed)
    return folder


def _run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the outside interpreter there, without what this run has in its environment."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PROCESSION_", "PYTHON", "PYTEST_"))
    }
    return subprocess.run(
        [folder / "venv" / "bin" / "python", *arguments],
        cwd=folder,
        env={**kept, **variables},
        capture_output=True,
        text=True,
    )


def _python(folder: Path, *arguments: str, **variables: str) -> str:
    done = _run(folder, *arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_program_uses_it_by_name(outside: Path, name: str) -> None:
    """The user's view: install, choose, run; where it cannot work it says why."""
    (outside / "program.py").write_text(PROGRAM)
    said = _python(outside, "-W", "error", "program.py", name)
    if name in REFUSED:
        assert f"'{name}'" in said
        assert REFUSED[name] in said
        return
    if "cannot work here: " in said:
        pytest.skip(f"NOT TRIED: {said}")
    assert said == "it works\n"


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_copy_of_its_folder_passes_its_own_tests(outside: Path, name: str) -> None:
    """The author's view: nothing in the plugin needs this repository around it."""
    tests = shutil.copytree(ROOT / "examples" / f"procession-{name}" / "tests", outside / name)
    said = _python(
        outside, "-m", "pytest", "-W", "error", "--import-mode=importlib", "-rs", str(tests)
    )
    print(said[said.find("short test summary") :])  # what was skipped, and why


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_kit_accepts_it(outside: Path, name: str) -> None:
    """Also what it is not used for by its own tests: connections through connections, say."""
    done = _run(
        outside, "-m", "procession", "check", name, "--only", "through or name_leads",
        "--with", "pipe", **SETTINGS.get(name, {}),
    )  # fmt: skip
    said = done.stdout + done.stderr
    if name in REFUSED:
        assert done.returncode == 2, said
        assert REFUSED[name] in said
        return
    if "cannot work here: " in said:
        pytest.skip(f"NOT TRIED: {said}")
    assert done.returncode == 0, said
    assert ", 0 not kept" in said


def test_the_index_would_accept_them() -> None:
    """Twine renders the READMEs and checks the metadata as the index does."""
    wheels = [*Path(WHEELHOUSE or "").glob("procession_*-1.0.0-*.whl")]
    assert len(wheels) == len(EXAMPLES)
    subprocess.run(
        [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *wheels], check=True
    )
