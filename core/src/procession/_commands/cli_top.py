"""``procession top`` and ``procession dump``: a running program, seen from outside."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import attrs
import click
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from procession._commands.doctor.machine import size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from procession._commands.observe.program import Observer, ProcessView, ProgramView
    from procession._commands.observe.stacks import Stacks

__all__ = ["dump", "top"]

_SHORTEST_INTERVAL: Final = 0.1
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STYLES: Final = {"running": "green", "zombie": "red", "stopped": "yellow"}
# More names than that say less than their number.
_MOST_NAMES: Final = 3


@click.command
@click.argument("pid", type=click.IntRange(min=1), required=False)
@click.option("--once", is_flag=True, help="Look once, and end.")
@click.option("--json", "as_json", is_flag=True, help="Look once, and print JSON.")
@click.option(
    "--interval",
    type=click.FloatRange(min=_SHORTEST_INTERVAL),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
def top(pid: int | None, once: bool, as_json: bool, interval: float) -> None:
    """Show the processes of a program live: what they do, and who waits for what.

    PID is the first process of the program; without it, all programs that can be seen are
    shown. The programs need not be prepared and do not notice.
    """
    observers = _observers(pid)
    if as_json:
        _print_json([_as_data(view) for view in _look(observers, pid)])
        return
    console = Console(highlight=False)
    if once:
        for view in _look(observers, pid):
            console.print(_picture(view, console))
        return
    try:
        _follow(console, observers, pid, interval)
    except KeyboardInterrupt:
        return  # that is how one leaves it


@click.command
@click.argument("pid", type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def dump(pid: int, as_json: bool) -> None:
    """Show the processes of a program once, with the stacks of their threads.

    Python stacks come from py-spy when it is installed, or from the program itself when it was
    started with PROCESSION_DUMP_SIGNAL=USR1 in its environment.
    """
    from procession._commands.observe import stacks
    from procession._commands.observe.program import inner_pid

    (view,) = _look(_observers(pid), pid)
    found = {each.pid: stacks.look(each.pid, inner_pid(each.pid)) for each in view.processes}
    if as_json:
        data = _as_data(view)
        for process in data["processes"]:
            process["stacks"] = attrs.asdict(found[process["pid"]])
        _print_json(data)
        return
    console = Console(highlight=False)
    console.print(_picture(view, console))
    _show_stacks(console, view, found)


def _observers(pid: int | None) -> list[Observer]:
    """Return the observers of the programs to show. Raises `click.ClickException`."""
    if sys.platform != "linux":
        raise click.UsageError("only Linux lets programs be seen from outside in this way")
    from procession._commands.observe.program import Ended, Observer, programs

    if pid is not None:
        try:
            return [Observer(pid)]
        except Ended as error:
            raise click.UsageError(str(error)) from None
    found = []
    for each in programs():
        try:
            found.append(Observer(each))
        except Ended:
            continue
    if not found:
        raise click.UsageError(
            "no program of procession runs here that this user may look at; name one by its PID"
        )
    return found


def _look(observers: list[Observer], pid: int | None) -> list[ProgramView]:
    """Look at all of them. When one was asked for, raise what is wrong with it."""
    from procession._commands.observe.program import Ended, Foreign

    found = []
    for observer in observers:
        try:
            found.append(observer.look())
        except (Ended, Foreign) as error:
            if pid is not None:
                raise click.UsageError(str(error)) from None
    return found


def _follow(console: Console, observers: list[Observer], pid: int | None, interval: float) -> None:
    """Show the programs again and again, until the one that was asked for has ended."""
    views = _look(observers, pid)
    moving = console.is_terminal and not console.is_dumb_terminal
    with (
        Live(console=console, auto_refresh=False, screen=False)
        if moving
        else _Plain(console) as live
    ):
        while views:
            live.update(Group(*(_picture(view, console) for view in views)), refresh=True)
            time.sleep(interval)
            try:
                views = _look(observers, pid)
            except click.UsageError as error:
                views = []
                ending = error.format_message()
            else:
                ending = "the programs have ended"
    console.print(ending)


class _Plain:
    """Shows every picture below the last, where nothing can be drawn over."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> _Plain:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, picture: Group, *, refresh: bool) -> None:
        """Print *picture*, at once in any case."""
        self._console.print(picture)
        if refresh:
            self._console.file.flush()


# -- showing ---------------------------------------------------------------------------


