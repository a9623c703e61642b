"""What a run found: rows of figures, their ratios, and the JSON that keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from goals import Goal, goal_for

if TYPE_CHECKING:
    from pathlib import Path

    from contenders import Contender
    from subject import Figure

#: Raised when the meaning of the JSON changes.
FORMAT = 1


@dataclass(frozen=True)
class Spread:
    """Numbers of several rounds, in a nutshell."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        """Return the spread of *numbers*, of which there is at least one."""
        return cls(median(numbers), min(numbers), max(numbers))


@dataclass(frozen=True)
class Row:
    """One figure of one case, of a candidate and of the baseline in the same rounds."""

    subject: str
    case: str
    figure: Figure
    baseline: Contender
    candidate: Contender
    #: One number for each round in which both were measured, in order.
    baseline_numbers: Sequence[float]
    candidate_numbers: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Candidate to baseline, round by round: what disturbs both sides cancels out."""
        return [
            _ratio(mine, theirs)
            for mine, theirs in zip(self.candidate_numbers, self.baseline_numbers, strict=True)
        ]

    @property
    def ratio(self) -> Spread:
        """The spread of `ratios`."""
        return Spread.of(self.ratios)

    @property
    def gain(self) -> Spread:
        """How many times better the candidate is, whichever way is better; 1 is parity."""
        if self.figure.better == "more":
            return self.ratio
        return Spread.of([_ratio(1.0, ratio) for ratio in self.ratios])

    @property
    def goal(self) -> Goal | None:
        """What is to be reached, if anything: by procession, others have goals of their own."""
        if self.candidate.library != "procession":
            return None
        return goal_for(
            self.subject,
            self.case,
            self.figure.name,
            self.candidate.method,
            self.candidate.transport,
        )

    @property
    def is_reached(self) -> bool | None:
        """Whether the goal is reached, by the medians; None without a goal."""
        if self.goal is None:
            return None
        return self.goal.is_reached(self.ratio.median, median(self.candidate_numbers))

    def to_json(self) -> Mapping[str, object]:
        """Return the row as values that JSON knows."""
        goal = self.goal
        return {
            "subject": self.subject,
            "case": self.case,
            "figure": self.figure.name,
            "unit": self.figure.unit,
            "better": self.figure.better,
            "baseline": _numbers_to_json(self.baseline, self.baseline_numbers),
            "candidate": _numbers_to_json(self.candidate, self.candidate_numbers),
            "ratio": {**_spread_to_json(self.ratio), "rounds": list(map(_finite, self.ratios))},
            "goal": None
            if goal is None
            else {
                "of": goal.of,
                "side": goal.side,
                "bound": goal.bound,
                "is_reached": self.is_reached,
            },
        }


@dataclass(frozen=True)
class Failure:
    """A measurement that yielded nothing."""

    subject: str
    case: str
    contender: Contender
    round: int
    reason: str

    def to_json(self) -> Mapping[str, object]:
        """Return the failure as values that JSON knows."""
        return asdict(self)


@dataclass(frozen=True)
class Results:
    """Everything that one run found."""

    #: Versions, machine and date, as `machine.describe` gives them.
    circumstances: Mapping[str, object]
    #: What was asked for: rounds, quick, ...
    options: Mapping[str, object]
    rows: Sequence[Row]
    failures: Sequence[Failure] = field(default=())

    def write(self, path: Path) -> None:
        """Write the results as JSON to *path*."""
        document = {
            "format": FORMAT,
            **self.circumstances,
            "options": self.options,
            "rows": [row.to_json() for row in self.rows],
            "failures": [failure.to_json() for failure in self.failures],
        }
        path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _ratio(numerator: float, denominator: float) -> float:
    """Return the ratio; counts may be zero: nothing to nothing is parity."""
    if denominator:
        return numerator / denominator
    return 1.0 if numerator == 0 else float("inf")


def _finite(number: float) -> float | None:
    """Return *number*, or None for infinity, which JSON does not know."""
    return None if number == float("inf") else number


def _spread_to_json(spread: Spread) -> Mapping[str, float | None]:
    return {name: _finite(number) for name, number in asdict(spread).items()}


def _numbers_to_json(contender: Contender, numbers: Sequence[float]) -> Mapping[str, object]:
    return {
        **asdict(contender),
        **_spread_to_json(Spread.of(numbers)),
        "rounds": list(numbers),
    }
