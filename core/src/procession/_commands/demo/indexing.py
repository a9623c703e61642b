"""Indexing a source tree: by children fed through a queue, and alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import attrs

from procession._commands.demo.counting import BATCH, Tally, serve
from procession._commands.demo.crew import crew
from procession._commands.demo.listening import next_answer

if TYPE_CHECKING:
    from procession._commands.demo.sources import SourceTree
    from procession.context import BaseContext
    from procession.process import Process
    from procession.queues import Queue

__all__ = ["Outcome", "index", "index_alone"]


@attrs.frozen
class Outcome:
    """What one run has found, and what it took."""

    tally: Tally
    elapsed: float
    """Seconds from the first start of a child to the last answer of the last one."""

    startup: float | None = None
    """The part of it until all children had reported that they are ready."""

    peak: int | None = None
    """The most memory that one of the children has used, in bytes, as it says itself."""


def index_alone(tree: SourceTree, progress: Callable[[Tally], object]) -> Outcome:
    """Count everything in this process, calling *progress* with the tally now and then."""
    total = Tally()
    begun = perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in a child
        for batch in tree.batches():
            total.read(batch)
            progress(total)
    return Outcome(total, perf_counter() - begun)


def index(
    context: BaseContext, tree: SourceTree, workers: int, progress: Callable[[Tally], object]
) -> Outcome:
    """Count everything in *workers* children, fed through one queue, answering through another.

    *progress* is called with the tally after each answer, and now and then between them.
    All children have ended when this returns or raises. Raises `ChildFailedError` if one of
    them has failed, and what starting processes and using queues raises.
    """
    tasks: Queue = context.Queue()
    answers: Queue = context.Queue()
    names = [f"indexer-{number}" for number in range(1, workers + 1)]
    children = {
        name: context.Process(target=serve, args=(name, tasks, answers), name=name, daemon=True)
        for name in names
    }
    finished = False
    try:
        begun = perf_counter()
        with crew(list(children.values())):
            outcome = _conduct(children, tasks, answers, tree, begun, progress)
        finished = True
        return outcome
    finally:
        if not finished:
            tasks.cancel_join_thread()  # nobody will read what is still to be sent
        for queue in (tasks, answers):
            queue.close()
            queue.join_thread()


def _conduct(
    children: dict[str, Process],
    tasks: Queue,
    answers: Queue,
    tree: SourceTree,
    begun: float,
    progress: Callable[[Tally], object],
) -> Outcome:
    """Feed children that have been started and collect what they answer."""
    total = Tally()
    peaks: list[int | None] = []

    def answer() -> tuple[str, str, Any]:  # the payload is as `serve` says
        progress(total)
        found: tuple[str, str, Any] = next_answer(
            answers, list(awaited.values()), lambda: progress(total)
        )
        return found

    awaited = dict(children)
    while awaited:
        _, name, _ = answer()
        del awaited[name]
    startup = perf_counter() - begun

    for batch in tree.batches():
        tasks.put(batch)
    for _ in children:
        tasks.put(None)

    awaited = dict(children)
    while awaited:
        kind, name, payload = answer()
        if kind == BATCH:
            total.add(payload)
        else:
            peaks.append(payload)
            del awaited[name]
    elapsed = perf_counter() - begun
    progress(total)
    return Outcome(total, elapsed, startup, max((p for p in peaks if p is not None), default=None))
