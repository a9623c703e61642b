"""How these tests run the command line: as its users do, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment() -> dict[str, str]:
    """An environment in which nothing is chosen and output is wide and plain."""
    chosen = ("PROCESSION_", "FORCE_COLOR", "TTY_", "CLICOLOR")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(chosen)}
    return {**kept, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    """A function that runs ``python -m procession`` with arguments and returns the result."""

    def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "procession", *map(str, arguments)],
            env={**environment, **variables},
            cwd=tmp_path,  # no configuration of this repository
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small source tree with every kind of file that is not simply counted."""
    root = tmp_path / "tree"
    package = root / "package"
    package.mkdir(parents=True)
    (root / "one.py").write_text("alpha = beta = alpha\n")
    (package / "two.py").write_text("def alpha(gamma):\n    return gamma or None\n")
    (package / "empty.py").write_bytes(b"")
    (package / "latin.py").write_bytes("# coding: latin-1\ncafé = alpha\n".encode("latin-1"))
    (package / "bad_codec.py").write_text("# coding: klingon\nalpha = 1\n")
    (package / "bad_bytes.py").write_bytes(b"alpha = '\xff\xfe'\n")
    (package / "bad_end.py").write_text("alpha = (beta,\n")
    (package / "dangling.py").symlink_to(root / "nowhere.py")
    (package / "notes.txt").write_text("alpha alpha alpha\n")
    return root
