"""``procession port``: what a program that uses multiprocessing has to know."""

from __future__ import annotations

import json
import sys
from typing import Final

import click

import procession
from procession._commands.port.names import Verdict
from procession._commands.port.program import Finding, examine

__all__ = ["port"]

_SOMETHING_IS_MISSING: Final = 1
_VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_STYLES: Final = {Verdict.MOVED: "cyan", Verdict.DIFFERS: "yellow", Verdict.MISSING: "red"}


@click.command
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def port(file: str, as_json: bool) -> int:
    """Say what in the program FILE is missing in procession, or does something else.

    The program is read, not run. The exit status is 1 when something is missing.
    """
    findings = _examine(file)
    if as_json:
        click.echo(json.dumps(_for_programs(file, findings), indent=2))
    else:
        _show(file, findings)
    return _SOMETHING_IS_MISSING if _of(findings, Verdict.MISSING) else 0


def _examine(file: str) -> list[Finding]:
    shown = click.format_filename(file)
    try:
        with open(file, "rb") as opened:
            return examine(opened.read(), shown)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        reason = f"is not Python {_VERSION}: {where}{error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        reason = f"cannot be parsed by Python {_VERSION}: {str(error) or 'too deeply nested'}"
    raise click.UsageError(f"{shown} {reason}")


def _of(findings: list[Finding], verdict: Verdict) -> list[Finding]:
    return [each for each in findings if each.name.verdict is verdict]


def _for_programs(file: str, findings: list[Finding]) -> dict[str, object]:
    return {
        "procession": procession.__version__,
        "file": click.format_filename(file),
        "findings": [
            {
                "name": each.name.theirs,
                "verdict": each.name.verdict,
                "ours": each.name.ours,
                "note": each.name.note,
                "lines": each.lines,
            }
            for each in findings
        ],
    }


def _show(file: str, findings: list[Finding]) -> None:
    for each in findings:
        verdict = each.name.verdict
        if verdict is not Verdict.SAME:
            lines = ", ".join(map(str, each.lines))
            head = f"{click.format_filename(file)}:{lines}: {each.name.theirs}"
            click.echo(f"{head}: {click.style(verdict, fg=_STYLES[verdict])}: {each.name.note}")
    counts = (f"{verdict} {len(_of(findings, verdict))}" for verdict in Verdict)
    click.echo(f"{len(findings)} names: {', '.join(counts)}")
