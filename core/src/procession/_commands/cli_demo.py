"""``procession demo``: the main job, once for every pair of plugins."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Final

import attrs
import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

import procession
from procession import errors
from procession._commands.demo import classics, report
from procession._commands.demo.indexing import index, index_alone
from procession._commands.demo.listening import ChildFailedError
from procession._commands.demo.sources import SourceTree, find_sources

if TYPE_CHECKING:
    from procession._commands.demo.counting import Tally
    from procession._commands.demo.indexing import Outcome
    from procession.context import BaseContext

__all__ = ["demo"]

_ALONE: Final = "one process"

_REDRAW: Final = 0.1
"""Seconds between two pictures of the progress."""


@attrs.frozen
class _Pair:
    """A start method and a transport, as a context that uses them."""

    method: str
    transport: str
    context: BaseContext

    def __str__(self) -> str:
        return report.pair_title(self.method, self.transport)


@click.command
@click.option(
    "--path",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="The directory to index.  [default: the standard library's sources]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="How many children count.  [default: one for each available CPU]",
)
@click.option(
    "--start-method",
    "methods",
    metavar="NAME",
    multiple=True,
    help="A start method to use; may be given several times.  [default: all]",
)
@click.option(
    "--transport",
    "transports",
    metavar="NAME",
    multiple=True,
    help="A transport to use; may be given several times.  [default: all]",
)
def demo(
    path: str | None, workers: int | None, methods: tuple[str, ...], transports: tuple[str, ...]
) -> None:
    """Index a source tree with every start method and transport, and compare them.

    Every .py file below a directory is tokenized and its identifiers are counted: in this
    process alone, and then, for each pair of plugins, in several children that are fed
    through one queue and answer through another. All of them must find the same.
    """
    pairs, left_out = _pairs(methods, transports)
    tree = _tree(path)
    workers = workers or _available_cpus()
    console = Console(highlight=False)
    try:
        report.show_title(console, tree, workers)
        for reason in left_out:
            report.show_left_out(console, reason)
        _run_classics(console, pairs)
        alone, outcomes = _run_indexing(console, pairs, tree, workers)
    except KeyboardInterrupt:
        raise click.Abort from None
    report.show_results(console, _ALONE, alone, outcomes)
    report.show_identifiers(console, alone.tally)
    report.show_failures(console, tree, alone.tally)
    different = [title for title, outcome in outcomes.items() if outcome.tally != alone.tally]
    if different:
        raise click.ClickException(
            f"{', '.join(different)} found something else than the single process"
        )
    report.show_proof(console, alone.tally, len(outcomes))


# -- what to do ------------------------------------------------------------------------


def _pairs(methods: tuple[str, ...], transports: tuple[str, ...]) -> tuple[list[_Pair], list[str]]:
    """Return the pairs to run, and the reasons why others are left out.

    Raises `PluginError` for a name that cannot be used, and when there is nothing to run.
    """
    pairs: list[_Pair] = []
    left_out: list[str] = []
    # The default's error says what is to be installed if there is nothing.
    for method in _names(methods, procession.get_all_start_methods, procession.get_start_method):
        for transport in _names(
            transports, procession.get_all_transports, procession.get_transport
        ):
            try:
                context = procession.get_context(method, transport=transport)
            except errors.IncompatiblePluginsError as error:
                if method in methods and transport in transports:
                    raise
                left_out.append(str(error))
            else:
                pairs.append(_Pair(method, transport, context))
    if not pairs:
        raise click.UsageError("; ".join(left_out))
    return pairs, left_out


def _names(
    given: tuple[str, ...], available: Callable[[], list[str]], default: Callable[[], str]
) -> list[str]:
    return list(dict.fromkeys(given)) or available() or [default()]


def _tree(path: str | None) -> SourceTree:
    if path is None:
        tree = find_sources(sysconfig.get_path("stdlib"), installed_packages=False)
    else:
        tree = find_sources(path)
    if not tree.paths:
        raise click.UsageError(f"there are no .py files below {click.format_filename(tree.root)}")
    return tree


def _available_cpus() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))  # what we may use of them, in a container say
    return procession.cpu_count()


# -- doing it --------------------------------------------------------------------------


@contextmanager
def _blaming(title: object) -> Iterator[None]:
    """Have what fails in the block end the command with a line that names the pair."""
    try:
        yield
    except (ChildFailedError, errors.ProcessError, OSError, EOFError) as error:
        raise click.ClickException(f"{title}: {error or type(error).__name__}") from error


def _run_classics(console: Console, pairs: list[_Pair]) -> None:
    """Run the three classic programs on every pair, and show each answer as it comes."""
    lines = report.Classics(console, [(pair.method, pair.transport) for pair in pairs])
    for pair in pairs:
        with lines.line(pair.method, pair.transport), _blaming(pair):
            # A forked child must not have a copy of what is still to be written.
            sys.stdout.flush()
            classics.through_process(pair.context)
            for program in (classics.through_queue, classics.through_pipe):
                answer = program(pair.context)
                lines.answered(answer)
                if answer != [42, None, "hello"]:
                    raise click.ClickException(f"{pair}: {answer!r} is not what was sent")


def _run_indexing(
    console: Console, pairs: list[_Pair], tree: SourceTree, workers: int
) -> tuple[Outcome, dict[str, Outcome]]:
    """Index the tree in this process and on every pair; show how it is getting on."""
    progress = _Progress(console, tree, [_ALONE, *map(str, pairs)])
    outcomes: dict[str, Outcome] = {}
    with progress:
        with progress.of(_ALONE) as advance:
            alone = index_alone(tree, advance)
        for pair in pairs:
            with progress.of(str(pair)) as advance, _blaming(pair):
                outcome = index(pair.context, tree, workers, advance)
            # Equal tallies are kept once: a child that is forked next has a copy of them all.
            same = outcome.tally == alone.tally
            outcomes[str(pair)] = attrs.evolve(outcome, tally=alone.tally) if same else outcome
    return alone, outcomes


class _Progress:
    """Bars for all runs on a terminal; elsewhere, a line when one has ended.

    Nothing is drawn by a thread: one that holds a lock while a process is forked would
    leave it locked in the child.
    """

    def __init__(self, console: Console, tree: SourceTree, titles: list[str]) -> None:
        self._console = console
        self._tree = tree
        self._width = max(map(len, titles))
        # Logs of CI systems like colours, for which FORCE_COLOR asks, and no moving bars.
        self._moving = console.is_interactive and console.file.isatty()
        self._bars = Progress(
            TextColumn("  {task.description}"),
            BarColumn(
                bar_width=None, complete_style="cyan", finished_style="green", pulse_style="grey23"
            ),
            TextColumn("{task.fields[files]:>6,} of {task.fields[of]:,} files"),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
            disable=not self._moving,
            # A forked child would inherit a standard output that belongs to the bars.
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {
            title: self._bars.add_task(
                f"{title:{self._width}}", start=False, total=tree.size, files=0, of=len(tree.paths)
            )
            for title in titles
        }
        self._drawn = 0.0

    def __enter__(self) -> None:
        self._console.print()
        report.show_heading(self._console, "Indexing, in one process and on every pair")
        self._bars.start()

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextmanager
    def of(self, title: str) -> Iterator[Callable[[Tally], None]]:
        """Yield the function that one run calls with what it has found so far."""
        task = self._tasks[title]
        self._bars.start_task(task)
        begun = perf_counter()

        last: Tally | None = None

        def draw(tally: Tally, *, now: bool = False) -> None:
            nonlocal last
            last = tally
            if now or perf_counter() - self._drawn >= _REDRAW:
                self._bars.update(task, completed=tally.size, files=tally.files)
                self._bars.refresh()
                self._drawn = perf_counter()

        yield draw
        if last is not None:
            draw(last, now=True)
        self._bars.stop_task(task)
        if not self._moving:
            report.show_run(
                self._console,
                f"{title:{self._width}}",
                len(self._tree.paths),
                begun,
                perf_counter(),
            )
