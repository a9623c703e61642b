"""The documentation is true: every program in it runs and prints what the page says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import zip_longest
from pathlib import Path

import pytest

from procession._choosing import configuration

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "core" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^```(?P<language>[\w{}-]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# A block that begins with its path is a file of the project that its page makes.
PATH = re.compile(r"# (?P<path>[\w./-]+\.(?:py|toml))\n")
SHELL_BUILTINS = {".", "cd", "export"}
EVERY_PLUGIN = {"fork", "spawn", "forkserver", "pipe", "socketpair", "tcp", "cloudpickle"}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page, and what the `text` block right after it says."""

    page: Path
    line: int
    language: str
    text: str
    output: str | None = None

    @property
    def path(self) -> str | None:
        """Where the block belongs in its page's project; None if it is a program of its own."""
        match = PATH.match(self.text)
        return match["path"] if match else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path, text: str) -> list[Block]:
    """Return the fenced blocks of *text* in order."""
    found: list[Block] = []
    matches = list(FENCE.finditer(text))
    for match, after in zip_longest(matches, matches[1:]):
        output = None
        if after and after["language"] == "text" and not text[match.end() : after.start()].strip():
            output = after["text"]
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(page, line, match["language"], match["text"], output))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page, page.read_text(encoding="utf-8"))]


def _in(language: str) -> pytest.MarkDecorator:
    chosen = [block for block in BLOCKS if block.language == language and not block.path]
    return pytest.mark.parametrize("block", chosen, ids=str)


def install(page: Path, folder: Path) -> Path:
    """Put the project that *page* makes into *folder*; return what to put on the path for it.

    Its metadata are written as an installer would, which takes seconds and an index to ask.
    """
    for block in BLOCKS:
        if block.page == page and block.path:
            file = folder / block.path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
    source = folder / "src"
    if (folder / "pyproject.toml").exists():
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        metadata = source / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        lines = []
        for group, entries in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
        (metadata / "entry_points.txt").write_text("\n".join(lines))
    return source


def run(block: Block, folder: Path) -> str:
    """Run *block* as a program, with what its page installs, and return what it printed."""
    program = folder / "program.py"
    program.write_text(block.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(install(block.page, folder))},
        capture_output=True,
        text=True,
        timeout=40,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"it printed:\n{done.stdout}"
    return done.stdout


@_in("python")
def test_programs_run(block: Block, tmp_path: Path) -> None:
    """A reader copies the program into a file and runs it."""
    installed = {
        entry.name
        for group in ("start_methods", "transports", "serializers")
        for entry in entry_points(group=f"procession.{group}")
    }
    if not installed >= EVERY_PLUGIN:
        pytest.skip(f"the pages speak of every plugin; missing: {EVERY_PLUGIN - installed}")
    output = run(block, tmp_path)
    if block.output is not None:
        assert output == block.output


def test_a_page_with_a_project_uses_it() -> None:
    """Nobody runs the files of a project but the program that uses what they make."""
    pages = {block.page for block in BLOCKS if block.path}
    programs = {block.page for block in BLOCKS if block.language == "python" and not block.path}
    assert pages
    assert pages <= programs


@_in("toml")
def test_settings_are_toml(block: Block) -> None:
    """A reader copies the table into a pyproject.toml, where nothing else may be spelled wrong."""
    table = tomllib.loads(block.text)["tool"]["procession"]
    assert set(table) <= {*configuration._ALL_KEYS}


@_in("sh")
def test_commands_exist(block: Block) -> None:
    """A reader pastes the line into a shell: its programs, files and subcommands are there."""
    for command in re.split(r"&&|\n", block.text.strip()):
        program, *arguments = shlex.split(command)
        where = f"{Path(sys.executable).parent}"
        if program not in SHELL_BUILTINS:
            found = shutil.which(program, path=where) or shutil.which(program)
            if program == "tox" and not found:
                continue  # the tests may run inside tox, which does not install itself
            assert found, program
        if "-r" in arguments:
            assert (ROOT / arguments[arguments.index("-r") + 1]).is_file()
        if program == "procession" and arguments:
            subprocess.run([str(found), *arguments, "--help"], check=True, capture_output=True)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """What we run and what we tell readers to run are the same steps."""
    (line,) = (
        b.text for b in BLOCKS if b.page.name == "README.md" and b.text.endswith("tox -p auto\n")
    )
    script = [text.split() for text in (ROOT / ".ci" / "run").read_text().splitlines()]
    for step in line.strip().split(" && "):
        assert any(set(step.split()) <= set(words) for words in script), step


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Pages move; the links to them should move as well."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_blocks_are_found_with_their_output() -> None:
    """A pattern that finds nothing would let every page pass."""
    text = "a\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\nb\n\n```python\npass\n```\n"
    first, _, second = blocks_of(ROOT / "x.md", text)
    assert (first.line, first.text, first.output) == (4, "print(1)\n", "1\n")
    assert (second.language, second.output) == ("python", None)
    assert len([block for block in BLOCKS if block.language == "python"]) >= 8
