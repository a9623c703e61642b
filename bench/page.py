"""Make the documentation's page on benchmarks from the JSON of a run.

    python bench/page.py bench/results/results.json...

keeps the JSON as ``bench/published.json`` and writes ``docs/explanation/benchmarks.md`` and
``benchmarks.svg`` from it. A run with other libraries than procession becomes
``bench/published-peers.json`` and ``docs/explanation/peers.md``. A test checks that they agree.
Several runs, each of other cases, become one: with the date of the first, and the highest load when
one began.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import peers_page
import subjects
from results import FORMAT
from table import number

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "bench" / "published.json"
PAGE = ROOT / "docs" / "explanation" / "benchmarks.md"
PICTURE = PAGE.with_suffix(".svg")
PEERS_PUBLISHED = ROOT / "bench" / "published-peers.json"
PEERS_PAGE = ROOT / "docs" / "explanation" / "peers.md"

SIDES = ("baseline", "candidate")

# Of the picture, in pixels.
LABELS, PLOT, MARGIN, LINE, HEAD = 420, 360, 20, 18, 40
TICKS = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


TEXT = """\
# Benchmarks

<!-- Written by bench/page.py from bench/published.json. -->

`bench/` measures procession side by side with the standard library's `multiprocessing`,
by turns in one run. `bench/README.md` says how, and how to do so again.

| | |
| --- | --- |
| date | {date:.10} |
| versions | procession {versions[procession]}, {versions[python]}, NumPy {versions[numpy]} |
| processor | {machine[cores]} cores, {machine[processor]}, {machine[architecture]} |
| system | {machine[system]} {machine[kernel]} |
| load when it began | {machine[load_average_at_begin][0]} |
| rounds | {options[rounds]} |
| measured | {measured} |

## How much to believe

Each figure is the median of the rounds; behind a ratio are the lowest and the highest.
Ratios are taken round by round, so that what disturbs the machine disturbs both sides.

On a quiet machine ratios are good to about 20 %, and absolute figures to a factor of two.
Where the load was higher than the number of cores, something else was running all the time,
and ratios of times are good to a factor of two: look at the range.
Memory and numbers of processes do not depend on the load.

![How many times better than multiprocessing each figure is](benchmarks.svg)

