"""What Ctrl-C means in a child: the policies, and putting one into force.

A terminal sends SIGINT to every process of the program at once. `QUIET`, the default, raises
KeyboardInterrupt in the child, so that its ``finally`` clauses and handlers run, but leaves it
to the parent to print a traceback. `RAISE` prints one for every child, as multiprocessing
does. `IGNORE` leaves the whole matter to the parent.

The interpreter itself may lose it. The KeyboardInterrupt can be raised in a callback of a weak
reference, as an import has them, or in a ``__del__``: nothing that is raised there goes any
further. And the signal may come when the interpreter has looked for signals for the last time
before a system call, which then sleeps as if nothing had happened. So

- what was raised in such a callback is raised once more, after it (`listen`);
- no wait of procession's own is one long system call (`procession._ground.waiting`);
- a child whose parent has heard of a Ctrl-C and waits for its end is *nudged* (`wait_nudging`):
  by a signal that does nothing but end a system call, so that the interpreter looks again.
"""

from __future__ import annotations

# The signal module itself would cost a child the import of `enum`.
import _signal  # type: ignore[import-not-found]
import sys
from _signal import SIG_DFL, getsignal, signal
from _thread import get_ident, interrupt_main

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from procession._contracts.child_handle import Child

QUIET = "quiet"
RAISE = "raise"
IGNORE = "ignore"
POLICIES = (QUIET, RAISE, IGNORE)


def check(policy: str) -> str:
    """Return *policy*. Raises `ValueError` when there is none of that name."""
    if policy not in POLICIES:
        raise ValueError(f"sigint must be one of {', '.join(POLICIES)}, not {policy!r}")
    return policy


def apply(policy: str) -> None:
    """Put *policy* into force in this process, in its main thread.

    `QUIET` and `RAISE` leave the handler alone: a program that was started with SIGINT
    ignored, as by nohup, keeps ignoring it in its children, and libraries such as asyncio
    look for the interpreter's own handler.
    """
    if policy == IGNORE:
        _signal.signal(_SIGINT, _signal.SIG_IGN)
        return
    # A forked child has all of this from its parent, and each page that it leaves alone is shared.
    if _listener != get_ident():
        listen(get_ident())
    if _SIGURG and getsignal(_SIGURG) == SIG_DFL:
        signal(_SIGURG, _do_nothing)


def inherited(policy: str) -> str:
    """Return what *policy* comes to in a child that may not get our signal handlers otherwise.

    A process that ignores SIGINT has children that do, too: those of a fork server are
    copies of a process that was started at another time.
    """
    return IGNORE if getsignal(_SIGINT) == _signal.SIG_IGN else policy


# -- what was raised where nobody can catch it

#: The thread in which signal handlers are called.
_listener = 0
_report: Any = None


def listen(main_thread: int) -> None:
    """Have a KeyboardInterrupt that was raised in vain raised again, in *main_thread*.

    That is one of the interpreter's own handler. What else is raised in vain goes to the
    ``sys.unraisablehook`` that was there.
    """
    global _listener, _report
    _listener = main_thread
    if sys.unraisablehook is not _raise_again:
        _report = sys.unraisablehook
        sys.unraisablehook = _raise_again


def _raise_again(unraisable: sys.UnraisableHookArgs) -> None:
    try:
        is_lost = _is_lost(unraisable)
    except KeyboardInterrupt:
        is_lost = True  # another one
    if is_lost:
        # Called from C, and then nothing more is called here: it comes when this has returned.
        again: Callable[[Any], None] = interrupt_main
        for _ in map(again, (_SIGINT,)):
            return
    _report(unraisable)


def _is_lost(unraisable: sys.UnraisableHookArgs) -> bool:
    if unraisable.exc_type is not KeyboardInterrupt or get_ident() != _listener:
        return False
    # After an exit handler there is nobody left to raise it to.
    is_exit = "atexit" in (unraisable.err_msg or "") or sys.is_finalizing()
    return not is_exit and _signal.getsignal(_SIGINT) is _signal.default_int_handler


# -- what was not noticed before a system call

_SIGINT = 2
#: None where there is no such signal.
_SIGURG: int | None = getattr(_signal, "SIGURG", None)
#: How often a child is nudged: by SIGURG, which nearly nobody uses, and which does nothing where
#: there is no handler.
_NUDGE_SECONDS = 1.0
# How many KeyboardInterrupts have come out of a wait for a child.
_interrupted_waits = 0


def _do_nothing(number: int, frame: object) -> None:
    """Handle a nudge: the interpreter looks for other signals as well."""


def wait_for(child: Child, policy: str, heard_before: int, timeout: float | None) -> int | None:
    """Wait like `Child.wait`, and nudge *child*, of *policy*, if it may not have heard Ctrl-C.

    *heard_before* is what `heard` returned when it was started: there was nothing to hear for it
    if there has been no Ctrl-C since.
    """
    global _interrupted_waits
    if policy != IGNORE and heard() > heard_before:
        return _wait_nudging(child, timeout)
    try:
        return child.wait(timeout)
    except KeyboardInterrupt:
        _interrupted_waits += 1
        raise


def heard() -> int:
    """Return a number that is greater after a Ctrl-C of which this process is known to have heard.

    It is greater by two for good once a wait for a child has been interrupted, and by one as
    long as a KeyboardInterrupt is being handled here or has ended the program.
    """
    is_being_handled = (
        sys.exc_info()[0] is KeyboardInterrupt
        or getattr(sys, "last_type", None) is KeyboardInterrupt
    )
    return 2 * _interrupted_waits + is_being_handled


def _wait_nudging(child: Child, timeout: float | None) -> int | None:
    if sys.platform == "win32":
        return child.wait(timeout)
    from time import monotonic

    until = None if timeout is None else monotonic() + timeout
    left = _NUDGE_SECONDS
    while True:
        if until is not None:
            left = min(_NUDGE_SECONDS, until - monotonic())
        code = child.wait(left)
        if code is not None or left < _NUDGE_SECONDS:
            return code
        try:
            child.signal(_signal.SIGURG)
        except (NotImplementedError, OSError):
            continue  # it is no process of its own, or somebody else's by now


def unblock() -> None:
    """Let SIGINT through, which `spawn_interpreter` holds back while a process is young.

    What has come meanwhile is raised here as KeyboardInterrupt, unless it is ignored.
    """
    if sys.platform != "win32":
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_SIGINT,))
