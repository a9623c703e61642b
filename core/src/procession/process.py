"""`Process`, and the processes that a program can ask for.

Imported in every child: nothing here loads more than it needs, and what only a parent
needs is loaded when it starts its first child.
"""

from __future__ import annotations

import itertools
import os
import sys

from procession import _sigint, _standard, abc
from procession._authentication_string import AuthenticationString
from procession._variables import variable

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, ClassVar, Unpack

    from procession._child_handle import Child
    from procession._failure import FailureReport
    from procession._lifecycle import Lifecycle
    from procession._limit_watch import LimitExceeded, Watch
    from procession._post_mortem import PostMortem
    from procession._process_options import OptionKeywords, ProcessOptions
    from procession._standard_state import Popen
    from procession._stop import StopStage

__all__ = ["BaseProcess", "Process", "active_children", "current_process", "parent_process"]

# Written out because the signal module costs a child more than a quarter of its own start.
_SIGINT, _SIGTERM, _SIGKILL = 2, 15, 9
# What a process object keeps for the parent; what a child has to know of it is in the parcel.
_KNOWN_TO_PARENT = (
    "_own_options",
    "_given",
    "_started_at",
    "_heard",
    "_post_mortem",
    "_lifecycle",
)
#: The variable that asks for stacks on a signal; see `procession._stack_file`.
DUMP_SIGNAL = "PROCESSION_DUMP_SIGNAL"


def _errors() -> Any:
    """Return the module of the errors, which makes fifty classes: most children raise none."""
    from procession import errors

    return errors


