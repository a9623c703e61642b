"""`Process`, and what stands for the processes that are no children of this one.

Imported in every child: nothing here loads more than it needs, and what only a parent
needs is loaded when it starts its first child.
"""

from __future__ import annotations

import os
import sys

from procession._processes import sigint as _sigint
from procession._processes.authentication_string import AuthenticationString
from procession._processes.base_process import BaseProcess, errors
from procession._processes.family import active_children, current_process, family, parent_process

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, ClassVar, Unpack

    from procession._starting.process_options import OptionKeywords, ProcessOptions

__all__ = ["BaseProcess", "Process", "active_children", "current_process", "parent_process"]

# What a process object keeps for the parent; what a child has to know of it is in the parcel.
_KNOWN_TO_PARENT = (
    "_own_options",
    "_given",
    "_started_at",
    "_heard",
    "_post_mortem",
    "_lifecycle",
)


class Process(BaseProcess):
    """A function, or an overridden `run`, carried out by a process of its own.

    *group* is None, always. *target* is called with *args* and *kwargs* by `run`.
    *name* defaults to the class's name and the position in the family, such as
    ``Process-1:2``. *daemon* and *sigint* default to those of the creating process; see the
    attributes of these names.

    `procession.Process` is started by the method selected when `start` is called;
    ``get_context(method).Process`` by that method.

    *options*, and any option of `procession.ProcessOptions` as a keyword argument, say
    what the child is given apart from its work: variables, streams, limits. They add to
    the `default_process_options` of the class, keywords to both. What cannot be right raises
    `procession.errors.ProcessOptionError` (a `ValueError`) here.

    The object belongs to the process and to no thread in particular; two threads
    should not start or close one object at the same time.
    """

    #: The options of every process of this class, for subclasses to set.
    default_process_options: ClassVar[ProcessOptions | None] = None

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
        sigint: str | None = None,
        options: ProcessOptions | None = None,
        **keywords: Unpack[OptionKeywords],
    ) -> None:
        # The type checkers know that group is None; callers without one may not.
        if group is not None:
            raise AssertionError("group argument must be None for now")
        parent = family.current
        self._identity = (*parent._identity, next(family.counter))
        self._name = str(name or f"{type(self).__name__}-{':'.join(map(str, self._identity))}")
        self._daemon = parent._daemon if daemon is None else bool(daemon)
        self._sigint = parent._sigint if sigint is None else _sigint.check(sigint)
        self._strict_daemons = parent._strict_daemons
        self._authkey = parent._authkey
        self._parent_pid = os.getpid()
        self._parent_name = parent._name
        self._child = None
        self._closed = False
        self._target = target
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        if keywords or options is not None or self.default_process_options is not None:
            from procession._starting.process_options import combine

            self._own_options = combine(self.default_process_options, options, keywords)

    def run(self) -> None:
        """Call the target; override it in a subclass to do something else."""
        if self._target is not None:
            self._target(*self._args, **self._kwargs)

    def start(self) -> None:
        """Start the child.

        Raises `procession.ProcessStateError` (an `AssertionError`) when it was
        started before, when this is not the process that created the object, or in a
        daemonic process under the strict policy; what cannot be pickled raises here,
        in the caller, for the start methods that need to. When it raises, no process
        was started and the object may be started again.
        """
        self._check_open()
        if self._child is not None:
            raise errors().ProcessStartedError("cannot start a process twice")
        self._check_mine("start a process object created by current process")
        if family.current._daemon and family.current._strict_daemons:
            # The words are multiprocessing's.
            raise errors().DaemonicProcessError(
                "daemonic processes are not allowed to have children"
            )
        family.reap()
        if launcher is None:
            from procession._starting import launch  # noqa: F401 - sets the launcher
        assert launcher is not None
        launcher(self)

    def join(self, timeout: float | None = None, *, check: bool = False) -> None:
        """Wait until the child has ended, up to *timeout* seconds (None: for ever).

        Returns None either way; look at `exitcode` after a timeout. May be called any
        number of times. Raises `procession.ProcessStateError` (an `AssertionError`)
        before the start and in a process that is not the parent.

        With *check*, raises `procession.errors.ProcessFailedError` when the child has ended
        with anything but exit code 0; its cause is the child's exception, if it can be had.
        """
        super().join(timeout)
        if check and (failure := self.failure) is not None:
            raise errors().ProcessFailedError(str(failure), failure=failure) from failure.exception

    def _forget_work(self) -> None:
        """Drop the target and its arguments: the child has them now."""
        self._target = None
        self._args = ()
        self._kwargs = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for a child; the classes of contexts are made again by name there.

        What a subclass has in ``__slots__``, and its ``__getstate__``, count as usual.
        """
        state: Any = self.__getstate__()
        if isinstance(state, dict):
            state = _for_child(state)
        elif isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
            state = _for_child(state[0]), state[1]
        kind = type(self)
        if "_of_context" in kind.__dict__:
            names = kind._method_name, kind.__name__, kind._serializer_name
            return _new_of_context, names, state
        return _new, (kind,), state


def _for_child(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return *attributes* of a process object, without what only the parent has to know."""
    attributes = {name: it for name, it in attributes.items() if name not in _KNOWN_TO_PARENT}
    attributes["_child"] = None
    return attributes


