"""``procession run``, as the list of commands has it. `procession.cli` runs it without click."""

from __future__ import annotations

import click

from procession._commands.run.command import HELP, SUMMARY
from procession._commands.run.command import main as run_program

__all__ = ["run"]


class _Run(click.Command):
    def get_help(self, ctx: click.Context) -> str:
        return HELP.rstrip("\n")


@click.command(
    cls=_Run,
    help=SUMMARY,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(arguments: tuple[str, ...]) -> int:
    return run_program(arguments)
