"""The benchmarks run from one end to the other. No figure is ever asserted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.once

RUN = Path(__file__).resolve().parents[2] / "bench" / "run.py"

for library in ("matplotlib", "numpy", "rich"):
    pytest.importorskip(library)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks with *arguments*."""
    return subprocess.run(
        [sys.executable, str(RUN), *arguments], capture_output=True, text=True, timeout=120
    )


def test_harness_runs_end_to_end(tmp_path: Path) -> None:
    """A quick run of one subject, library against itself, gives table, JSON and plots."""
    done = bench(
        "--quick",
        "--only",
        "start/small",
        "--candidate",
        "multiprocessing",
        "--output",
        tmp_path.as_posix(),
    )

    assert done.returncode == 0, done.stderr
    assert "Starting a process" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["failures"] == []
    assert {"python", "numpy", "procession"} <= results["versions"].keys()
    measured = {(row["figure"], row["candidate"]["method"]) for row in results["rows"]}
    assert ("first instruction", "spawn") in measured
    assert all(len(row["ratio"]["rounds"]) == 2 for row in results["rows"])
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "ratios.svg").read_text(encoding="utf-8")


def test_failed_measurement_is_reported(tmp_path: Path) -> None:
    """A measurement that hangs is killed, named, and makes the exit status 1."""
    done = bench(
        *("--quick", "--rounds", "1", "--only", "memory/idle", "--candidate", "multiprocessing"),
        *("--time-limit", "0.01", "--output", tmp_path.as_posix()),
    )

    assert done.returncode == 1
    assert "had not ended after 0.01 s" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["rows"] == []
    assert {"memory"} == {failure["subject"] for failure in results["failures"]}


def test_libraries_of_other_shapes_take_part(tmp_path: Path) -> None:
    """An executor is measured as a pool, and a library only in what it can do."""
    done = bench(
        *("--quick", "--rounds", "1", "--only", "pools/round", "queues/latency"),
        *("--candidate", "concurrent.futures", "--output", tmp_path.as_posix()),
    )

    assert done.returncode == 0, done.stderr + done.stdout
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [(row["case"], row["goal"]) for row in results["rows"]] == [("round trip", None)]


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--candidate", "nobody"]])
def test_unknown_name_is_refused_in_one_line(arguments: list[str]) -> None:
    """A name that nobody knows costs one line and exit status 2, not a traceback."""
    done = bench(*arguments)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert arguments[1] in done.stderr


def test_the_published_figures_are_those_of_a_run(tmp_path: Path) -> None:
    """Page and picture are written by a program: nobody has made a figure nicer by hand."""
    root = RUN.parents[1]
    names = ["bench/published.json", "docs/explanation/benchmarks.md"]
    names += ["docs/explanation/benchmarks.svg", "bench/published-peers.json"]
    names.append("docs/explanation/peers.md")
    copy = tmp_path / "bench"
    shutil.copytree(RUN.parent, copy, ignore=shutil.ignore_patterns("results", "__pycache__"))
    (tmp_path / "docs" / "explanation").mkdir(parents=True)
    for name in ("published.json", "published-peers.json"):
        subprocess.run([sys.executable, copy / "page.py", copy / name], check=True)

    for name in names:
        assert (tmp_path / name).read_text() == (root / name).read_text(), name


def test_runs_of_several_cases_become_one(tmp_path: Path) -> None:
    """Nothing is lost or counted twice, and the worst of what was around is told."""
    copy = tmp_path / "bench"
    shutil.copytree(RUN.parent, copy, ignore=shutil.ignore_patterns("results", "__pycache__"))
    (tmp_path / "docs" / "explanation").mkdir(parents=True)
    whole = json.loads((copy / "published-peers.json").read_text())
    cases = sorted({(row["subject"], row["case"]) for row in whole["rows"]})
    files = []
    for number, load in enumerate(("0.50", "10.25", "2.00")):
        part = {
            **whole,
            "date": f"2026-01-0{3 - number}T00:00:00+00:00",
            "machine": {**whole["machine"], "load_average_at_begin": [load] * 3},
            "rows": [
                row
                for row in whole["rows"]
                if cases.index((row["subject"], row["case"])) % 3 == number
            ],
        }
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(part))

    subprocess.run([sys.executable, copy / "page.py", *files], check=True)
    made = json.loads((copy / "published-peers.json").read_text())
    assert made["date"].startswith("2026-01-01")
    assert made["machine"]["load_average_at_begin"][0] == "10.25"

    def key(row: Any) -> tuple[str, ...]:
        return row["subject"], row["case"], row["figure"], json.dumps(row["candidate"])

    assert sorted(made["rows"], key=key) == sorted(whole["rows"], key=key)

    again = [sys.executable, str(copy / "page.py"), str(files[0]), str(files[0])]
    done = subprocess.run(again, capture_output=True, text=True)
    assert done.returncode == 2
    assert "measured by two" in done.stderr


def test_what_is_no_result_is_not_published(tmp_path: Path) -> None:
    """The page that is there stays as it is."""
    path = tmp_path / "results.json"
    page = RUN.with_name("page.py")
    for text in (None, "{", "[]", '{"format": 0}'):
        if text is not None:
            path.write_text(text)
        done = subprocess.run([sys.executable, page, path], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith("page.py: ")
        assert done.stderr.count("\n") == 1
