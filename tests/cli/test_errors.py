"""What cannot be done is said in one line on stderr, with exit status 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import procession


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of *result*, having checked that it is one and the status is 2."""
    assert result.stderr.startswith("procession: ")
    assert result.stderr.count("\n") == 1
    assert result.returncode == 2
    return result.stderr


def test_a_path_that_is_not_there(run: Any, tmp_path: Path) -> None:
    """The path is named as it was given."""
    assert "nowhere" in complaint(run("demo", "--path", tmp_path / "nowhere"))


def test_a_path_that_is_a_file(run: Any, tree: Path) -> None:
    """The demo indexes directories."""
    assert "one.py" in complaint(run("demo", "--path", tree / "one.py"))


def test_a_directory_without_sources(run: Any, tmp_path: Path) -> None:
    """A table of nothing would help nobody."""
    (tmp_path / "empty").mkdir()

    assert "there are no .py files below" in complaint(run("demo", "--path", tmp_path / "empty"))


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_a_number_of_workers_that_makes_no_sense(run: Any, tree: Path, number: str) -> None:
    """Somebody must do the work."""
    assert "'--workers'" in complaint(run("demo", "--path", tree, "--workers", number))


@pytest.mark.parametrize("option", ["--start-method", "--transport"])
def test_a_name_that_nobody_has(run: Any, tree: Path, option: str) -> None:
    """The unknown name is repeated; nothing has been run before it is noticed."""
    result = run("demo", "--path", tree, option, "sparn")

    assert "'sparn'" in complaint(result)
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["demo", "plugins"])
def test_no_plugins(environment: dict[str, str], tmp_path: Path, command: str) -> None:
    """Without plugins there is nothing to run or list, and the line says what to install."""
    program = (
        "import sys\n"
        "from procession._choosing import distribution_files as _distribution_files\n"
        "_distribution_files.read_plain = lambda mark: []\n"
        "from procession.cli import main\n"
        f"sys.exit(main([{command!r}]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "pip install procession-" in complaint(result)
    assert result.stdout == ""


def test_an_unknown_command(run: Any) -> None:
    """As for an unknown option: one line."""
    assert "'dance'" in complaint(run("dance"))


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(environment: dict[str, str], missing: str) -> None:
    """Core is installed without click and rich, and the script is there all the same."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from procession.cli import main\n"
        "sys.exit(main(['demo']))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert complaint(result) == (
        "procession: the command line needs the extra 'cli': pip install \"procession[cli]\"\n"
    )


def test_the_version(run: Any) -> None:
    """``--version`` says which one it is."""
    result = run("--version")

    assert (result.stdout, result.returncode) == (f"procession {procession.__version__}\n", 0)


def test_help_lists_the_commands(run: Any) -> None:
    """Without a command, and with --help, the commands are listed."""
    for arguments in ((), ("--help",)):
        result = run(*arguments)

        assert result.returncode == 0
        assert "demo" in result.stdout
        assert "plugins" in result.stdout


def test_the_script_s_module_imports_little(environment: dict[str, str]) -> None:
    """A spawned child imports it again with the main module, and needs neither click nor rich."""
    program = (
        "import sys, procession.cli\n"
        "print([name for name in ('click', 'rich', 'attrs', 'pluggy') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )

    assert result.stdout == "[]\n"
