"""``procession new``: the projects that it writes, and what it refuses to write.

That they pass the whole kit, installed beside core alone, is tested in tests/packaging.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from procession._commands.new.project import KINDS, Project

pytestmark = pytest.mark.once

Run = Callable[..., subprocess.CompletedProcess[str]]

NOUNS = [kind.replace("_", "-") for kind in KINDS]
RULES = "E,F,W,I,UP,B,C4,PIE,PT,RUF,SIM"
#: Their own tests, and some of the kit's.
SOME = "test_procession or name_leads or end_comes or exit_statuses"
each_kind = pytest.mark.parametrize("noun", NOUNS)


def installed(folder: Path) -> str:
    """Return what to put on the path for the project in *folder*, with metadata beside it."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / "src" / f"{project['name'].replace('-', '_')}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n"
    )
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return os.pathsep.join([str(folder / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_without_a_kind(run: Run) -> None:
    """It says which there are, as ``procession`` says which commands."""
    done = run("new")

    assert (0, "") == (done.returncode, done.stderr)
    assert all(f"\n  {noun} " in done.stdout for noun in NOUNS)


@each_kind
def test_a_project_works(run: Run, tmp_path: Path, noun: str) -> None:
    """Its own tests pass, and some of the kit's, which takes too long as a whole here."""
    done = run("new", noun, "my-own")
    assert 0 == done.returncode, done.stderr
    folder = tmp_path / "procession-my-own"
    for word in ('[testing]"', "procession check my-own", "src/procession_my_own do what"):
        assert word in done.stdout

    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", SOME],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": installed(folder)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert 0 == tests.returncode, tests.stdout + tests.stderr


@each_kind
def test_a_project_reads_well(run: Run, tmp_path: Path, noun: str) -> None:
    """It has what a plugin's folder needs, no mark is left, and it passes our own linter."""
    assert 0 == run("new", noun, "my-own").returncode
    folder = tmp_path / "procession-my-own"
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}

    assert {
        *("README.md", "pyproject.toml", "tox.ini", ".gitignore"),
        *("src/procession_my_own/hooks.py", "src/procession_my_own/py.typed"),
        *("tests/test_conformance.py", "tests/test_procession_my_own.py"),
    } < files.keys()
    for path in files.values():
        text = path.read_text()
        assert "@" not in text.replace("@hookimpl", "").replace("@class", "").replace(
            "@pytest", ""
        ), path
    for heading in ("## When to use it", "## When not to use it"):
        assert heading in files["README.md"].read_text()
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff:
        checked = [ruff, "check", "--no-cache", "--select", RULES, "--ignore", "SIM105,SIM300", "."]
        subprocess.run(checked, cwd=folder, check=True)
        subprocess.run([ruff, "format", "--no-cache", "--check", "."], cwd=folder, check=True)


@pytest.mark.parametrize("name", ["", "Big", "1st", "a--b", "-a", "a-", "a_b", "a.b", "x" * 41])
def test_what_is_no_name(name: str) -> None:
    """What is allowed is said, with an example."""
    complaint = Project("transport", name).complaint()

    assert "is no name for a plugin" in str(complaint)
    assert "'my-transport'" in str(complaint)


@pytest.mark.parametrize("name", ["channel", "transport", "none", "true"])
def test_names_of_classes_that_would_hide_others(name: str) -> None:
    """The class of a plugin is called as the plugin is."""
    assert f"'my-{name}'" in str(Project("transport", name).complaint())


def test_good_names() -> None:
    """They agree all the way down."""
    for name, kind in (("x", "X"), ("seq-packet-2", "SeqPacket2")):
        project = Project("transport", name)
        assert project.complaint() is None
        assert kind == project.class_name
        assert f"procession_{name.replace('-', '_')}" == project.package


def test_nothing_is_overwritten(run: Run, tmp_path: Path) -> None:
    """Neither a project nor anything else of its name; nothing half-written is left."""
    (tmp_path / "procession-there").symlink_to(tmp_path / "nowhere")
    for noun in NOUNS:
        done = run("new", noun, "there")
        assert 2 == done.returncode
        assert "exists already: nothing was written" in done.stderr
    assert ["procession-there"] == sorted(os.listdir(tmp_path))


def test_names_that_are_taken(run: Run, tmp_path: Path) -> None:
    """Two plugins of one name cannot be used, whatever kinds they are."""
    done = run("new", "transport", "fork")

    assert 2 == done.returncode
    assert "procession itself has the start method 'fork'" in done.stderr
    assert [] == os.listdir(tmp_path)
