"""``procession doctor``: what of this environment stands in the way, and what to do about it."""

from __future__ import annotations

import json
from typing import Final

import attrs
import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import procession
from procession._commands.doctor.examination import checks, examine
from procession._commands.doctor.finding import Finding, Level
from procession._commands.doctor.machine import Machine

__all__ = ["doctor"]

_STYLES: Final = {
    Level.OK: "green",
    Level.NOTE: "cyan",
    Level.WARNING: "yellow",
    Level.PROBLEM: "bold red",
}
_HAS_PROBLEMS: Final = 1


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option(
    "--start/--no-start",
    default=True,
    help="Whether to start a child by each start method.  [default: start]",
)
def doctor(as_json: bool, start: bool) -> int:
    """Check the environment, and say what to do about each finding.

    The exit status is 1 when there is a problem.
    """
    console = Console(highlight=False)
    findings = list(examine(checks(Machine(), start=start)))
    if as_json:
        click.echo(
            json.dumps(
                {
                    "procession": procession.__version__,
                    "findings": [attrs.asdict(each) for each in findings],
                },
                indent=2,
            )
        )
    else:
        _show(console, findings)
    return _HAS_PROBLEMS if any(each.level is Level.PROBLEM for each in findings) else 0


def _show(console: Console, findings: list[Finding]) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for heading in ("", "subject", "found, and what to do"):
        table.add_column(heading, overflow="fold")
    for level in Level:
        for each in findings:
            if each.level is level:
                text = Text(each.found)
                if each.advice:
                    text.append(f"\n-> {each.advice}", style="bold")
                table.add_row(Text(level, style=_STYLES[level]), Text(each.subject), text)
        table.add_section()
    console.print(table)
    counts = {level: sum(each.level is level for each in findings) for level in Level}
    console.print()
    console.print(
        ", ".join(
            f"{count} {level}{'s' if count != 1 and level is not Level.OK else ''}"
            for level, count in counts.items()
        )
    )
