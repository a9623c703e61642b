"""Signal handlers and forks in the middle of looking after a child."""

from __future__ import annotations

import itertools
import linecache
import os
import signal
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import procession
from procession._processes import base_process
from procession.connection import wait
from procession.errors import ProcessClosedError
from procession.plugin import LOST_EXIT_CODE, PidChild
from procession.testing import payloads

if TYPE_CHECKING:
    from collections.abc import Callable

assert sys.platform == "linux"  # where these start methods are available

_SECONDS = 20


def _ended(method: str, code: int) -> Any:
    """Return a child that has ended with *code*, which nobody has asked for yet."""
    process = procession.get_context(method).Process(target=payloads.exit_with, args=(code,))
    process.start()
    assert wait([process.sentinel], _SECONDS)
    return process


def _at_line(number: int, look: Callable[[], object], files: set[str]) -> Callable[..., Any]:
    """Return a tracer that calls *look* once, at the line *number* that is run in *files*.

    Lines with `with` do not count. One is reported again between the block and the release of
    what it holds, where no signal handler is called, and what is raised would leave it held.
    """
    lines = 0

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in files:
            return None
        if event == "line" and not _text(frame).startswith("with "):
            lines += 1
            if lines == number:
                sys.settrace(None)
                look()
        return trace

    return trace


def _text(frame: Any) -> str:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()


def _look_twice(method: str, number: int) -> list[int | None]:
    """Ask for an exit code, and once more at line *number* of that; return both answers."""
    process = _ended(method, 7)
    files = {sys.modules[type(process._child).__module__].__file__ or ""}
    codes: list[int | None] = []

    def look() -> None:
        codes.append(process.exitcode)

    previous = sys.gettrace()
    sys.settrace(_at_line(number, look, files))
    try:
        look()
    finally:
        sys.settrace(previous)
    assert process.exitcode == 7
    process.close()
    return codes


def test_a_handler_may_look_at_the_child_at_any_line(method: str) -> None:
    """Whoever asks in the middle of another's question gets the same exit code, and no deadlock.

    As a SIGCHLD handler does that asks which of the children has ended.
    """
    for number in itertools.count(1):
        codes = _look_twice(method, number)
        assert set(codes) == {7}
        if len(codes) == 1:
            break  # it has no so many lines
    assert number > 2


class Interrupt(Exception):
    """What a handler raises."""


def _raise() -> None:
    raise Interrupt


def _collect_all(*_: object) -> None:
    """Collect every child that has ended, as some programs do in a SIGCHLD handler."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


@pytest.mark.parametrize("handler", [signal.SIG_IGN, _collect_all], ids=["ignored", "collected"])
def test_children_that_are_collected_at_once(method: str, handler: Any) -> None:
    """Where the kernel or a handler is faster than we are, only codes are lost, and no start fails.

    A forked child may have ended before its parent looks for the first time.
    """
    context = procession.get_context(method)
    previous = signal.signal(signal.SIGCHLD, handler)
    try:
        for _ in range(20):
            process = context.Process(target=payloads.exit_with, args=(3,))
            process.start()
            process.join(_SECONDS)
            assert process.exitcode in (3, LOST_EXIT_CODE)
            process.close()
    finally:
        signal.signal(signal.SIGCHLD, previous)


def test_a_child_that_is_collected_before_anybody_could_look() -> None:
    """It has ended, as its sentinel says for good, and its exit code is lost."""
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    os.waitpid(pid, 0)
    child = PidChild(pid)

    assert LOST_EXIT_CODE == child.wait(_SECONDS)
    assert wait([child.sentinel], 0)
    child.signal(signal.SIGTERM)
    child.close()


def test_a_handler_that_raises_leaves_no_zombie(method: str) -> None:
    """Whoever asks next gets the same exit code, and collects what is left to collect."""
    for number in itertools.count(1):
        process = _ended(method, 7)
        files = {sys.modules[type(process._child).__module__].__file__ or ""}
        was_raised = False
        previous = sys.gettrace()
        sys.settrace(_at_line(number, _raise, files))
        try:
            process.join()
        except Interrupt:
            was_raised = True
        finally:
            sys.settrace(previous)
        with ThreadPoolExecutor(1) as others:  # nothing is held for this thread alone
            assert others.submit(getattr, process, "exitcode").result(_SECONDS) == 7
            assert process not in others.submit(procession.active_children).result(_SECONDS)
        assert not os.path.exists(f"/proc/{process.pid}")
        process.close()
        if not was_raised:
            break  # it has no so many lines
    assert number > 2


def test_a_child_forked_while_another_thread_looks(method: str) -> None:
    """A forked copy drops what it inherited without waiting for a thread that it has not."""
    process = _ended(method, 0)
    handle = process._child
    holds, forked = threading.Event(), threading.Event()

    def look() -> None:
        with handle._lock:  # as `poll` does, for as long as it asks the kernel
            holds.set()
            forked.wait(_SECONDS)

    thread = threading.Thread(target=look)
    thread.start()
    assert holds.wait(_SECONDS)
    pid = os.fork()
    if not pid:
        alive = weakref.ref(handle)
        process._child = None
        del handle
        os._exit(0 if alive() is None else 1)
    copy = PidChild(pid)
    code = copy.wait(_SECONDS)
    copy.signal(signal.SIGKILL)
    copy.wait()
    forked.set()
    thread.join()
    process.close()
    copy.close()
    assert code == 0


def _use(process: Any) -> None:
    """Do what a thread does that looks after a child."""
    process.join()
    assert process.exitcode == 7
    assert process.failure.exitcode == 7
    assert not process.is_alive()


def test_another_thread_may_close_the_child_at_any_line(method: str) -> None:
    """Whoever was looking after it gets the right answers, or hears that it was closed."""
    files = {base_process.__file__}
    for number in itertools.count(1):
        process = _ended(method, 7)
        previous = sys.gettrace()
        sys.settrace(_at_line(number, process.close, files))
        try:
            _use(process)
        except ProcessClosedError:
            was_closed = True
        else:
            was_closed = process._closed
        finally:
            sys.settrace(previous)
        assert process.failure.exitcode == 7
        assert process not in procession.active_children()
        process.close()
        if not was_closed:
            break  # it has no so many lines
    assert number > 10