def _picture(view: ProgramView, console: Console) -> Group:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for heading in ("name", "pid", "method", "state", "cpu", "memory", "age"):
        right = heading in ("pid", "cpu", "memory", "age")
        table.add_column(heading, no_wrap=True, justify="right" if right else "left")
    table.add_column("does", ratio=1)
    names = {each.pid: each.name for each in view.processes}
    hidden: dict[str, list[int]] = {}
    for depth, each in _tree(view):
        table.add_row(
            Text("  " * depth + each.name, style="bold"),
            str(each.pid),
            each.method or "-",
            Text(each.state, style=_STYLES.get(each.state, "")),
            "-" if each.cpu is None else f"{each.cpu:.0f}%",
            size(each.memory >> 20 << 20),
            _duration(each.age),
            Text(_deed(each, names)),
        )
        if each.hidden:
            hidden.setdefault(each.hidden, []).append(each.pid)
    parts: list[Any] = [table]
    if view.queues:
        parts += [Text(), _queue_table(view)]
    for reason, pids in hidden.items():
        parts.append(Text(f"not all could be seen of {', '.join(map(str, pids))}: {reason}"))
    return Group(*parts)


def _tree(view: ProgramView) -> Iterator[tuple[int, ProcessView]]:
    """Yield the processes, each behind its parent, with its depth."""
    pids = {each.pid for each in view.processes}
    children: dict[int, list[ProcessView]] = {}
    roots = []
    for each in view.processes:
        if each.parent in pids and each is not view.processes[0]:
            children.setdefault(each.parent, []).append(each)
        else:
            roots.append(each)
    waiting = [(0, each) for each in reversed(roots)]
    while waiting:
        depth, each = waiting.pop()
        yield depth, each
        waiting += [(depth + 1, child) for child in reversed(children.get(each.pid, []))]


def _deed(each: ProcessView, names: dict[int, str]) -> str:
    """Return what the main thread of a process does, and who can end its wait."""
    main = each.threads.get(each.pid)
    if main is None:
        return ""
    who = [f"{names.get(pid, 'process')} ({pid})" for pid in main.who]
    # Whom it waits for by pid is in the words already.
    if not who or all(f"({pid})" in main.what for pid in main.who):
        text = main.what
    elif len(who) > _MOST_NAMES:
        text = f"{main.what}, from one of {len(who)} processes"
    else:
        text = f"{main.what}, from {' or '.join(who)}"
    others = len(each.threads) - 1
    return text + (f" (+{others} thread{'s' if others > 1 else ''})" if others else "")


def _queue_table(view: ProgramView) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    table.add_column("queue", no_wrap=True)
    table.add_column("items", no_wrap=True, justify="right")
    table.add_column("of", no_wrap=True, justify="right")
    table.add_column("held by", ratio=1)
    names = {each.pid: each.name for each in view.processes}
    for queue in view.queues:
        table.add_row(
            queue.name + (" (shut down)" if queue.shut else ""),
            "?" if queue.size is None else str(queue.size),
            str(queue.maxsize) if queue.maxsize else "no limit",
            Text(", ".join(names.get(pid, str(pid)) for pid in queue.holders)),
        )
    return table


def _show_stacks(console: Console, view: ProgramView, found: dict[int, Stacks]) -> None:
    missing: dict[str, list[int]] = {}
    for each in view.processes:
        console.print()
        console.print(Text(f"{each.name} ({each.pid})", style="bold"))
        for thread, wait in each.threads.items():
            console.print(Text(f"  thread {thread} {wait.what}"), soft_wrap=True)
        stacks = found[each.pid]
        for line in stacks.lines:
            console.print(Text(f"  {line}"), soft_wrap=True)
        if stacks.missing:
            missing.setdefault(stacks.missing, []).append(each.pid)
    for reason, pids in missing.items():
        console.print()
        console.print(
            Text(f"no Python stacks of {', '.join(map(str, pids))}: {reason}", style="yellow"),
            soft_wrap=True,
        )


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.0f} h" if seconds < _DAY else f"{seconds / _DAY:.0f} d"


# -- JSON ------------------------------------------------------------------------------


def _as_data(view: ProgramView) -> dict[str, Any]:
    data = attrs.asdict(view)
    for queue in data["queues"]:
        del queue["parts"]
    return data


def _print_json(data: object) -> None:
    click.echo(json.dumps(data, indent=2))
