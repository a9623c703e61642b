"""``procession plugins``: what is installed, and what is selected by whom."""

from __future__ import annotations

from typing import Final

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

import procession
from procession._choosing.installed import InstalledPlugin, take_inventory
from procession._choosing.limits import lease_budget, recv_limit, silence
from procession._choosing.primitive_choice import choose
from procession._choosing.registry import KINDS, NOUNS
from procession._choosing.selection import plugins as switched_on
from procession._choosing.selection import registry
from procession._mailboxes.shelves import BUDGET
from procession.errors import PluginUnavailableError

__all__ = ["plugins"]

_STYLES: Final = {"available": "green", "unavailable": "yellow", "broken": "red"}


@click.command
def plugins() -> None:
    """List the plugins that are installed, and say which are selected, and by whom."""
    console = Console(highlight=False)
    kinds = (*KINDS, "primitive", "plugin")
    found = [plugin for kind in kinds for plugin in registry().installed(kind)]
    if found:
        # The reasons are sentences, which a cell of a table would cut into pieces.
        table, reasons = _table(found)
        console.print(table)
        for line in reasons:
            console.print(line, soft_wrap=True)
    for broken in take_inventory().unreadable:
        console.print(f"[red]unreadable:[/] {escape(broken)}", soft_wrap=True)
    # Raises, and thereby ends the command with a line, when something is not to be had.
    selection = procession.selection()
    console.print()
    for noun, choice in (
        ("start method", selection.start_method),
        ("transport", selection.transport),
        ("serializer", selection.serializer),
    ):
        console.print(
            f"[dim]selected {noun + ':':<14}[/][bold]{escape(choice.name)}[/]  "
            f"[dim]by[/] {choice.source}[dim]:[/] {escape(choice.detail)}",
            soft_wrap=True,
        )
    primitive, why = choose()
    console.print(
        f"[dim]{'locks are made of:':<23}[/][bold]{escape(primitive.name)}[/]  "
        f"[dim]because:[/] {escape(why)}",
        soft_wrap=True,
    )
    seconds, told = silence()
    longest, by = recv_limit()
    budget, by_whom = lease_budget()
    for noun, value, source in (
        ("other hosts answer in:", f"{seconds:g} s", told),
        ("longest message:", "any" if longest is None else f"{longest} bytes", by),
        ("leases may keep:", f"{budget or BUDGET} bytes", by_whom),
    ):
        console.print(
            f"[dim]{noun:<23}[/][bold]{value}[/]  [dim]by[/] {escape(source)}", soft_wrap=True
        )
    names, source, detail = switched_on()
    console.print(
        f"[dim]{'switched on:':<23}[/][bold]{escape(', '.join(names) or 'none')}[/]  "
        f"[dim]by[/] {source}[dim]:[/] {escape(detail)}",
        soft_wrap=True,
    )


def _table(found: list[InstalledPlugin]) -> tuple[Table, list[Text]]:
    """Return the table, and a line for each plugin that there is something to say about."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    reasons: list[Text] = []
    for heading in ("kind", "name", "distribution", "version", "status"):
        table.add_column(heading, no_wrap=True)
    for plugin in found:
        status, reason = _status(plugin)
        if status == "available":
            reason = _details(plugin)
        shown = Text(status, style=_STYLES[status])
        if reason:
            about = f" ({plugin.name})" if status == "available" else ""
            reasons.append(shown + Text(f"{about}: {reason}", style="default"))
        table.add_row(
            NOUNS[plugin.kind],
            Text(plugin.name, style="bold"),
            Text("\n".join(claimant.distribution for claimant in plugin.claimants)),
            Text("\n".join(claimant.version for claimant in plugin.claimants)),
            shown,
        )
    return table, reasons


def _details(plugin: InstalledPlugin) -> str:
    """Return what an available plugin says about itself, if it says anything."""
    if plugin.kind != "transport":
        return ""
    return registry().load("transport", plugin.name).details()


def _status(plugin: InstalledPlugin) -> tuple[str, str]:
    """Return how a plugin is, and why it cannot be used, if so. Imports the plugin."""
    problem = registry().problem(plugin.kind, plugin.name)
    if problem is None:
        return "available", ""
    status = "unavailable" if isinstance(problem, PluginUnavailableError) else "broken"
    return status, str(problem)
