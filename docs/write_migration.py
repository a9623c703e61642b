"""Write `docs/reference/migration.md` from the table that `procession port` reads.

    python docs/write_migration.py

A test checks that the page is what this writes.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from procession._commands.port.names import NAMES, Name, Verdict

PAGE = Path(__file__).parent / "reference" / "migration.md"

HEAD = """\
# Migration: every name of multiprocessing

<!-- Written by docs/write_migration.py from core/src/procession/_commands/port/names.py. -->

Names are without `multiprocessing.`; `.*` is every other name of a module.
`procession port FILE` finds those that a program uses;
[how to port a program](../how-to/port-from-multiprocessing.md) says what to do.

| | meaning |
| --- | --- |
| same | it does the same |
| moved | the same, in another place |
| differs | it does something else in some situation; [differences](../explanation/differences.md) says why |
| missing | there is none, and the note says what to do |

## The package

A context has these names, too.
"""  # noqa: E501 - a row of a table is one line

COLUMNS = """\
| multiprocessing | procession | | note |
| --- | --- | --- | --- |"""


def page() -> str:
    """Return the page, in Markdown."""
    lines = [HEAD]
    for module, paths in groupby(NAMES, key=_module):
        if module:
            lines.append(f"## `{module}`\n")
        lines += [COLUMNS, *(_row(path, NAMES[path]) for path in paths), ""]
    return "\n".join(lines)


def _module(path: str) -> str:
    """Return the module of a name, without ``multiprocessing.``; "" for the package's own."""
    return path.partition(".")[0] if "." in path else ""


def _row(path: str, name: Name) -> str:
    ours = f"`{name.ours}`" if name.ours else "-"
    note = "" if name.verdict is Verdict.MOVED else name.note
    return f"| `{path}` | {ours} | {name.verdict} | {note} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
