"""Memory that a waiting child has to itself, and what the library runs besides it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import payloads
from subject import METHOD, Case, Effort, Figure, Subject, board

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from contenders import AnyProcess, Contender

#: From "I am here" to really waiting.
SETTLE_SECONDS = 0.1


def idle_child(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Start a child that was given nothing and sleeps."""
    del effort  # one look is enough
    with board(1) as (path, numbers):
        process = contender.context().Process(target=payloads.idle, args=(path,), daemon=True)
        process.start()
        numbers.wait(0)
        time.sleep(SETTLE_SECONDS)
        return _figures(process)


def child_at_queue(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Start a child that has answered through one queue and waits at another."""
    del effort  # one look is enough
    context = contender.context()
    requests, answers = context.Queue(), context.Queue()
    process = context.Process(target=payloads.idle_on_queue, args=(requests, answers), daemon=True)
    process.start()
    answers.get()
    time.sleep(SETTLE_SECONDS)
    return _figures(process)


def _figures(process: AnyProcess) -> Mapping[str, float]:
    """Return what is known of *process* and its helpers, and end it."""
    pid = process.pid
    if pid is None or process.exitcode is not None:
        raise RuntimeError(f"the child ended early, with exit code {process.exitcode}")
    helpers = [other for other in _descendants(os.getpid()) if other != pid]
    figures = {
        "private memory": private_bytes(pid) / 1e6,
        "helper processes": float(len(helpers)),
        "private memory of helpers": sum(map(private_bytes, helpers)) / 1e6,
    }
    process.terminate()
    process.join()
    return figures


def private_bytes(pid: int) -> int:
    """Return the bytes that only *pid* has: Private_Clean and Private_Dirty of its mappings."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(
            int(line.split()[1]) * 1024
            for line in file
            if line.startswith(("Private_Clean:", "Private_Dirty:"))
        )


def _descendants(pid: int) -> Iterator[int]:
    """Yield the processes below *pid*, however deep: a fork server's children are its own."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
        for child in children:
            yield child
            yield from _descendants(child)


FIGURES = (
    Figure("private memory", "MB"),
    Figure("helper processes", ""),
    Figure("private memory of helpers", "MB"),
)
SUBJECT = Subject(
    name="memory",
    title="Memory of a waiting child",
    cases=(
        Case("idle child", FIGURES, idle_child, METHOD),
        Case("child at a queue", FIGURES, child_at_queue, METHOD),
    ),
)
