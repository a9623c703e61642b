"""Which measurements a run makes, and making them: A B A B ..., each in a fresh process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import subjects
from contenders import LIBRARIES, Contender, contenders_for
from results import Failure, Row

if TYPE_CHECKING:
    from subject import Case, Subject

MEASURE = Path(__file__).resolve().parent / "measure.py"


@dataclass(frozen=True)
class Comparison:
    """One case on one pair of contenders."""

    subject: Subject
    case: Case
    baseline: Contender
    candidate: Contender


@dataclass(frozen=True)
class Measurement:
    """One case with one contender: what one fresh process does."""

    subject: str
    case: str
    contender: Contender


class MeasurementError(Exception):
    """A measurement's process failed or took too long; the message is for people."""


def select(names: Sequence[str]) -> list[tuple[Subject, Case]]:
    """Return the cases called for by *names*: `queues`, or `queues/latency`; all if empty.

    A case is also called for by how its name begins, `connections/numpy`, unless that is the whole
    name of another. A name that calls for nothing is a `KeyError` with a message for people.
    """
    everything = [
        (subject, case) for subject in map(subjects.load, subjects.NAMES) for case in subject.cases
    ]
    for name in names:
        if not any(_calls_for(name, *pair) for pair in everything):
            known = ", ".join(f"{subject.name}/{case.name}" for subject, case in everything)
            raise KeyError(f"there is no benchmark {name!r}; there are {known}")
    return [
        pair for pair in everything if not names or any(_calls_for(name, *pair) for name in names)
    ]


def _calls_for(name: str, subject: Subject, case: Case) -> bool:
    wanted_subject, _, wanted_case = name.partition("/")
    if wanted_subject != subject.name:
        return False
    if any(each.name == wanted_case for each in subject.cases):
        return case.name == wanted_case
    return case.name.startswith(wanted_case)


def compare(
    cases: Sequence[tuple[Subject, Case]], libraries: Sequence[str], every_pair: bool
) -> list[Comparison]:
    """Return every comparison to make of *libraries* with the baseline."""
    return [
        Comparison(subject, case, baseline, candidate)
        for subject, case in cases
        for library in libraries
        if LIBRARIES[library].takes_part(f"{subject.name}/{case.name}")
        for baseline, candidate in contenders_for(library, case.varies, every_pair)
    ]


@dataclass
class Run:
    """Rounds of measurements. Whatever was measured is there at any time, also after Ctrl-C."""

    comparisons: Sequence[Comparison]
    quick: bool
    time_limit: float
    failures: list[Failure] = field(default_factory=list)
    #: For each comparison, (baseline, candidate) of each figure, round by round.
    _numbers: dict[Comparison, list[tuple[Mapping[str, float], Mapping[str, float]]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def round(self, number: int, tell: Callable[[Measurement], None]) -> None:
        """Make every comparison once; *tell* is called after each.

        Within a round, candidates of one case that share a baseline share its measurement too,
        so long as they come one after the other.
        """
        latest: tuple[Measurement, Mapping[str, float] | None] | None = None
        for comparison in self.comparisons:
            baseline = self._measurement(comparison, comparison.baseline)
            if latest is None or latest[0] != baseline:
                latest = baseline, self._try(baseline, number)
            candidate = self._measurement(comparison, comparison.candidate)
            mine, theirs = self._try(candidate, number), latest[1]
            if mine is not None and theirs is not None:
                self._numbers[comparison].append((theirs, mine))
            tell(candidate)

    def rows(self) -> list[Row]:
        """Return a row for each figure that was measured at least once."""
        return [
            Row(
                subject=comparison.subject.name,
                case=comparison.case.name,
                figure=figure,
                baseline=comparison.baseline,
                candidate=comparison.candidate,
                baseline_numbers=[theirs[figure.name] for theirs, _ in rounds],
                candidate_numbers=[mine[figure.name] for _, mine in rounds],
            )
            for comparison in self.comparisons
            if (rounds := self._numbers.get(comparison))
            for figure in comparison.case.figures
        ]

    def _measurement(self, comparison: Comparison, contender: Contender) -> Measurement:
        return Measurement(comparison.subject.name, comparison.case.name, contender)

    def _try(self, measurement: Measurement, number: int) -> Mapping[str, float] | None:
        """Measure; note a failure and go on: who cannot do one thing may do others."""
        try:
            return measure(measurement, quick=self.quick, time_limit=self.time_limit)
        except MeasurementError as error:
            self.failures.append(
                Failure(
                    measurement.subject,
                    measurement.case,
                    measurement.contender,
                    number,
                    str(error),
                )
            )
            return None


def measure(measurement: Measurement, *, quick: bool, time_limit: float) -> Mapping[str, float]:
    """Measure in a fresh process and return the figures by name.

    Raises `MeasurementError` when the process fails, or when it or anything it started (a helper
    that keeps standard error open) is still there after *time_limit* seconds. Then, and when we
    are interrupted, all of them are killed: they have a session of their own.
    """
    command = [
        sys.executable,
        str(MEASURE),
        measurement.subject,
        measurement.case,
        measurement.contender.to_text(),
        *(["quick"] if quick else []),
    ]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=time_limit)
        except subprocess.TimeoutExpired:
            _kill_group(process.pid)
            raise MeasurementError(f"had not ended after {time_limit:g} s") from None
        except BaseException:
            _kill_group(process.pid)
            raise
    if process.returncode != 0:
        raise MeasurementError(_reason(process.returncode, errors))
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


def _kill_group(leader: int) -> None:
    """Kill the process group of *leader*, if there is anybody left in it."""
    if sys.platform != "win32":  # which run.py refuses: this is for type checkers
        try:
            os.killpg(leader, signal.SIGKILL)
        except ProcessLookupError:
            return  # Ctrl-C was for it, too, and it has ended already


def _reason(status: int, errors: str) -> str:
    """Return why a measurement failed: its last words, where a traceback has the exception."""
    return errors.strip().rpartition("\n")[2] or f"ended with status {status} and said nothing"
