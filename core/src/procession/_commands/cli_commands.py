"""The commands, and how each way for them to fail becomes one line and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper

import click

import procession
from procession._commands.cli_check import check
from procession._commands.cli_demo import demo
from procession._commands.cli_doctor import doctor
from procession._commands.cli_new import new
from procession._commands.cli_plugins import plugins
from procession._commands.cli_port import port
from procession._commands.cli_run import run as run_command
from procession._commands.cli_top import dump, top
from procession.errors import ProcessError

__all__ = ["run"]

_CANNOT_BE_DONE = 2
_INTERRUPTED = 130
"""What shells report for a program that SIGINT has ended."""


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(
    procession.__version__, prog_name="procession", message="%(prog)s %(version)s"
)
@click.pass_context
def commands(context: click.Context) -> None:
    """Python's multiprocessing, taken apart into contracts and plugins."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


commands.add_command(check)
commands.add_command(demo)
commands.add_command(doctor)
commands.add_command(dump)
commands.add_command(new)
commands.add_command(plugins)
commands.add_command(port)
commands.add_command(run_command)
commands.add_command(top)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status, having said why it is not zero."""
    for stream in (sys.stdout, sys.stderr):
        # A name in a source file must not end the program because a terminal cannot show it.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = commands.main(list(arguments), prog_name="procession", standalone_mode=False)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.Abort:
        return _fail("interrupted", _INTERRUPTED)
    except ProcessError as error:  # a choice of plugins that cannot be had, however it was made
        return _fail(str(error), _CANNOT_BE_DONE)
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    # Some messages of click have several lines.
    click.echo(f"procession: {' '.join(message.split())}", err=True)
    return status