Each dot is a median, and its line goes from the worst round to the best.
Right of 1 procession is better, left of it the standard library. The scale is logarithmic.
"""


def page(run: dict[str, Any]) -> str:
    """Return the page, in Markdown, about *run*."""
    head = TEXT.format(**run, measured=", ".join(run["options"]["only"] or ["everything"]))
    return "\n".join([head, *_tables(run["rows"]), *_failures(run["failures"])])


def _tables(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    for subject, group in groupby(rows, key=lambda row: row["subject"]):
        yield f"## {subjects.load(subject).title}\n"
        yield "| case | figure | on | multiprocessing | procession | ratio (range) | goal |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        for row in group:
            cells = [
                row["case"],
                row["figure"],
                _on(row),
                *(f"{number(row[side]['median'])} {row['unit']}".strip() for side in SIDES),
                _range(row["ratio"]),
                _goal(row),
            ]
            yield f"| {' | '.join(cells)} |"
        yield ""


def _on(row: dict[str, Any]) -> str:
    return ", ".join(filter(None, (row["candidate"]["method"], row["candidate"]["transport"])))


def _range(ratio: dict[str, Any]) -> str:
    """Return the median ratio, and the lowest and the highest; null is infinity."""
    middle, lowest, highest = (
        number(math.inf if ratio[key] is None else ratio[key])
        for key in ("median", "lowest", "highest")
    )
    return middle if lowest == highest else f"{middle} ({lowest} to {highest})"


def _goal(row: dict[str, Any]) -> str:
    goal = row["goal"]
    if goal is None:
        return ""
    bound = f"{goal['bound']:g} {'x' if goal['of'] == 'ratio' else row['unit']}".strip()
    return f"{goal['side']} {bound}: {'reached' if goal['is_reached'] else 'not reached'}"


def _failures(failures: Sequence[dict[str, Any]]) -> Iterator[str]:
    if failures:
        yield "## What could not be measured\n"
        for failure in failures:
            yield f"* {failure['subject']}/{failure['case']}: {failure['reason']}"
        yield ""


def picture(rows: Sequence[dict[str, Any]]) -> str:
    """Return a plot of *rows*, as SVG: how many times better each figure is, and its range.

    Figures that are zero on a side have no ratio that a logarithmic scale could show.
    """
    shown = [row for row in rows if row["ratio"]["lowest"] and row["ratio"]["highest"]]
    lowest = min(min(_gain(row)) for row in shown) / 1.2
    highest = max(max(_gain(row)) for row in shown) * 1.2

    def x(gain: float) -> float:
        return LABELS + PLOT * math.log(gain / lowest) / math.log(highest / lowest)

    height = HEAD + LINE * len(shown) + MARGIN
    width = LABELS + PLOT + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" font-family="sans-serif" font-size="12">',
        "  <title>How many times better than multiprocessing each figure is</title>",
        f'  <rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for tick in TICKS:
        if lowest <= tick <= highest:
            colour = "#111" if tick == 1 else "#ddd"
            parts.append(
                f'  <path d="M{x(tick):.1f} {HEAD - 10} V{height - MARGIN}" stroke="{colour}"/>'
            )
            parts.append(
                f'  <text x="{x(tick):.1f}" y="{HEAD - 16}" text-anchor="middle">{tick:g}</text>'
            )
    for index, row in enumerate(shown):
        y = HEAD + LINE * index + LINE // 2
        low, middle, high = _gain(row)
        label = escape(f"{row['case']}, {row['figure']} [{_on(row)}]")
        parts += [
            f'  <text x="{LABELS - 10}" y="{y + 4}" text-anchor="end">{label}</text>',
            f'  <path d="M{x(low):.1f} {y} H{x(high):.1f}" stroke="#1f6f8b" stroke-width="2"/>',
            f'  <circle cx="{x(middle):.1f}" cy="{y}" r="4" fill="#1f6f8b"/>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _gain(row: dict[str, Any]) -> tuple[float, float, float]:
    """Return how many times better *row* is: in the worst round, the median, in the best."""
    ratio = row["ratio"]
    if row["better"] == "more":
        return ratio["lowest"], ratio["median"], ratio["highest"]
    return 1 / ratio["highest"], 1 / ratio["median"], 1 / ratio["lowest"]


def joined(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one run that has the rows of all. `ValueError` if one has a case of another's."""
    first, *others = sorted(runs, key=lambda run: str(run["date"]))
    if not others:
        return first
    cases: set[tuple[str, str]] = set()
    for run in runs:
        measured = {(row["subject"], row["case"]) for row in run["rows"]}
        if twice := cases & measured:
            raise ValueError(f"{'/'.join(min(twice))} was measured by two of the runs")
        cases |= measured
    machine = first["machine"]
    for run in others:
        for name in machine.keys() - {"load_average_at_begin"}:
            if run["machine"].get(name) != machine[name]:
                raise ValueError(f"the runs were made on machines with another {name}")
        for name in first["versions"].keys() & run["versions"].keys():
            if run["versions"][name] != first["versions"][name]:
                raise ValueError(f"the runs are of two versions of {name}")
    whole = dict(first)
    whole["versions"] = {name: v for run in runs for name, v in run["versions"].items()}
    loads = [run["machine"]["load_average_at_begin"] for run in runs]
    whole["machine"] = {
        **machine,
        "load_average_at_begin": max(loads, key=lambda load: float(load[0])),
    }
    options = [run["options"] for run in runs]
    whole["options"] = {
        **first["options"],
        "only": [name for each in options for name in each["only"]],
        "rounds": _rounds([row for run in runs for row in run["rows"]]),
        "candidates": list(dict.fromkeys(name for each in options for name in each["candidates"])),
    }
    for key in ("rows", "failures"):
        whole[key] = [item for run in runs for item in run[key]]
    whole["rows"].sort(key=lambda row: subjects.NAMES.index(row["subject"]))
    return whole


def _rounds(rows: Sequence[dict[str, Any]]) -> str:
    """Return how many rounds there were: a run that was ended early has fewer of some rows."""
    counts = [len(row["ratio"]["rounds"]) for row in rows]
    least, most = min(counts), max(counts)
    return str(most) if least == most else f"{least} to {most}"


def main(arguments: Sequence[str]) -> int:
    """Publish the runs whose JSON is named; return the exit status."""
    if not arguments:
        print("usage: python bench/page.py RESULTS.json...", file=sys.stderr)
        return 2
    runs = []
    for argument in arguments:
        try:
            text = Path(argument).read_text(encoding="utf-8")
            run = json.loads(text)
        except (OSError, ValueError) as error:
            print(f"page.py: cannot read {argument}: {error}", file=sys.stderr)
            return 2
        if not isinstance(run, dict) or run.get("format") != FORMAT:
            print(f"page.py: {argument} is no result of bench/run.py", file=sys.stderr)
            return 2
        runs.append(run)
    if len(runs) > 1:
        try:
            run = joined(runs)
        except ValueError as error:
            print(f"page.py: {error}", file=sys.stderr)
            return 2
        text = json.dumps(run, indent=2) + "\n"
    if run["options"]["candidates"] != ["procession"]:
        PEERS_PUBLISHED.write_text(text, encoding="utf-8")
        PEERS_PAGE.write_text(peers_page.page(run), encoding="utf-8")
        return 0
    PUBLISHED.write_text(text, encoding="utf-8")
    PAGE.write_text(page(run), encoding="utf-8")
    PICTURE.write_text(picture(run["rows"]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
