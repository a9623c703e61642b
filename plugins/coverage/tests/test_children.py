"""Lines that only children run are reported as run, however the children end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import procession

METHODS = procession.get_all_start_methods()
each_method = pytest.mark.parametrize("method", METHODS)
# Each test starts a dozen interpreters, which takes its time on a busy machine.
DEADLINE = 120.0
pytestmark = pytest.mark.timeout(240)

WORK = """\
import os
import signal
import sys
import procession


def returns():
    print("returns")


def raises():
    raise ArithmeticError("raises")


def exits():
    sys.exit("exits")


def is_terminated(connection):
    connection.send("is_terminated")
    connection.recv()


def handles(connection):
    signal.signal(signal.SIGTERM, handle)
    connection.send("handles")
    connection.recv()


def handle(number, frame):
    sys.exit("handled")


def is_stopped(connection):
    connection.send("is_stopped")
    connection.recv()


def has_a_child(method):
    child = procession.get_context(method).Process(target=is_a_grandchild)
    child.start()
    child.join()


def is_a_grandchild():
    print("is_a_grandchild")


def runs_in_nobody():
    print("runs_in_nobody")
"""
PROGRAM = """\
import sys
import procession
import work


def is_in_the_main_module():
    print("is_in_the_main_module")


def calls():
    work.returns()


def main(method, elsewhere, kind):
    ctx = procession.get_context(method)
    if kind == "one":
        process = ctx.Process(target=calls, cwd=elsewhere)
        process.start()
        process.join()
        return
    for target in (work.returns, work.raises, work.exits, is_in_the_main_module):
        process = ctx.Process(target=target, cwd=elsewhere)
        process.start()
        process.join()
    process = ctx.Process(target=work.has_a_child, args=(method,))
    process.start()
    process.join()
    codes = []
    for target in (work.is_terminated, work.handles, work.is_stopped):
        receiver, sender = ctx.Pipe()
        process = ctx.Process(target=target, args=(sender,))
        process.start()
        receiver.recv()
        process.stop() if target is work.is_stopped else process.terminate()
        process.join()
        codes.append(process.exitcode)
    assert codes == [-15, 1, 1], codes


if __name__ == "__main__":
    main(*sys.argv[1:])
"""
# Said in the program, as coverage would otherwise begin in the program, too.
UNMEASURED = """\
import os
os.environ.setdefault("COVERAGE_PROCESS_START", os.path.abspath("settings.ini"))
"""


def coverage(directory: Path, *arguments: str, **variables: str) -> str:
    """Run a command of coverage's; return what it has printed on stderr."""
    environ = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "coverage", *arguments],
        cwd=directory,
        env={**environ, "PROCESSION_PLUGINS": "coverage", **variables},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert 0 == done.returncode, done.stderr
    return done.stderr


def functions_run(directory: Path) -> set[str]:
    """Return the functions whose lines are reported as run, all of them."""
    coverage(directory, "json", "-q")
    report = json.loads((directory / "coverage.json").read_text())
    return {
        name
        for file in report["files"].values()
        for name, function in file["functions"].items()
        if name and not function["missing_lines"]
    }


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of a program, which is measured there."""
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "program.py").write_text(PROGRAM)
    (directory / "work.py").write_text(WORK)
    (tmp_path / "elsewhere").mkdir()
    return directory


EXPECTED = {
    "returns",
    "raises",
    "exits",
    "is_in_the_main_module",
    "handle",
    "has_a_child",
    "is_a_grandchild",
}


@pytest.mark.once
@each_method
def test_every_child_is_measured(directory: Path, method: str) -> None:
    """By any start method, however the child ends; and the data lie where the parent's do."""
    elsewhere = directory.parent / "elsewhere"
    errors = coverage(
        directory, "run", "-p", "--source=.", "program.py", method, str(elsewhere), "all"
    )
    assert "CoverageWarning" not in errors
    files = sorted(path.name for path in directory.glob(".coverage*"))
    # The program, three that end by themselves, one of the main module, two generations, three
    # that are asked to end.
    assert 10 == len(files)
    assert [] == list(elsewhere.iterdir())
    coverage(directory, "combine", "-q")
    found = functions_run(directory)

    # Of those who are ended while they wait, whether the waiting has begun is open.
    assert EXPECTED == found - {"is_terminated", "handles", "is_stopped"}
    report = json.loads((directory / "coverage.json").read_text())
    lines = set(report["files"]["work.py"]["executed_lines"])
    # What comes before a call that never returns was run.
    source = WORK.splitlines()
    for name in ("is_terminated", "handles", "is_stopped"):
        assert source.index(f'    connection.send("{name}")') + 1 in lines


def test_a_parent_with_one_file(directory: Path) -> None:
    """What the README says of a program that is run without --parallel-mode."""
    coverage(directory, "run", "--branch", "--source=.", "program.py", METHODS[0], ".", "one")
    assert (directory / ".coverage").exists()
    coverage(directory, "combine", "-q", "--append")

    assert {"calls", "returns"} == functions_run(directory)


def test_settings_are_the_parent_s(directory: Path) -> None:
    """What is left out there is left out in children."""
    options = ("-p", "--source=.", "--omit=work.py")
    coverage(directory, "run", *options, "program.py", METHODS[0], ".", "one")
    coverage(directory, "combine", "-q")

    assert {"calls"} == functions_run(directory)


@each_method
def test_only_children(directory: Path, method: str) -> None:
    """Coverage's variable asks for child processes; the program itself need not be measured."""
    settings = directory / "settings.ini"
    (directory / "unmeasured.py").write_text(UNMEASURED + PROGRAM)
    settings.write_text("[run]\nparallel = true\nsource = .\n")
    done = subprocess.run(
        [sys.executable, "unmeasured.py", method, str(directory.parent / "elsewhere"), "one"],
        cwd=directory,
        env={**os.environ, "PROCESSION_PLUGINS": "coverage"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert 0 == done.returncode, done.stderr
    assert [] == list((directory.parent / "elsewhere").iterdir())
    coverage(directory, "combine", "-q")

    assert {"calls", "returns"} == functions_run(directory)


def test_off_or_not_measured(directory: Path) -> None:
    """Nobody who does not ask for it has a file."""
    coverage(directory, "run", "-p", "program.py", METHODS[0], ".", "one", PROCESSION_PLUGINS="")
    assert 1 == len(list(directory.glob(".coverage*")))
    subprocess.run(
        [sys.executable, "program.py", METHODS[0], ".", "one"],
        cwd=directory,
        env={**os.environ, "PROCESSION_PLUGINS": "coverage"},
        capture_output=True,
        timeout=DEADLINE,
        check=True,
    )

    assert 1 == len(list(directory.glob(".coverage*")))


SAVING = """
import os, signal
from procession_coverage._child import Measurement

class Coverage:
    def start(self): pass
    def stop(self): pass
    def save(self):
        os.kill(os.getpid(), signal.SIGTERM)
        print("saved", flush=True)

measurement = Measurement(Coverage())
measurement.begin()
measurement.end()
print("went on")
"""


def test_terminated_while_it_saves() -> None:
    """Half a file would be none: first it is saved, and then the signal ends the process."""
    done = subprocess.run(
        [sys.executable, "-c", SAVING], capture_output=True, text=True, timeout=DEADLINE
    )

    assert ("saved\n", -15) == (done.stdout, done.returncode)
