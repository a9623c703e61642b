"""Pools: short tasks one at a time, one call there and back, the first result, arrays."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Any

import fresh
import payloads
from contenders import LIBRARIES
from fresh import context_arguments
from subject import TRANSPORT, Case, Effort, Figure, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contenders import Contender

# See `fresh`.
FIRST_RESULT = """
import sys, time
clock = time.perf_counter
import {module} as library
context = library.get_context({arguments})

def to_first_result():
    begin = clock()
    with context.Pool({workers}) as pool:
        pool.apply(abs, (1,))
        return (clock() - begin) * 1e3

if __name__ == "__main__":
    first = to_first_result()
    later = sorted(to_first_result() for _ in range({later}))
    print("figures", [first, later[len(later) // 2]])
"""
FIRST_RESULT_FIGURES = (Figure("first result", "ms"), Figure("first result of another pool", "ms"))

MIB = 1 << 20
_WORKERS = 2
#: Tasks of this many round trips and arrays are made before anything is timed.
_WARMING = 200


def _pool(contender: Contender) -> Any:  # pools of several libraries
    """Return a pool that has done some work."""
    pool = contender.context().Pool(_WORKERS)
    pool.map(abs, range(_WARMING), chunksize=1)
    return pool


def tasks(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Have short tasks done, each of them a task of its own."""
    count = effort.of(20_000, 500)
    with _pool(contender) as pool:
        begin = time.perf_counter()
        for _ in pool.imap_unordered(abs, range(count)):
            pass
        unordered = time.perf_counter()
        for result in [pool.apply_async(abs, (number,)) for number in range(count)]:
            result.get()
        end = time.perf_counter()
    return {
        "imap_unordered": count / (unordered - begin) / 1e3,
        "apply_async": count / (end - unordered) / 1e3,
    }


def round_trip(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Make one call at a time."""
    times = []
    with _pool(contender) as pool:
        for _ in range(effort.of(2_000, 50)):
            begin = time.perf_counter()
            pool.apply(abs, (1,))
            times.append(time.perf_counter() - begin)
    return {"apply": median(times) * 1e6}


def first_result(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Make a pool and have one call made by it; then do so again in the same process.

    In interpreters that have loaded nothing but the library and its context, which is not in the
    figures; the first pool also loads what the library's pools consist of, on both sides.
    """
    source = FIRST_RESULT.format(
        module=LIBRARIES[contender.library].module,
        arguments=context_arguments(contender),
        workers=_WORKERS,
        later=effort.of(5, 1),
    )
    return fresh.figures(source, FIRST_RESULT_FIGURES, effort)


def arrays(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Give arrays of 32 MiB to tasks, and take such arrays from them.

    Some go each way before anything is timed: memory that was never touched takes longer to get
    than all that is measured here, and what is lent to this machine has to be fetched first, too.
    """
    import numpy

    count = effort.of(16, 2)
    array = numpy.ones(4 * MIB)
    with _pool(contender) as pool:
        pool.map(payloads.length_of, [array] * payloads.WARMING, chunksize=1)
        pool.map(payloads.array_of, [len(array)] * payloads.WARMING, chunksize=1)
        begin = time.perf_counter()
        for _ in pool.imap_unordered(payloads.length_of, [array] * count):
            pass
        given = time.perf_counter()
        for _ in pool.imap_unordered(payloads.array_of, [len(array)] * count):
            pass
        end = time.perf_counter()
    moved = count * array.nbytes / 1e9
    return {"arguments": moved / (given - begin), "results": moved / (end - given)}


SUBJECT = Subject(
    name="pools",
    title="Pools of two workers",
    cases=(
        Case(
            "short tasks",
            (Figure("imap_unordered", "k/s", "more"), Figure("apply_async", "k/s", "more")),
            tasks,
            TRANSPORT,
        ),
        Case("round trip", (Figure("apply", "us"),), round_trip, TRANSPORT),
        Case(
            "first result",
            FIRST_RESULT_FIGURES,
            first_result,
            TRANSPORT,
        ),
        Case(
            "numpy 32 MiB",
            (Figure("arguments", "GB/s", "more"), Figure("results", "GB/s", "more")),
            arrays,
            TRANSPORT,
        ),
    ),
)
