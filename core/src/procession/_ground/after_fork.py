"""What every forked copy of this process has to put in order, however it was forked."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable

# In the order of their registration. One hook for all: a registration cannot be undone,
# and each one is run, and its memory copied, in every child.
_functions: list[Callable[[], None]] = []


def in_forked_children(function: Callable[[], None]) -> None:
    """Have *function* called first thing in every child that is forked from now on.

    Call it when there is something to put in order for the first time, not on import. The
    child has one thread then, and its locks are as its parent's threads held them.
    """
    if not _functions and sys.platform != "win32":
        os.register_at_fork(after_in_child=_run)
    _functions.append(function)


def _run() -> None:
    failures: list[BaseException] = []
    for function in _functions:
        try:
            function()
        except BaseException as error:  # the others have nothing to do with it
            failures.append(error)
    if failures:
        raise failures[0]  # the interpreter prints it, and goes on
