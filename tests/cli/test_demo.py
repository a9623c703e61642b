"""``procession demo``, on a small tree and on a part of the standard library."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import procession
from procession._commands.demo import classics
from procession._commands.demo.counting import Tally
from procession._commands.demo.indexing import index, index_alone
from procession._commands.demo.listening import ChildFailedError
from procession._commands.demo.sources import find_sources

pytestmark = pytest.mark.once

STDLIB = Path(sysconfig.get_path("stdlib"))
ESCAPE = "\x1b"


@pytest.fixture
def context() -> Any:  # multiprocessing's would do as well
    """One pair, the one that is selected."""
    return procession.get_context(
        procession.get_all_start_methods()[0], transport=procession.get_all_transports()[0]
    )


def test_children_find_what_one_process_finds(context: Any, tree: Path) -> None:
    """The main job's result does not depend on how many processes do it."""
    sources = find_sources(str(tree))
    alone = index_alone(sources, lambda tally: None)
    together = index(context, sources, 3, lambda tally: None)

    assert together.tally == alone.tally
    assert together.startup is not None
    assert 0 < together.startup <= together.elapsed
    assert together.peak is None or together.peak > 0


def test_a_child_that_dies_ends_the_run(context: Any, tree: Path) -> None:
    """A worker that is killed is named, with its signal; nobody waits for its answer."""

    def kill_one(tally: Tally) -> None:
        for child in procession.active_children():
            child.kill()
            break

    with pytest.raises(ChildFailedError, match=r"'indexer-\d' \(pid \d+\) was ended by SIGKILL"):
        index(context, find_sources(str(tree)), 2, kill_one)

    assert procession.active_children() == []


def test_an_interrupt_ends_the_children(context: Any, tree: Path) -> None:
    """Whatever the run is left by, its children have ended when it is left."""

    def interrupt(tally: Tally) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(context, find_sources(str(tree)), 2, interrupt)

    assert procession.active_children() == []


def test_the_classics_answer(context: Any) -> None:
    """What a child sends through a queue and through a pipe arrives as it was."""
    assert classics.through_queue(context) == [42, None, "hello"]
    assert classics.through_pipe(context) == [42, None, "hello"]


def test_every_pair_runs_and_agrees(run: Any, tree: Path) -> None:
    """By default all pairs run, the classics first, and the proof comes last."""
    result = run("demo", "--path", tree, "--workers", "2")
    pairs = [
        f"{method} + {transport}"
        for method in procession.get_all_start_methods()
        for transport in procession.get_all_transports()
    ]

    assert (result.stderr, result.returncode) == ("", 0)
    for pair in pairs:
        classic = rf"  {re.escape(pair)} +hello bob( +\[42, None, 'hello'\]){{2}}\n"
        assert re.search(classic, result.stdout)
        assert re.search(rf"  {re.escape(pair)} +[\d.,]+ m?s +[\d,]+ .*[\d.]+x", result.stdout)
    assert re.search(r"pairs? and the single process found the same", result.stdout)
    assert "8 uses of 4 identifiers" in result.stdout
    assert "bad_codec.py: unknown encoding: klingon" in result.stdout


def test_no_escapes_and_no_bars_where_there_is_no_terminal(run: Any, tree: Path) -> None:
    """In a log of a CI system everything is plain text that fits into its width."""
    result = run("demo", "--path", tree, "--workers", "1", COLUMNS="80")

    assert ESCAPE not in result.stdout
    assert "\r" not in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= max(88, len(str(tree)))


def test_ascii_is_enough(run: Any, tree: Path) -> None:
    """Where the output can show nothing but ASCII, it is asked for nothing else."""
    result = run("demo", "--path", tree, "--workers", "1", PYTHONIOENCODING="ascii")

    assert result.returncode == 0
    assert result.stdout.isascii()
    assert "caf?" in result.stdout


def test_one_pair_on_a_part_of_the_standard_library(run: Any, tmp_path: Path) -> None:
    """Real input: packages of the standard library, with files that are really there."""
    for package in ("json", "email"):
        (tmp_path / "library").mkdir(exist_ok=True)
        (tmp_path / "library" / package).mkdir()
        for source in (STDLIB / package).glob("*.py"):
            (tmp_path / "library" / package / source.name).write_bytes(source.read_bytes())
    method = procession.get_all_start_methods()[0]
    transport = procession.get_all_transports()[0]
    result = run(
        "demo", "--path", tmp_path / "library", "--start-method", method, "--transport", transport
    )

    assert (result.stderr, result.returncode) == ("", 0)
    assert "The pair and the single process found the same" in result.stdout
    assert "The 20 most used identifiers" in result.stdout
    assert re.search(r"1 +self +[\d,]+", result.stdout)
    assert "Not counted" not in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups there")
def test_ctrl_c_ends_everything_with_one_line(environment: dict[str, str]) -> None:
    """SIGINT to the whole group, as a terminal sends it: one line, status 130, nobody left."""
    if sys.platform == "win32":  # for the type checker
        return
    demo = subprocess.Popen(
        [sys.executable, "-u", "-m", "procession", "demo", "--path", str(STDLIB / "test")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert demo.stdout is not None
    # The single process has done its part: now children are at work.
    while "one process" not in demo.stdout.readline():
        assert demo.poll() is None
    os.killpg(demo.pid, signal.SIGINT)
    _, complaint = demo.communicate()  # ends when nobody has the outputs open any more

    assert (complaint, demo.returncode) == ("procession: interrupted\n", 130)
