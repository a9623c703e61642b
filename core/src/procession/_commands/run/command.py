"""The command ``procession run``: its arguments, without anything that a program would wait for."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would delay every program
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HELP", "SUMMARY", "main"]

SUMMARY = "Run a program that was written for multiprocessing, unmodified."

HELP = f"""\
Usage: procession run [OPTIONS] SCRIPT [ARGUMENTS]...
       procession run [OPTIONS] -m MODULE [ARGUMENTS]...

  {SUMMARY}

  Every import of multiprocessing in it and in its children is procession.
  The exit status is the program's.

Options:
  --start-method NAME  As PROCESSION_START_METHOD: what the program chooses
                       itself comes first.
  --transport NAME     As PROCESSION_TRANSPORT.
  --serializer NAME    As PROCESSION_SERIALIZER.
  -m MODULE            Run a module, as python -m does.
  -h, --help           Show this message and exit.
"""

_CANNOT_BE_DONE = 2
_OPTIONS = {
    "--start-method": ("start_method", "PROCESSION_START_METHOD"),
    "--transport": ("transport", "PROCESSION_TRANSPORT"),
    "--serializer": ("serializer", "PROCESSION_SERIALIZER"),
}


def main(arguments: Sequence[str]) -> int:
    """Run the program; return the exit status where it has not said another one.

    Raises what the program raises: the interpreter has to see it, as it does in any program.
    """
    rest = list(arguments)
    module = None
    chosen: dict[str, str] = {}
    while rest and rest[0].startswith("-"):
        option, _, value = rest.pop(0).partition("=")
        if option == "--":
            break
        if option in ("-h", "--help"):
            print(HELP, end="")
            return 0
        if option.startswith("-m") and not option.startswith("--"):
            module = option[2:] or (rest.pop(0) if rest else "")
            if not module:
                return _fail("the option -m needs the name of a module")
            break
        if option not in _OPTIONS:
            return _fail(f"there is no option {option}; see procession run --help")
        value = value or (rest.pop(0) if rest else "")
        if not value:
            return _fail(f"the option {option} needs a name")
        chosen[option] = value
    if module is None and not rest:
        return _fail("there is nothing to run; see procession run --help")
    problem = _choose(chosen)
    return _fail(problem) if problem else _run(module, rest)


def _choose(chosen: dict[str, str]) -> str:
    """Choose start method and transport for the program; return what is wrong with them."""
    for option, name in chosen.items():
        from procession._choosing.selection import registry
        from procession.errors import PluginError

        kind, variable = _OPTIONS[option]
        try:
            registry().check_name(kind, name, source=option)  # type: ignore[arg-type]
        except PluginError as error:
            return str(error)
        os.environ[variable] = name
    return ""


def _run(module: str | None, rest: list[str]) -> int:
    from procession._commands.run import main_program, redirect

    try:
        if module is not None:
            redirect.install(module.partition(".")[0])
            main_program.run_module(module, rest)
        else:
            redirect.install()
            main_program.run_path(rest[0], rest[1:])
    except main_program.CannotRunError as error:
        return _fail(str(error), error.status)
    return 0


def _fail(message: str, status: int = _CANNOT_BE_DONE) -> int:
    print(f"procession: {message}", file=sys.stderr)
    return status
