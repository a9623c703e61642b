"""What the demo shows, and how."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import procession

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from procession._commands.demo.counting import Tally
    from procession._commands.demo.indexing import Outcome
    from procession._commands.demo.sources import SourceTree

__all__ = [
    "Classics",
    "digest",
    "pair_title",
    "show_failures",
    "show_heading",
    "show_identifiers",
    "show_left_out",
    "show_proof",
    "show_results",
    "show_run",
    "show_title",
]

_MEGA: Final = 1e6
_HEADINGS: Final = ("start-up", " files/s", " MB/s", " memory", "speed-up")
_MOST_USED: Final = 20
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_FAILURES_SHOWN: Final = 10
_GAP: Final = "   "
_INDENT: Final = 2
_OTHER_COLUMNS: Final = _INDENT + sum(map(len, _HEADINGS)) + 2 * (len(_HEADINGS) + 1) + 1
"""The width of the results without the names of the pairs and the bars."""


def pair_title(method: str, transport: str) -> str:
    """Return what a start method and a transport together are called."""
    return f"{method} + {transport}"


def digest(tally: Tally) -> str:
    """Return a SHA-256 that two tallies share if they have the same counts."""
    lines = "".join(f"{name} {count}\n" for name, count in sorted(tally.counts.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


# -- before and while it runs ----------------------------------------------------------


def show_title(console: Console, tree: SourceTree, workers: int) -> None:
    """Say what is going to be done."""
    console.print(
        f"[bold]procession {procession.__version__}[/] on Python {platform.python_version()}: "
        f"{len(tree.paths):,} files, {_size(tree.size)}, "
        f"{workers} {'worker' if workers == 1 else 'workers'}"
    )
    console.print(f"[dim]{escape(_shown(tree.root))}[/]")


def show_heading(console: Console, text: str) -> None:
    """Begin a section."""
    console.print(f"[bold]{text}[/]")


def show_left_out(console: Console, reason: str) -> None:
    """Say that a pair is not run, and why."""
    console.print(f"[yellow]not run:[/] {escape(reason)}")


def show_run(console: Console, title: str, files: int, begun: float, ended: float) -> None:
    """Say that a run has ended, where there are no bars to see it."""
    console.print(f"  {title}{_GAP}{files:,} files in {_duration(ended - begun)}")


class Classics:
    """The answers of the classic programs, a line for each pair, as they come.

    A line is written piece by piece, because a piece of it is written by a child.
    """

    _GREETING: Final = "hello bob"
    _ANSWER: Final = "[42, None, 'hello']"

    def __init__(self, console: Console, pairs: list[tuple[str, str]]) -> None:
        self._console = console
        self._width = max(len(pair_title(*pair)) for pair in pairs)
        console.print()
        show_heading(console, "The three classic programs, on every pair")
        head = [
            f"  {'':{self._width}}",
            f"{'Process':{len(self._GREETING)}}",
            f"{'Queue':{len(self._ANSWER)}}",
            "Pipe",
        ]
        console.print(f"[dim]{_GAP.join(head)}[/]")

    @contextmanager
    def line(self, method: str, transport: str) -> Iterator[None]:
        """Write one line: its beginning now, its end when the block ends, however it does."""
        self._write(f"  {pair_title(method, transport):{self._width}}{_GAP}")
        try:
            yield
        finally:
            self._console.print()

    def answered(self, answer: Any) -> None:  # whatever has come
        """Write what has come through the queue or the pipe, after what is there already."""
        self._write(f"{_GAP}{answer!r:{len(self._ANSWER)}}".rstrip())

    def _write(self, text: str) -> None:
        self._console.print(text, end="", markup=False, soft_wrap=True)


# -- when it has run -------------------------------------------------------------------


def show_results(
    console: Console, alone_title: str, alone: Outcome, outcomes: dict[str, Outcome]
) -> None:
    """Show all runs in one table with bars, the single process first."""
    rows = {alone_title: alone, **outcomes}
    ratios = {title: alone.elapsed / outcome.elapsed for title, outcome in rows.items()}
    best = max(ratios, key=ratios.__getitem__)
    table = _table()
    table.add_column("pair", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    room = console.width - max(map(len, rows)) - _OTHER_COLUMNS
    for title, outcome in rows.items():
        files, size = outcome.tally.files, outcome.tally.size
        share = ratios[title] / ratios[best]
        colour = "green" if title == best else "dim" if outcome is alone else "cyan"
        table.add_row(
            Text(title),
            "" if outcome.startup is None else _duration(outcome.startup),
            f"{files / outcome.elapsed:,.0f}",
            f"{size / _MEGA / outcome.elapsed:.1f}",
            "" if outcome.peak is None else f"{outcome.peak / _MEGA:.0f} MB",
            f"{ratios[title]:.2f}x",
            Text(_bar(share, max(4, min(room, 40)), console.options.ascii_only), style=colour),
            style="bold" if title == best else "",
        )
    console.print()
    show_heading(console, "Results")
    console.print(Padding(table, (0, 0, 0, _INDENT), expand=False))
    console.print(
        "  [dim]start-up: from the first start() until every worker was ready; "
        "it is part of the time\n  that the other columns are about. "
        "memory: the peak of the largest worker.[/]",
        soft_wrap=True,
    )


def show_identifiers(console: Console, tally: Tally) -> None:
    """Show the most used identifiers with their counts, in two halves side by side."""
    # Those with the same count in the order of the alphabet, so that no run differs.
    ranked = sorted(tally.counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_USED]
    if not ranked:
        return
    console.print()
    show_heading(console, f"The {len(ranked)} most used identifiers")
    half = (len(ranked) + 1) // 2
    name_width = min(24, max(len(name) for name, _ in ranked))
    count_width = max(len(f"{count:,}") for _, count in ranked)
    room = (console.width - _INDENT) // 2 - (2 + name_width + count_width + 4 * 1)
    table = _table(show_header=False)
    table.padding = (0, 2, 0, 0)
    for _ in range(2 if len(ranked) > 1 else 1):
        table.add_column(justify="right", style="dim")
        table.add_column(no_wrap=True, max_width=name_width)
        table.add_column(justify="right", no_wrap=True)
        if room >= 4:
            table.add_column(no_wrap=True, style="cyan")
    cells: list[list[RenderableType]] = []
    for rank, (name, count) in enumerate(ranked, 1):
        cell: list[RenderableType] = [str(rank), Text(name), f"{count:,}"]
        if room >= 4:
            bar = _bar(count / ranked[0][1], min(room, 24), console.options.ascii_only)
            cell.append(bar)
        cells.append(cell)
    for left, right in zip(cells[:half], [*cells[half:], []], strict=False):
        table.add_row(*left, *right)
    console.print(Padding(table, (0, 0, 0, _INDENT), expand=False))


def show_failures(console: Console, tree: SourceTree, tally: Tally) -> None:
    """Show which files are not in the counts, and why."""
    failures = {**tally.failures, **tree.skipped}
    if not failures:
        return
    console.print()
    show_heading(console, f"Not counted: {len(failures):,} that cannot be read as Python")
    for path in sorted(failures)[:_FAILURES_SHOWN]:
        console.print(f"  {tree.relative(path)}: {failures[path]}", markup=False, soft_wrap=True)
    if len(failures) > _FAILURES_SHOWN:
        console.print(f"  and {len(failures) - _FAILURES_SHOWN:,} more")


def show_proof(console: Console, tally: Tally, pairs: int) -> None:
    """Say that everybody has found the same, and what."""
    those = {1: "The pair", 2: "Both pairs"}.get(pairs, f"All {pairs} pairs")
    console.print()
    console.print(
        f"[bold green]{those} and the single process found the same:[/] "
        f"{tally.counts.total():,} uses of {len(tally.counts):,} identifiers",
        soft_wrap=True,
    )
    console.print(f"[dim]SHA-256 of the counts: {digest(tally)}[/]", soft_wrap=True)


# -- pieces ----------------------------------------------------------------------------


def _table(*, show_header: bool = True) -> Table:
    return Table(
        box=box.SIMPLE_HEAD if show_header else None,
        show_header=show_header,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="dim",
    )


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _size(size: int) -> str:
    return f"{size / _MEGA:.1f} MB" if size >= _MEGA else f"{size / 1000:.1f} kB"


def _bar(share: float, width: int, ascii_only: bool) -> str:
    """Return a bar that fills *share* of *width* characters."""
    if ascii_only:
        return "#" * max(1, round(share * width))
    whole, eighths = divmod(round(share * width * 8), 8)
    return ("█" * whole + _EIGHTHS[eighths]).rstrip() or "▏"


def _shown(path: str) -> str:
    """Return *path* without what is no text in it."""
    return path.encode(errors="surrogateescape").decode(errors="replace")
