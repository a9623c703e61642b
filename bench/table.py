"""The results as tables for the terminal."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import subjects
from results import Spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from results import Failure, Results, Row

#: Ratios this near to parity are not coloured: noise does as much.
PARITY = 1.1


def show(results: Results, console: Console) -> None:
    """Print a table for each subject, then what failed and how many goals are reached."""
    for subject, rows in groupby(results.rows, key=lambda row: row.subject):
        console.print(_table(subjects.load(subject).title, list(rows)))
    for line in _failures(results.failures):
        console.print(line, style="red", markup=False, highlight=False)
    goals = [row.is_reached for row in results.rows if row.is_reached is not None]
    if goals:
        console.print(f"{sum(goals)} of {len(goals)} goals reached.")


def _table(title: str, rows: list[Row]) -> Table:
    from rich.table import Table
    from rich.text import Text

    libraries = {row.candidate.library for row in rows}
    # One candidate has its name in the head of its column, several have it in every row.
    candidate = next(iter(libraries)) if len(libraries) == 1 else "candidate"
    table = Table(title=title, title_justify="left", title_style="bold", row_styles=("", "dim"))
    table.add_column("case")
    table.add_column("figure")
    table.add_column("on")
    table.add_column(rows[0].baseline.library, justify="right")
    table.add_column(candidate, justify="right")
    table.add_column("ratio (range)", justify="right")
    table.add_column("goal")
    previous = ""
    for row in rows:
        table.add_row(
            row.case if row.case != previous else "",
            row.figure.name,
            row.candidate.pair if len(libraries) == 1 else row.candidate.label,
            _measured(Spread.of(row.baseline_numbers), row.figure.unit),
            _measured(Spread.of(row.candidate_numbers), row.figure.unit),
            Text(_range(row.ratio), style=_style(row.gain.median)),
            _goal(row),
        )
        previous = row.case
    return table


def _goal(row: Row) -> Text:
    """Return the goal of *row* and whether it is reached, or nothing."""
    from rich.text import Text

    if row.goal is None:
        return Text()
    text = row.goal.to_text(row.figure.unit)
    if row.is_reached:
        return Text(f"{text}, reached", style="green")
    return Text(f"{text}, not reached", style="red")


def _failures(failures: Sequence[Failure]) -> Iterator[str]:
    """Yield a line for each measurement that failed, once for all rounds with one reason."""
    seen: dict[tuple[str, str, str, str], int] = {}
    for failure in failures:
        key = (failure.subject, failure.case, failure.contender.label, failure.reason)
        seen[key] = seen.get(key, 0) + 1
    for (subject, case, contender, reason), times in seen.items():
        yield f"failed, {times} x: {subject}/{case} on {contender}: {reason}"


def _measured(spread: Spread, unit: str) -> str:
    """Return the median, and half the range as a percentage of it."""
    middle = f"{number(spread.median)} {unit}".rstrip()
    if spread.median == 0 or spread.lowest == spread.highest:
        return middle
    return f"{middle} \N{PLUS-MINUS SIGN}{_half_range(spread):.0%}"


def _half_range(spread: Spread) -> float:
    return (spread.highest - spread.lowest) / 2 / spread.median


def _range(spread: Spread) -> str:
    """Return the median with the lowest and the highest."""
    if spread.lowest == spread.highest:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.lowest)}-{number(spread.highest)})"


def number(value: float) -> str:
    """Return *value* with three digits that mean something."""
    if value == float("inf"):
        return "inf"
    if abs(value) >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:#.3g}"


def _style(gain: float) -> str:
    if gain >= PARITY:
        return "green"
    return "red" if gain <= 1 / PARITY else ""
