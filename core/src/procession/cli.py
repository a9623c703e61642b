"""The command line's way in.

It imports next to nothing: a child with a fresh interpreter imports the main module of its
parent again, and the script ``procession`` imports this. click and rich, which only the
parent needs, are imported when there is a command to run.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_EXTRA = frozenset({"click", "psutil", "rich"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    *arguments*: without the name of the program; those of this process if None. The
    status is 0 for success, 1 when the work failed, 2 when what was asked for cannot be
    done, 130 after an interrupt; all but the first come with one line on stderr. Of
    ``procession run`` it is the program's, and what the program raises is raised here.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] == "run":
        # Before click and the rest: they are not what the program was started for.
        from procession._commands.run.command import main as run_program

        return run_program(given[1:])
    try:
        from procession._commands.cli_commands import run
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] not in _EXTRA:
            raise
        print(
            "procession: the command line needs the extra 'cli': pip install \"procession[cli]\"",
            file=sys.stderr,
        )
        return 2
    return run(given)
