"""The configuration file: which one, and what may be in it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from procession._choosing.configuration import ConfigurationReader, Settings
from procession.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

TABLE = '[tool.procession]\nstart-method = "spawn"\ntransport = "pipe"\n'


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def read(named: str | None = None) -> Settings | None:
    return ConfigurationReader().read(named)


def test_reads_the_table(project: Path) -> None:
    """Both keys of the documented table."""
    (project / "pyproject.toml").write_text(TABLE)

    settings = read()

    assert settings is not None
    assert str(project / "pyproject.toml") == settings.file
    assert {"start_method": "spawn", "transport": "pipe"} == settings.names


def test_nearest_file_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is started below its project finds the project's file."""
    (project / "pyproject.toml").write_text(TABLE)
    (project / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(project / "a" / "b")

    settings = read()

    assert settings is not None
    assert "spawn" == settings.names["start_method"]


def test_nearest_file_counts_without_a_table(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project of its own is not ruled by what lies above it."""
    (project / "pyproject.toml").write_text(TABLE)
    inner = project / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text("[project]\nname = 'inner'\n")
    monkeypatch.chdir(inner)

    settings = read()

    assert settings is not None
    assert {} == settings.names


def test_somebody_elses_broken_file_is_not_ours(project: Path) -> None:
    """A pyproject.toml that does not speak of us may be as wrong as it likes."""
    (project / "pyproject.toml").write_text("this is = not = toml")

    settings = read()

    assert settings is not None
    assert {} == settings.names


@pytest.mark.parametrize(
    "text",
    [
        "[tool.procession]\ntransport = 'x'",
        "[ tool . 'procession' ]\ntransport = 'x'",
        '["tool"."procession"]\ntransport = "x"',
        "[tool]\nprocession = {transport = 'x'}",
        "[tool]\nother = 1\nprocession.transport = 'x'",
        "[ 'tool' ]\n[tool.other]\n[tool.procession]\ntransport = 'x'",
        "tool.procession.transport = 'x'",
        "'tool' . procession = {transport = 'x'}",
        "tool = { other = 1, procession = { transport = 'x' } }",
    ],
)
def test_every_way_of_writing_the_table(project: Path, text: str) -> None:
    """A table that could be overlooked would be a choice that is silently not made."""
    (project / "pyproject.toml").write_text(text)

    settings = read()

    assert settings is not None
    assert {"transport": "x"} == settings.names


def test_a_mention_is_no_table(project: Path) -> None:
    """To depend on procession is common, and parsing the file takes as long as a process."""
    text = '[project]\ndependencies = ["procession"]\n[tool.ruff]\nsrc = ["procession"]\n'
    (project / "pyproject.toml").write_text(text)
    program = (
        "import sys; from procession._choosing.configuration import ConfigurationReader\n"
        "assert {} == ConfigurationReader().read().names\n"
        "sys.exit('tomllib' in sys.modules)"
    )

    assert 0 == subprocess.run([sys.executable, "-c", program], timeout=30).returncode


def test_current_directory_is_gone(project: Path) -> None:
    """A process whose directory was removed starts children all the same."""
    project.rmdir()

    assert read() is None


def test_named_file(project: Path) -> None:
    """The named file counts instead of the nearest, with the table or with bare keys."""
    (project / "pyproject.toml").write_text(TABLE)
    (project / "table.toml").write_text('[tool.procession]\ntransport = "ring"\n')
    (project / "bare.toml").write_text('transport = "tcp"\n')

    table, bare = read("table.toml"), read("bare.toml")

    assert table is not None
    assert {"transport": "ring"} == table.names
    assert bare is not None
    assert {"transport": "tcp"} == bare.names
    assert str(project / "bare.toml") == bare.file


def test_named_file_is_missing() -> None:
    """Somebody wanted that file: going on without it would be a guess."""
    with pytest.raises(ConfigurationError, match=r"PROCESSION_CONFIG names.*No such file"):
        read("nowhere.toml")


@pytest.mark.parametrize(
    ("text", "complaint", "key"),
    [
        ("[tool.procession\n", "is not valid TOML", None),
        ("[tool.procession] # \udcff", "is not valid TOML", None),
        (
            "[tool.procession]\nstart_method = 'fork'\n",
            "unknown key tool.procession.start_method in .*; did you mean start-method.; allowed",
            "start_method",
        ),
        (
            "[tool.procession]\nworkers = 4\n",
            "unknown key .*workers in [^;]*; allowed are start-method, .*, serializer, plugins, "
            "silence, recv-limit, lease-budget and ring-size",
            "workers",
        ),
        (
            "[tool.procession]\nsilence = 2\n",
            "tool.procession.silence in .* must be a number, 3 or more, not 2",
            "silence",
        ),
        (
            "[tool.procession]\nrecv-limit = '1 MB'\n",
            "tool.procession.recv-limit in .* must be a number, 1 or more, not '1 MB'",
            "recv-limit",
        ),
        (
            "[tool.procession]\ntransport = 4\n",
            "tool.procession.transport in .* must be a name in quotes, not 4",
            "transport",
        ),
        ("[tool.procession]\ntransport = ''\n", "must be a name in quotes, not ''", "transport"),
        ("[tool]\nprocession = 'fork'\n", "must be a table with the keys", "tool.procession"),
    ],
)
def test_wrong_contents(project: Path, text: str, complaint: str, key: str | None) -> None:
    """The message names the file, the key and what is allowed."""
    path = project / "pyproject.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(ConfigurationError, match=complaint) as caught:
        read()

    assert str(path) in str(caught.value)
    assert (str(path), key) == (caught.value.file, caught.value.key)


def test_named_file_with_foreign_keys(project: Path) -> None:
    """At the top level of a file of ours, everything has to be ours."""
    (project / "ours.toml").write_text("[tool.ruff]\n")

    with pytest.raises(ConfigurationError, match="unknown key tool in"):
        read("ours.toml")


def test_reads_again_only_what_has_changed(project: Path) -> None:
    """Each queue asks; the answer is kept until path, time or size differ."""
    path = project / "pyproject.toml"
    path.write_text(TABLE)
    reader = ConfigurationReader()

    first = reader.read()
    assert first is reader.read()
    path.write_text(TABLE.replace("spawn", "other"))
    os.utime(path, ns=(1, 1))
    second = reader.read()

    assert second is not None
    assert "other" == second.names["start_method"]
