"""Keeping what the standard package knows in step with what procession knows.

The two packages have a current process, a parent and children each. Programs and libraries
ask the standard one, so it is told here, where it is loaded: `follow` says how things are
when it begins, the other functions what happens later.

The key of the standard package is the family's: a child has that of its parent. Where the
parent's was not loaded when its first child started, it is procession's own key, so that
processes that load the package later, each by itself, agree.
"""

from __future__ import annotations

import atexit
import itertools
import sys

from procession import process
from procession._ground import standard as _standard
from procession._ground.after_fork import in_forked_children
from procession._processes import inheritance
from procession._processes.family import family

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_standard_process: Any = None
_watches_forks = False


def follow(*, fresh: bool) -> None:
    """Begin to keep the standard package in step, which is loaded.

    *fresh*: whether it has been loaded just now, or was loaded by a helper process that this
    child was forked from; it has nothing of its own to say then.
    """
    global _standard_process
    _standard_process = _standard.module("multiprocessing.process")
    _standard.followed = True  # other threads tell of their children from here on
    if fresh:
        adopt_bequest()
    for name in ("errors", "_messages.pickling"):
        module = sys.modules.get(f"procession.{name}")
        if module is not None:
            module.follow_standard()
    if process.parent_process() is not None:
        become()
    for child in list(family.children):
        note_start(child)


def bequest(give: Callable[[int], Any]) -> dict[str, Any] | None:
    """Return what a child in a fresh interpreter is told of the standard package here.

    Where it is not loaded, what this process was told. *give* promises a descriptor to the
    child: it uses this process's tracker of shared memory, if there is one.
    """
    if not _standard.is_loaded():
        told = _standard.bequest
        if told is not None and told["tracker"] is not None:
            return {**told, "tracker": give(told["tracker"])}
        return None if told is None else dict(told)
    import multiprocessing

    module: Any = _standard.module("multiprocessing.resource_tracker")
    # One that is not running is not started for this: most programs never need it.
    tracker = None if module is None else module._resource_tracker._fd
    return {
        "authkey": bytes(multiprocessing.current_process().authkey),
        "method": multiprocessing.get_start_method(allow_none=True),
        "tracker": None if tracker is None else give(tracker),
    }


def adopt_bequest() -> None:
    """Let the standard package, new to this process, say what the parent's said."""
    import multiprocessing

    current = multiprocessing.current_process()
    inherited = _standard.bequest
    if inherited is None:
        current.authkey = bytes(process.current_process().authkey)
        return
    current.authkey = inherited["authkey"]
    current.name = inheritance.process_name
    if inherited["method"] is not None:
        multiprocessing.set_start_method(inherited["method"], force=True)
    if inherited["tracker"] is not None:
        from multiprocessing import resource_tracker

        tracker: Any = resource_tracker._resource_tracker
        tracker._fd = inherited["tracker"]


def forget_parent() -> None:
    """Forget, in a process just forked, what the standard package was to do for the parent."""
    util = _standard.module("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
        atexit.register(util._exit_function)  # our own begin has cleared all there were


def become() -> None:
    """Tell the standard package which process this is, once procession knows it."""
    child = process.current_process()
    parent: Any = process.parent_process()
    standard = _standard_process
    base: Any = standard.BaseProcess

    class CurrentProcess(base):  # type: ignore[misc]  # it is nobody's before it is loaded
        """Stands for this process where the standard package is asked for it."""

        # It may be changed on either side.
        _name = property(lambda self: child._name, lambda self, name: setattr(child, "name", name))

        def __init__(self) -> None:
            self._identity = child._identity
            self._config = {**standard._current_process._config, "daemon": child._daemon}
            self._parent_pid = child._parent_pid
            self._parent_name = child._parent_name
            self._popen = None
            self._closed = False

    standard._current_process = CurrentProcess()
    standard._parent_process = standard._ParentProcess(parent._name, parent._pid, parent.sentinel)
    standard._children = set()
    standard._process_counter = itertools.count(1)


def note_start(child: process.BaseProcess) -> None:
    """Tell the standard package of a child that was started."""
    global _watches_forks
    if not _watches_forks:
        _watches_forks = True
        in_forked_children(_disown)
    _standard_process._children.add(child)


def note_end(child: process.BaseProcess) -> None:
    """Tell the standard package of a child that has ended."""
    _standard_process._children.discard(child)


def forget_segment(name: str) -> None:
    """Tell the standard package that the shared memory *name*, which it may have made, is removed.

    Its tracker would say at the end that nobody has.
    """
    module: Any = _standard.module("multiprocessing.resource_tracker")
    if module is None or module._resource_tracker._fd is None:
        return
    # Whether it knows the name is known there only. Known twice is known once, and forgetting
    # what is not known is an error.
    for tell in (module.register, module.unregister):
        tell(f"/{name}", "shared_memory")


def _disown() -> None:
    """Drop, in a forked copy, the children that are its parent's."""
    children = _standard_process._children
    _standard_process._children = {
        child for child in children if not isinstance(child, process.BaseProcess)
    }


class Popen:
    """What the standard package asks of its children, for a child of procession."""

    def __init__(self, child: process.BaseProcess) -> None:
        self._child = child

    def poll(self) -> int | None:
        """Return the exit code, or None while the child runs."""
        return self._child._exit_code()

    def terminate(self) -> None:
        """End all children that must not outlive this process, as procession does at its end.

        The package asks for it, one daemonic child after the other, when the interpreter
        exits, and waits without end for those that do not heed SIGTERM.
        """
        from procession._starting.launch import end_children

        end_children()
