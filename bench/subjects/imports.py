"""What a program pays before its first job: imports, the first objects, the first answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from contenders import LIBRARIES
from subject import METHOD, NOTHING, Case, Effort, Figure, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contenders import Contender

# Run with `python -c`, so that nothing is imported but what the interpreter itself needs:
# our own modules have json, subprocess and more loaded already, which would be a present to
# the libraries that import them too. `sys` and `time` are built in.
READY = """
import sys, time
clock = time.perf_counter
bare = len(sys.modules)
begin = clock()
import {module} as library
imported = clock()
modules = len(sys.modules) - bare
process = library.Process(target=print)
queue = library.Queue()
ready = clock()
print("figures", [
    (imported - begin) * 1e3, (ready - imported) * 1e3, (ready - begin) * 1e3,
    modules, len(sys.modules) - bare,
])
"""

# `payloads` is in the current folder, which `python -c` has on sys.path.
FIRST_JOB = """
import time
begin = time.perf_counter()
import {module} as library
import payloads
context = library.get_context({arguments})
answers = context.Queue()
process = context.Process(target=payloads.answer, args=(answers,))
process.start()
answer = answers.get()
process.join()
end = time.perf_counter()
assert answer == (process.pid, "answer"), answer
print("figures", [(end - begin) * 1e3])
"""

#: The folder of `payloads`.
BENCH = Path(__file__).resolve().parent.parent

READY_FIGURES = (
    Figure("import", "ms"),
    Figure("ready after import", "ms"),
    Figure("import and ready", "ms"),
    Figure("modules after import", ""),
    Figure("modules when ready", ""),
)
FIRST_JOB_FIGURES = (Figure("import to first answer", "ms"),)


def process_and_queue(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Import the library and make a Process and a Queue, in fresh interpreters."""
    source = READY.format(module=LIBRARIES[contender.library].module)
    return _run(source, READY_FIGURES, effort)


def first_job(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Import the library, start a process, and wait for its answer through a queue."""
    arguments = repr(contender.method)
    if contender.transport is not None:
        arguments += f", transport={contender.transport!r}"
    source = FIRST_JOB.format(module=LIBRARIES[contender.library].module, arguments=arguments)
    return _run(source, FIRST_JOB_FIGURES, effort)


def _run(source: str, figures: tuple[Figure, ...], effort: Effort) -> Mapping[str, float]:
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


SUBJECT = Subject(
    name="imports",
    title="Before the first job",
    cases=(
        Case("Process and Queue", READY_FIGURES, process_and_queue, NOTHING),
        Case("first job", FIRST_JOB_FIGURES, first_job, METHOD),
    ),
)
