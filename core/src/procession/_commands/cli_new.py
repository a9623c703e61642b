"""``procession new``: the project of a plugin that works, to be made into one's own."""

from __future__ import annotations

from pathlib import Path

import click

from procession._choosing.registry import NOUNS, OURS
from procession._choosing.selection import registry
from procession._commands.new.project import Project

__all__ = ["new"]

_into = click.option(
    "--into",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="The directory for its folder; by default the current one.",
)


@click.group(invoke_without_command=True)
@click.pass_context
def new(context: click.Context) -> None:
    """Write the project of a plugin, complete and with tests that pass."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@new.command("start-method")
@click.argument("name")
@_into
def start_method(name: str, into: Path) -> None:
    """Write procession-NAME, a start method on top of posix_spawn."""
    _write(Project("start_method", name), into)


@new.command
@click.argument("name")
@_into
def transport(name: str, into: Path) -> None:
    """Write procession-NAME, a transport over pairs of sockets."""
    _write(Project("transport", name), into)


def _write(project: Project, into: Path) -> None:
    complaint = project.complaint() or _taken(project.name)
    if complaint:
        raise click.UsageError(complaint)
    try:
        folder = project.write(into)
    except FileExistsError as error:
        raise click.UsageError(f"{error}: nothing was written; move it away first") from None
    except OSError as error:
        raise click.UsageError(f"{into}: cannot be written to: {error.strerror}") from None
    click.echo(f"{folder} is a {NOUNS[project.kind]} that works. Next:\n")  # type: ignore[index]
    click.echo(f'    pip install -e "{folder}[testing]"')
    click.echo(f"    pytest {folder}")
    click.echo(f"    procession check {project.name}\n")
    click.echo(f"Then make {folder / 'src' / project.package} do what you want.")


def _taken(name: str) -> str | None:
    """Return who has *name* already, or None."""
    for kind, noun in NOUNS.items():
        if name in OURS[kind]:
            return f"procession itself has the {noun} {name!r}; choose another name"
        if name in registry().names(kind):
            return f"a {noun} {name!r} is installed here; choose another name"
    return None
