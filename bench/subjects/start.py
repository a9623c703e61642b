"""Starting a process: until its first instruction, and until it has ended and been joined."""

from __future__ import annotations

import os
import time
from statistics import median
from typing import TYPE_CHECKING

import payloads
from subject import METHOD, Case, Effort, Figure, Subject, board

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contenders import Contender, Context

#: The heap of the large parent: blocks below malloc's threshold for mapping each on its own.
BLOCK_BYTES = 100_000
HEAP_BYTES = 500_000_000


def small_parent(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Start processes from a parent that holds next to nothing."""
    return _starts(contender, effort)


def large_parent(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Start processes from a parent with a heap of 500 MB, every page of it touched."""
    heap = [bytearray(b"\1") * BLOCK_BYTES for _ in range(HEAP_BYTES // BLOCK_BYTES)]
    figures = _starts(contender, effort)
    del heap  # it had to live until here
    return figures


def _starts(contender: Contender, effort: Effort) -> Mapping[str, float]:
    context = contender.context()
    with board(1) as (path, _):
        cold = _start(context, path)
        warm = [_start(context, path) for _ in range(effort.of(15, 3))]
    return {
        "first instruction": median(first for first, _ in warm),
        "start and join": median(whole for _, whole in warm),
        # The first start also starts what the library needs: fork server, tracker, imports.
        "first instruction, cold": cold[0],
    }


def _start(context: Context, path: str) -> tuple[float, float]:
    """Return milliseconds to the first instruction, and to the end of `join`."""
    begin = time.monotonic_ns()
    process = context.Process(target=payloads.first_instruction, args=(path,), daemon=True)
    process.start()
    process.join()
    end = time.monotonic_ns()
    if process.exitcode != 0:
        raise RuntimeError(f"the child ended with exit code {process.exitcode}")
    with open(path, "rb") as file:
        first = int.from_bytes(file.read(8), "little")
    os.truncate(path, 0)
    if not begin < first < end:
        raise RuntimeError("the child's clock is not ours")
    return (first - begin) / 1e6, (end - begin) / 1e6


FIGURES = (
    Figure("first instruction", "ms"),
    Figure("start and join", "ms"),
    Figure("first instruction, cold", "ms"),
)
SUBJECT = Subject(
    name="start",
    title="Starting a process",
    cases=(
        Case("small parent", FIGURES, small_parent, METHOD),
        Case("500 MB parent", FIGURES, large_parent, METHOD),
    ),
)