class BaseProcess(abc.Process):
    """What every process object has, also the one that stands for this very process."""

    #: The start method of this class; None follows the selection when it is started.
    _method_name: str | None = None
    #: The serializer of a start; None for the selected one.
    _serializer_name: str | None = None

    _identity: tuple[int, ...]
    _name: str
    _daemon: bool
    _authkey: AuthenticationString
    _parent_pid: int | None
    _parent_name: str | None
    _child: Child | None
    _closed: bool
    _sigint = _sigint.QUIET
    _strict_daemons = False
    _own_options: ProcessOptions | None = None
    _limit_watch: Watch | None = None
    #: The start method that started it, once it was started.
    _started_by: str | None = None
    #: For those who wait for it: when it was started, and the files that it was given; None
    #: when it inherited all there were.
    _started_at = 0.0
    _given: frozenset[tuple[int, int]] | None = None
    #: What its parent had heard of Ctrl-C when it was started; see `procession._sigint.heard`.
    _heard = 0
    _post_mortem: PostMortem | None = None
    _last_signal: int | None = None
    _lifecycle: Lifecycle | None = None
    #: Whether who starts it knows that other threads are alive, and takes the risk at a fork.
    _tolerates_threads = False

    def run(self) -> None:
        """See `procession.abc.Process.run`."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to run")

    def _check_open(self) -> None:
        if self._closed:
            raise _errors().ProcessClosedError("process object is closed")

    def _check_mine(self, what: str) -> None:
        if self._parent_pid != os.getpid():
            raise _errors().ForeignProcessError(
                f"can only {what}; this one was created by process {self._parent_pid}, "
                f"and this is process {os.getpid()}"
            )

    def _signal(self, number: int) -> None:
        self._check_open()
        if self._child is None:
            raise _errors().UnstartedSignalError(
                "process not started: there is nothing to signal yet"
            )
        self._last_signal = number or self._last_signal
        self._child.signal(number)

    def _signal_tree(self, number: int) -> None:
        from procession._process_tree import signal_tree

        self._signal(0)  # the checks
        assert self._child is not None
        self._last_signal = number
        signal_tree(self._child, number)

    def _exit_code(self) -> int | None:
        """Return the exit code, without any check; None also before the start."""
        return None if self._child is None else self._child.poll()

    def start(self) -> None:
        """See `Process.start`; this object stands for a process that runs already."""
        raise _errors().ProcessStartedError("cannot start a process twice")

    def interrupt(self) -> None:
        """Send SIGINT to the child; nothing happens when it has ended."""
        self._signal(_SIGINT)

    def terminate(self, *, tree: bool = False) -> None:
        """Send SIGTERM to the child; nothing happens when it has ended.

        Neither ``finally`` clauses nor exit handlers run in the child, unless it
        handles the signal. Its daemonic children end with it, however it ends. With *tree*
        all its descendants get the signal, also those that it starts meanwhile; they are
        found as long as the child runs. See `procession._process_tree`.

        With *tree*, raises `PermissionError` when a descendant belongs to another user (the
        others have got the signal) and `NotImplementedError` where there is no ``/proc``.
        """
        self._signal_tree(_SIGTERM) if tree else self._signal(_SIGTERM)

    def kill(self, *, tree: bool = False) -> None:
        """Send SIGKILL to the child, with *tree* as in `terminate`."""
        self._signal_tree(_SIGKILL) if tree else self._signal(_SIGKILL)

    def stop(self, grace: float = 5.0, *, tree: bool = False) -> StopStage:
        """Stop the child: ask it, then tell it, then kill it; return what it took.

        Asking is SIGINT: KeyboardInterrupt in the child, which may catch it, finish what it
        is doing and return; a child that ignores SIGINT by its own policy is not asked. If
        it has not ended after *grace* seconds it gets SIGTERM, and SIGKILL after as long
        again. With *tree*, only the child is asked, but the stop is not over before its
        descendants have ended, too, and the later signals go to all of them.

        The child is collected afterwards. Raises what `terminate` raises, and
        `procession.TimeoutError` if the kernel does not let go of the killed child.
        """
        from procession._stop import stop

        self._check_open()
        self._check_mine("stop a child process")
        if self._child is None:
            raise _errors().UnstartedSignalError(
                "process not started: there is nothing to stop yet"
            )
        stage = stop(self._child, self._sigint, grace, tree=tree)
        if stage == "terminated" or stage == "killed":
            self._last_signal = _SIGTERM if stage == "terminated" else _SIGKILL
        self._leave()
        return stage

    def join(self, timeout: float | None = None) -> None:
        """Wait until the child has ended, up to *timeout* seconds (None: for ever).

        Returns None either way; look at `exitcode` after a timeout. May be called any
        number of times. Raises `procession.ProcessStateError` (an `AssertionError`)
        before the start and in a process that is not the parent.
        """
        self._check_open()
        self._check_mine("join a child process")
        if self._child is None:
            raise _errors().ProcessNotStartedError("can only join a started process")
        if _sigint.wait_for(self._child, self._sigint, self._heard, timeout) is not None:
            self._leave()

    async def wait(self) -> int:
        """Wait, in asyncio, until the child has ended; join it and return its exit code.

        Raises what `join` raises. See `procession.aio.wait`.
        """
        from procession import aio

        return await aio.wait(self)

    def is_alive(self) -> bool:
        """Return whether the child was started and has not ended."""
        self._check_open()
        if self is _current:
            return True
        self._check_mine("test a child process")
        if self._child is None:
            return False
        if self._child.poll() is None:
            return True
        self._leave()
        return False

    def _leave(self) -> None:
        """Be no longer among the children that run: it has ended.

        Not among them only once all else is done: where a signal handler raises before,
        whoever asks next does the rest. Each step may be taken twice, also by two threads.
        """
        if self not in _children:
            return
        from procession._relatives import relatives

        relatives.note_end(self)
        _collect_helpers()
        if _standard.followed:
            from procession import _standard_state

            _standard_state.note_end(self)
        if self._limit_watch is not None:
            from procession._limit_watch import watcher

            watcher.drop(self._limit_watch)
        exit_code = self._exit_code() or 0
        if self._post_mortem is not None:
            self._post_mortem.collect(exit_code)
        lifecycle = self.__dict__.pop("_lifecycle", None)  # of two threads, one takes it
        _children.discard(self)
        if lifecycle is not None:
            lifecycle.ended(self, exit_code)

    @property
    def _popen(self) -> Popen:
        """What the standard package asks of those that it knows as its children."""
        from procession._standard_state import Popen

        return Popen(self)

    def close(self) -> None:
        """Give back the sentinel and what else the object holds.

        Raises `procession.ProcessStateError` (a `ValueError`) while the child runs.
        Idempotent; afterwards everything but the name and the repr raises.
        """
        if self._closed:
            return
        if self._child is not None:
            if self._child.poll() is None:
                raise _errors().ProcessRunningError(
                    "Cannot close a process while it is still running. "
                    "You should first call join() or terminate()."
                )
            self._leave()
            # It is kept: another thread may be about to ask for the exit code, which it knows.
            self._child.close()
        self._closed = True

    @property
    def name(self) -> str:
        """A label for people; unique by default, such as ``Process-1:2``."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name
        if self is _current and _parent is not None:
            from procession._name_tag import new_tag

            new_tag.wear(name, self._started_by, self._parent_pid)

    @property
    def daemon(self) -> bool:
        """Whether the child is ended when its parent ends. Inherited; set before start."""
        return self._daemon

    @daemon.setter
    def daemon(self, daemonic: bool) -> None:
        self._check_open()
        if self._child is not None:
            raise _errors().ProcessStartedError("process has already started")
        self._daemon = bool(daemonic)

    @property
    def sigint(self) -> str:
        """What Ctrl-C means in the child: "quiet", "raise" or "ignore". Set before start.

        *quiet*: KeyboardInterrupt; if nobody catches it the child ends with exit code 1 and
        prints nothing, as the parent was interrupted, too. *raise*: the same, with a
        traceback, as in multiprocessing. *ignore*: nothing; the parent decides. Inherited.
        """
        return self._sigint

    @sigint.setter
    def sigint(self, policy: str) -> None:
        self._check_open()
        if self._child is not None:
            raise _errors().ProcessStartedError("process has already started")
        self._sigint = _sigint.check(policy)

    @property
    def authkey(self) -> AuthenticationString:
        """The key that connections between related processes are authenticated with."""
        return self._authkey

    @authkey.setter
    def authkey(self, authkey: bytes) -> None:
        self._authkey = AuthenticationString(authkey)

    @property
    def pid(self) -> int | None:
        """The child's process id; None before the start."""
        self._check_open()
        if self is _current:
            return os.getpid()
        return None if self._child is None else self._child.pid

    @property
    def ident(self) -> int | None:
        """The same as `pid`."""
        return self.pid

    @property
    def exitcode(self) -> int | None:
        """The child's exit code; -N when signal N killed it; None while it runs.

        255 also when the real one was lost: somebody else collected it, or the fork
        server was killed before it could report it.
        """
        self._check_open()
        return None if self is _current else self._exit_code()

    @property
    def process_options(self) -> ProcessOptions | None:
        """What the child is given apart from its work; None when nothing was asked for.

        May be replaced before the start. None also in the child: there it is done.
        """
        return self._own_options

    @process_options.setter
    def process_options(self, options: ProcessOptions | None) -> None:
        self._check_open()
        if self._child is not None:
            raise _errors().ProcessStartedError("process has already started")
        if options is not None:
            from procession._process_options import combine

            options = combine(None, options, {})
        self._own_options = options

    @property
    def limit_exceeded(self) -> LimitExceeded | None:
        """The limit, `max_seconds` or `max_rss`, that the child was killed for, or None.

        Its text says what was used and what was allowed. Survives `close`.
        """
        return None if self._limit_watch is None else self._limit_watch.exceeded

    @property
    def failure(self) -> FailureReport | None:
        """How the child failed; None while it runs, and when it has ended with exit code 0.

        An exception with its traceback, a signal, a likely cause: as far as it is known. Its
        text is for people. Survives `close`.
        """
        if self._post_mortem is None:
            return None
        if self._child is not None and self._child.poll() is not None:
            self._leave()
        return self._post_mortem.failure(self)

    @property
    def exception(self) -> BaseException | None:
        """The exception that ended the child, or None if there is none to be had here.

        It was pickled there and is unpickled here; where that fails, `failure` has its text.
        """
        failure = self.failure
        return None if failure is None else failure.exception

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the child has ended.

        For `procession.connection.wait`, select, asyncio. It stays this object's.
        Raises `procession.ProcessStateError` (a `ValueError`) before the start.
        """
        self._check_open()
        if self._child is None:
            raise _errors().ProcessNotStartedError("process not started: it has no sentinel yet")
        return self._child.sentinel

    def __repr__(self) -> str:
        """Return the class, name, pids, state and exit code."""
        parts = [type(self).__name__, f"name={self._name!r}"]
        exit_code = None
        if self._closed:
            state = "closed"
        elif self is _current:
            state = "started"
        elif self._parent_pid != os.getpid():
            state = "unknown"
        elif self._child is None:
            state = "initial"
        else:
            parts.append(f"pid={self._child.pid}")
            exit_code = self._child.poll()
            state = "started" if exit_code is None else "stopped"
        parts += [f"parent={self._parent_pid}", state]
        if exit_code is not None:
            parts.append(f"exitcode={exit_code_text(exit_code)}")
        if self._daemon:
            parts.append("daemon")
        return f"<{' '.join(parts)}>"


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
        parent = current_process()
        self._identity = (*parent._identity, next(_counter))
        self._name = name or f"{type(self).__name__}-{':'.join(map(str, self._identity))}"
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
            from procession._process_options import combine

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
            raise _errors().ProcessStartedError("cannot start a process twice")
        self._check_mine("start a process object created by current process")
        if _current._daemon and _current._strict_daemons:
            # The words are multiprocessing's.
            raise _errors().DaemonicProcessError(
                "daemonic processes are not allowed to have children"
            )
        _reap()
        if launcher is None:
            from procession import _launch  # noqa: F401 - sets the launcher
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
            raise _errors().ProcessFailedError(str(failure), failure=failure) from failure.exception

    def _forget_work(self) -> None:
        """Drop the target and its arguments: the child has them now."""
        self._target = None
        self._args = ()
        self._kwargs = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for a child; the classes of contexts are made again by name there."""
        state = self.__dict__.copy()
        state["_child"] = None
        for name in _KNOWN_TO_PARENT:
            state.pop(name, None)
        kind = type(self)
        if "_of_context" in kind.__dict__:
            names = kind._method_name, kind.__name__, kind._serializer_name
            return _new_of_context, names, state
        return _new, (kind,), state


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
        from procession._waiting import wait_readable

        return not wait_readable(self._lifeline, 0)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the parent has ended, up to *timeout* seconds (None: for ever)."""
        from procession._waiting import wait_readable

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


_current: BaseProcess = _MainProcess()
_parent: ParentProcess | None = None
_children: set[BaseProcess] = set()
# One for each start method in use that has helper processes; see `StartMethod.collect`.
_collectors: list[Callable[[], None]] = []
_counter = itertools.count(1)
#: What starts a child; set by `procession._launch`, which only parents load. Kept here, as an
#: import for each start would touch ten more pages, which the kernel has write-protected at the
#: last fork.
launcher: Callable[[Process], None] | None = None

# What was pickled in a child that had imported the main module again names it so.
sys.modules.setdefault("__mp_main__", sys.modules["__main__"])


def current_process() -> BaseProcess:
    """Return the object that stands for this process."""
    return _current


def parent_process() -> BaseProcess | None:
    """Return an object that stands for the parent, or None in the main process.

    It has a `sentinel` that becomes readable when the parent has ended, however.
    """
    return _parent


def active_children() -> list[BaseProcess]:
    """Return the children of this process that have not ended; reaps those that have."""
    _reap()
    return list(_children)


def _reap() -> None:
    for process in list(_children):
        if process._child is None or process._child.poll() is not None:
            process._leave()
    _collect_helpers()


def _collect_helpers() -> None:
    for collect in _collectors:
        collect()


def exit_code_text(code: int) -> str:
    """Return *code* as people read it, with the name of a signal: ``-SIGKILL``."""
    if code >= 0:
        return str(code)
    import signal

    try:
        return f"-{signal.Signals(-code).name}"
    except ValueError:
        return str(code)


def become(process: Process, parent: ParentProcess, counter: itertools.count[int]) -> None:
    """Make *process* the current one, in the child that it stands for.

    *parent* stands for its parent there, and *counter* counts its children from 1.
    """
    global _current, _parent, _counter
    _counter = counter
    _parent = parent
    _current = process
    if process._own_options is not None:
        process._own_options = None  # they were the parent's to carry out
    if _standard.followed:
        from procession import _standard_state

        _standard_state.become()


def arm_dump_signal() -> None:
    """Have this process write its stacks on a signal, if the variable asks for it."""
    dump_signal = variable(DUMP_SIGNAL)
    if dump_signal is not None:
        from procession._stack_file import arm

        arm(dump_signal)


def authenticate_as(authkey: bytes) -> None:
    """Use *authkey* in this process before it has become the one that it will be."""
    _current._authkey = AuthenticationString(authkey)