def _new(kind: type[Process]) -> Process:
    return kind.__new__(kind)


def _new_of_context(
    method_name: str | None, class_name: str, serializer_name: str | None
) -> Process:
    if method_name is None:
        return _new(Process)
    return _new(process_class(method_name, class_name, serializer_name))


_classes: dict[tuple[str, str, str | None], type[Process]] = {}


def process_class(
    method_name: str, class_name: str, serializer_name: str | None = None
) -> type[Process]:
    """Return the `Process` class whose instances are started by *method_name*."""
    key = method_name, class_name, serializer_name
    if key not in _classes:
        members = {
            "_method_name": method_name,
            "_serializer_name": serializer_name,
            "_of_context": True,
            "__module__": __name__,
        }
        _classes.setdefault(key, type(class_name, (Process,), members))
    return _classes[key]


def process_class_with(kind: type[Process], options: ProcessOptions) -> type[Process]:
    """Return a class like *kind* whose processes all have *options*."""
    members = {
        "_method_name": kind._method_name,
        "_of_context": True,
        "__module__": __name__,
        "default_process_options": options,
    }
    return type(kind.__name__, (kind,), members)


class _MainProcess(BaseProcess):
    """Stands for a process that procession did not start."""

    def __init__(self) -> None:
        self._identity = ()
        self._name = "MainProcess"
        self._daemon = False
        self._authkey = AuthenticationString(os.urandom(32))
        self._parent_pid = None
        self._parent_name = None
        self._child = None
        self._closed = False

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


class ParentProcess(BaseProcess):
    """Stands, in a child, for the process that started it."""

    def __init__(self, name: str | None, pid: int | None, lifeline: int) -> None:
        self._identity = ()
        self._name = name or "MainProcess"
        self._daemon = False
        self._pid = pid
        self._lifeline = lifeline
        self._parent_pid = None
        self._parent_name = None
        self._child = None
        self._closed = False

    def is_alive(self) -> bool:
        """Return whether the parent still lives."""
        from procession._ground.waiting import wait_readable

        return not wait_readable(self._lifeline, 0)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the parent has ended, up to *timeout* seconds (None: for ever)."""
        from procession._ground.waiting import wait_readable

        wait_readable(self._lifeline, timeout)

    @property
    def pid(self) -> int | None:
        """The parent's process id."""
        return self._pid

    @property
    def ident(self) -> int | None:
        """The same as `pid`."""
        return self._pid

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the parent has ended."""
        return self._lifeline

    def __repr__(self) -> str:
        """Return name, pid and whether it lives."""
        state = "started" if self.is_alive() else "stopped"
        return f"<{type(self).__name__} name={self._name!r} pid={self._pid} {state}>"


family.current = _MainProcess()
#: What starts a child; set by `_starting.launch`, which only parents load. Kept here, as an
#: import for each start would touch ten more pages, which the kernel has write-protected at the
#: last fork.
launcher: Callable[[Process], None] | None = None

# What was pickled in a child that had imported the main module again names it so.
sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
