"""What a program pays before its first job: imports, the first objects, the first answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fresh
from contenders import LIBRARIES
from fresh import context_arguments
from subject import METHOD, NOTHING, Case, Effort, Figure, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contenders import Contender

# See `fresh`. `sys` and `time` are built in.
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
    return fresh.figures(source, READY_FIGURES, effort)


def first_job(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Import the library, start a process, and wait for its answer through a queue."""
    source = FIRST_JOB.format(
        module=LIBRARIES[contender.library].module, arguments=context_arguments(contender)
    )
    return fresh.figures(source, FIRST_JOB_FIGURES, effort)


SUBJECT = Subject(
    name="imports",
    title="Before the first job",
    cases=(
        Case("Process and Queue", READY_FIGURES, process_and_queue, NOTHING),
        Case("first job", FIRST_JOB_FIGURES, first_job, METHOD),
    ),
)
