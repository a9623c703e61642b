"""The documentation's page on other libraries, from the JSON of a run with several candidates.

`page.py` writes it. Each figure of procession is set against the best of all others in the same
rounds, the standard library being one of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import Any

import subjects
from contenders import LIBRARIES
from table import number

TEXT = """\
# Other libraries

<!-- Written by bench/page.py from bench/published-peers.json. -->

procession side by side with other libraries and with the standard library, by turns in one run.
`bench/README.md` says how, and how to do so again; `bench/peers` has what each of them was asked
to do. [The page on the standard library](benchmarks.md) says how much to believe.

| | |
| --- | --- |
| date | {date:.10} |
| versions | {versions} |
| processor | {machine[cores]} cores, {machine[processor]}, {machine[architecture]} |
| system | {machine[system]} {machine[kernel]} |
| load when it began | {machine[load_average_at_begin][0]} |
| rounds | {options[rounds]} |
| measured | {measured} |

A ratio is procession's figure to that of the best of the others, round by round: the median, and
the lowest and the highest. Above 1 procession is better for rates, below 1 for times.

iceoryx2 hands out an array where it lies in the sender's memory. Pipes hand out one that is the
receiver's own, and so do procession's connections, unless they lend.
"""


@dataclass(frozen=True)
class Measured:
    """One library's numbers for a figure, round by round."""

    label: str
    numbers: Sequence[float]


def page(run: Mapping[str, Any]) -> str:
    """Return the page, in Markdown, about *run*."""
    versions = ", ".join(
        f"{name} {version}"
        for name, version in run["versions"].items()
        if not name.startswith("procession-")
    )
    measured = ", ".join(run["options"]["only"] or ["everything"])
    head = TEXT.format(**{**run, "versions": versions, "measured": measured})
    return "\n".join([head, *_tables(run["rows"]), *_failures(run["failures"])])


def _tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for subject, group in groupby(rows, key=lambda row: row["subject"]):
        yield f"## {subjects.load(subject).title}\n"
        yield "| case | figure | on | procession | best other | ratio (range) | all others |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        yield from _lines(list(group))
        yield ""


def _failures(failures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not failures:
        return
    yield "## What could not be measured\n"
    for case, library, reason in sorted(
        {
            (f"{each['subject']}/{each['case']}", each["contender"]["library"], each["reason"])
            for each in failures
        }
    ):
        yield f"* {case} on {library}: {reason}"
    yield ""


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each figure of procession that somebody else has, too."""
    others: dict[tuple[str, str], dict[str, Measured]] = defaultdict(dict)
    for row in rows:
        for side in ("baseline", "candidate"):
            if row[side]["library"] != "procession":
                other = Measured(_label(row[side]), row[side]["rounds"])
                others[row["case"], row["figure"]].setdefault(other.label, other)
    told: set[tuple[str, str]] = set()
    for row in rows:
        mine = row["candidate"]
        rivals = list(others[row["case"], row["figure"]].values())
        if mine["library"] != "procession" or len({_library(r.label) for r in rivals}) < 2:
            continue
        sign = -1 if row["better"] == "more" else 1
        rivals.sort(key=lambda rival: sign * median(rival.numbers))
        cells = [
            row["case"],
            row["figure"],
            ", ".join(filter(None, (mine["method"], mine["transport"]))),
            f"{number(mine['median'])} {row['unit']}",
            _cell(rivals[0]),
            _range(mine["rounds"], rivals[0].numbers),
            ", ".join(map(_cell, rivals[1:])) if (row["case"], row["figure"]) not in told else "",
        ]
        told.add((row["case"], row["figure"]))
        yield f"| {' | '.join(cells)} |"


def _label(contender: Mapping[str, Any]) -> str:
    """Return a library's name, with the kernel object if it can be compared on several."""
    library, transport = contender["library"], contender["transport"]
    if transport and len(LIBRARIES[library].kernel_objects) > 1:
        return f"{library} ({transport})"
    return str(library)


def _library(label: str) -> str:
    return label.partition(" ")[0]


def _cell(measured: Measured) -> str:
    return f"{measured.label} {number(median(measured.numbers))}"


def _range(mine: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the median of the ratios of the rounds, and the lowest and the highest."""
    ratios = [my / their for my, their in zip(mine, theirs, strict=False)]
    middle, lowest, highest = map(number, (median(ratios), min(ratios), max(ratios)))
    return f"{middle} ({lowest} to {highest})"
