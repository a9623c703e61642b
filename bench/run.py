"""Measure procession side by side with the standard library: `python bench/run.py`.

Nothing is measured in this process, and no child of a contender imports it: `measure.py` is
the main module of every measurement. Nor is anything heavy imported at the top here, so that
`--help` and mistakes on the command line answer at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rich.console import Console

    from schedule import Run

ROUNDS, QUICK_ROUNDS = 5, 2
TIME_LIMIT = 120.0
PLAIN_WIDTH = 132
RESULTS = Path(__file__).resolve().parent / "results"

#: Exit statuses: all was measured; something could not be; the command line made no sense.
FINE, FAILED, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what *arguments* ask for, print the tables, write JSON and plot; return the status."""
    options = _parser().parse_args(arguments)
    if sys.platform != "linux":
        return _refuse("the benchmarks read /proc and run on Linux only")

    from rich.console import Console

    import schedule
    from contenders import LIBRARIES

    for library in options.candidate:
        if library not in LIBRARIES:
            return _refuse(f"unknown library {library!r}; known are {', '.join(LIBRARIES)}")
    try:
        cases = schedule.select(options.only)
        comparisons = schedule.compare(cases, options.candidate, options.every_pair)
    except KeyError as error:
        return _refuse(error.args[0])
    except ImportError as error:
        return _refuse(f"{error}; --candidate multiprocessing measures the harness against itself")
    _allow_bytecode()
    run = schedule.Run(comparisons, options.quick, options.time_limit)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    # A file or a pipe has no width, and rich's guess of 80 is too narrow for the tables.
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    begin = _describe(options.candidate)
    _run(run, rounds)
    return _report(run, begin, options, rounds, console)


def _allow_bytecode() -> None:
    """Let every interpreter of the measurements keep compiled modules, from now on.

    The standard library is installed with its bytecode, and so is any wheel; sources that
    are compiled anew by each interpreter (an editable install under
    PYTHONDONTWRITEBYTECODE) would be measured instead of what users have.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _run(run: Run, rounds: int) -> None:
    """Make *rounds* rounds, with a progress bar on standard error; Ctrl-C ends them early."""
    from rich.console import Console
    from rich.progress import Progress

    from schedule import Measurement

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=rounds * len(run.comparisons))

        def tell(measurement: Measurement) -> None:
            label = f"{measurement.subject}/{measurement.case}, {measurement.contender.label}"
            progress.update(task, advance=1, description=label)

        try:
            for number in range(rounds):
                run.round(number, tell)
        except KeyboardInterrupt:
            progress.console.print("interrupted: this is what was measured until now")


def _report(
    run: Run,
    circumstances: dict[str, object],
    options: argparse.Namespace,
    rounds: int,
    console: Console,
) -> int:
    import plot
    import table
    from results import Results

    results = Results(
        circumstances=circumstances,
        options={
            "only": options.only,
            "rounds": rounds,
            "quick": options.quick,
            "candidates": options.candidate,
            "every_pair": options.every_pair,
        },
        rows=run.rows(),
        failures=run.failures,
    )
    table.show(results, console)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "results.json"
    results.write(path)
    for written in [path, *plot.draw(results, options.output / "ratios")]:
        console.print(f"wrote {written}", highlight=False, soft_wrap=True)
    return FAILED if results.failures else FINE


def _describe(libraries: Sequence[str]) -> dict[str, object]:
    import machine

    return dict(machine.describe(libraries))


def _refuse(message: str) -> int:
    print(f"bench: {message}", file=sys.stderr)
    return USAGE


def _parser() -> argparse.ArgumentParser:
    import argparse

    parser = argparse.ArgumentParser(
        prog="bench/run.py",
        description="Measure procession side by side with the standard library.",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="subjects, or the beginning of cases: queues, 'queues/latency', connections/numpy",
    )
    parser.add_argument(
        "--rounds", type=_positive, metavar="N", help=f"rounds to make (default: {ROUNDS})"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"little work and {QUICK_ROUNDS} rounds: shows that it runs, not how fast",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help="folder for results.json, ratios.png and ratios.svg (default: bench/results)",
    )
    parser.add_argument(
        "--candidate",
        nargs="+",
        default=["procession"],
        metavar="LIBRARY",
        help="what to compare with multiprocessing (default: procession); multiprocessing itself "
        "shows how much of a ratio is noise",
    )
    parser.add_argument(
        "--every-pair",
        action="store_true",
        help="measure each case on every start method x transport, not only where it matters",
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=TIME_LIMIT,
        metavar="SECONDS",
        help=f"for one measurement, before it counts as failed (default: {TIME_LIMIT:g})",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
