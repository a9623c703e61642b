"""What a child does first that was forked with its parent's memory.

A page of memory that the two share is copied when one of them first writes to it, and counting
a reference is writing. An attribute that was not looked up before costs two such pages, a
function or another object one, and a page as long as a hundred lines of Python. So the parent
does what can be done beforehand (`_starting.outfit`), and the rest is this: one function, of
globals and of arguments.

Only parents import this; their forked children have it.
"""

from __future__ import annotations

from procession._processes import inheritance
from procession._processes.family import become
from procession._processes.report_file import report_file
from procession._processes.sigint import apply as apply_sigint
from procession._starting.loop_signals import give_up
from procession.child import arm_dump_signal, detach_stdin, work

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TextIO

    from procession._choosing.selector import Bequest
    from procession._processes.child_hooks import ChildHooks
    from procession._processes.end_with_parent import Tie
    from procession._processes.report_file import Dump
    from procession.process import ParentProcess, Process


def begin(
    child: Process,
    parent: ParentProcess,
    parent_pid: int | None,
    loop_signals: Sequence[tuple[int, Any]],
    counter: Any,
    tie: Tie | None,
    sigint: str,
    report: int | None,
    faulthandler: Any,
    dumps: list[Dump],
    bequest: Bequest,
    writes_stacks: bool,
    stdin: TextIO | None,
    options: Mapping[str, Any] | None,
    hooks: Sequence[ChildHooks],
) -> int:
    """Be *child* in this process, which was just forked; return the exit code.

    The arguments are those of an `Outfit`. What the parent wanted done at its own end is
    forgotten already.
    """
    if tie is not None:
        tie.bind(parent_pid)
    if loop_signals:
        give_up(loop_signals)
    apply_sigint(sigint)
    if report is not None:
        report_file.adopt(report, faulthandler, dumps.pop())  # nobody keeps the dump but its user
    inheritance.bequest = bequest
    become(child, parent, counter)
    if writes_stacks:
        arm_dump_signal()
    if options is None or "stdin" not in options["streams"]:
        detach_stdin(stdin)
    return work(child, options, hooks)
