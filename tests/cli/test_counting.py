"""What the demo counts, in this process."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest

from procession._commands.demo.counting import Tally, peak_memory
from procession._commands.demo.indexing import index_alone
from procession._commands.demo.sources import find_sources

COUNTS = {"alpha": 4, "beta": 1, "gamma": 2, "café": 1}


def test_identifiers_are_counted_and_keywords_are_not(tree: Path) -> None:
    """The counts are of NAME tokens without keywords, in each file's own encoding."""
    assert index_alone(find_sources(str(tree)), lambda tally: None).tally.counts == COUNTS


def test_what_cannot_be_read_is_reported_and_contributes_nothing(tree: Path) -> None:
    """No file is lost silently: each one is counted, or is among the failures with a reason."""
    sources = find_sources(str(tree))
    tally = index_alone(sources, lambda tally: None).tally
    reasons = {sources.relative(path): reason for path, reason in tally.failures.items()}

    assert sorted(reasons) == [f"package/bad_{what}.py" for what in ("bytes", "codec", "end")]
    assert reasons["package/bad_codec.py"] == "unknown encoding: klingon"
    assert all(reasons.values())
    assert tally.files == 7
    assert list(map(sources.relative, sources.skipped)) == ["package/dangling.py"]


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes are something else there")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Opening a FIFO that nobody writes to would hang the whole run."""
    if sys.platform == "win32":  # for the type checker
        return
    os.mkfifo(tmp_path / "fifo.py")
    sources = find_sources(str(tmp_path))

    assert sources.paths == ()
    assert list(sources.skipped.values()) == ["not a regular file"]


def test_packages_of_others_are_left_out_of_the_standard_library(tmp_path: Path) -> None:
    """``site-packages`` is below the standard library and no part of it."""
    for name in ("json", "site-packages"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").touch()

    found = find_sources(str(tmp_path), installed_packages=False)

    assert [found.relative(path) for path in found.paths] == [os.path.join("json", "module.py")]
    assert len(find_sources(str(tmp_path)).paths) == 2


def test_batches_are_small_and_complete(tmp_path: Path) -> None:
    """Every file is in one batch; large files come first, and alone."""
    for number in range(40):
        (tmp_path / f"small{number}.py").write_text("x\n")
    (tmp_path / "large.py").write_text("x\n" * 100_000)
    sources = find_sources(str(tmp_path))
    batches = list(sources.batches())

    assert [path for batch in batches for path in batch] == list(sources.paths)
    assert batches[0] == [str(tmp_path / "large.py")]
    assert max(map(len, batches)) == 16


def test_tallies_add_up_and_travel(tree: Path) -> None:
    """The sum of the parts, each sent through a pickle, equals the whole."""
    paths = find_sources(str(tree)).paths
    whole, parts = Tally(), Tally()
    whole.read(paths)
    for path in paths:
        part = Tally()
        part.read([path])
        parts.add(pickle.loads(pickle.dumps(part)))

    assert parts == whole
    assert Tally() != whole


@pytest.mark.skipif(sys.platform == "win32", reason="cannot be asked for there")
def test_the_peak_of_memory_is_this_process_s_own() -> None:
    """An interpreter needs some megabytes; the number is in bytes."""
    peak = peak_memory()

    assert peak is not None
    assert 5e6 < peak < 1e11
