"""Measuring in interpreters that have loaded nothing but what is measured.

They run with `python -c`, so that nothing is imported but what the interpreter itself needs: our
own modules have json, subprocess and more loaded already, which would be a present to the
libraries that import them, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contenders import Contender
    from subject import Effort, Figure

#: Their current folder, where they find `payloads`.
BENCH = Path(__file__).resolve().parent


def context_arguments(contender: Contender) -> str:
    """Return the arguments of `get_context`, as source."""
    arguments = repr(contender.method)
    if contender.transport is not None:
        arguments += f", transport={contender.transport!r}"
    return arguments


def figures(source: str, figures: tuple[Figure, ...], effort: Effort) -> Mapping[str, float]:
    """Return the medians of *figures*, which *source* prints as a list behind that word."""
    _numbers(source)  # compiles and caches what is not yet
    runs = [_numbers(source) for _ in range(effort.of(7, 1))]
    return {
        figure.name: median(column)
        for figure, column in zip(figures, zip(*runs, strict=True), strict=True)
    }


def _numbers(source: str) -> list[float]:
    """Run *source* in a fresh interpreter and return the numbers it printed."""
    # The runner's time limit kills our whole session, these interpreters included.
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=BENCH, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    numbers: list[float] = json.loads(done.stdout.rpartition("figures")[2])
    return numbers
