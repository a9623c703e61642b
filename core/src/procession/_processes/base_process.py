"""What every process object has: one of a child, of the parent, of this process itself.

Imported in every child: nothing here loads more than it needs.
"""

from __future__ import annotations

import os

from procession import abc
from procession._ground import standard as _standard
from procession._processes import sigint as _sigint
from procession._processes.authentication_string import AuthenticationString
from procession._processes.family import family

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

    from procession._contracts.child_handle import Child
    from procession._standard.state import Popen
    from procession._starting.failure import FailureReport
    from procession._starting.lifecycle import Lifecycle
    from procession._starting.limit_watch import LimitExceeded, Watch
    from procession._starting.post_mortem import PostMortem
    from procession._starting.process_options import ProcessOptions
    from procession._starting.stop import StopStage

# Written out because the signal module costs a child more than a quarter of its own start.
_SIGINT, _SIGTERM, _SIGKILL = 2, 15, 9


def errors() -> Any:
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
    #: What its parent had heard of Ctrl-C when it was started; see `_processes.sigint.heard`.
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
            raise errors().ProcessClosedError("process object is closed")

    def _check_mine(self, what: str) -> None:
        if self._parent_pid != os.getpid():
            raise errors().ForeignProcessError(
                f"can only {what}; this one was created by process {self._parent_pid}, "
                f"and this is process {os.getpid()}"
            )

    def _signal(self, number: int) -> None:
        self._check_open()
        if self._child is None:
            raise errors().UnstartedSignalError(
                "process not started: there is nothing to signal yet"
            )
        self._last_signal = number or self._last_signal
        self._child.signal(number)

    def _signal_tree(self, number: int) -> None:
        from procession._starting.process_tree import signal_tree

        self._signal(0)  # the checks
        assert self._child is not None
        self._last_signal = number
        signal_tree(self._child, number)

    def _exit_code(self) -> int | None:
        """Return the exit code, without any check; None also before the start."""
        return None if self._child is None else self._child.poll()

    def start(self) -> None:
        """See `Process.start`; this object stands for a process that runs already."""
        raise errors().ProcessStartedError("cannot start a process twice")

    def interrupt(self) -> None:
        """Send SIGINT to the child; nothing happens when it has ended."""
        self._signal(_SIGINT)

    def terminate(self, *, tree: bool = False) -> None:
        """Send SIGTERM to the child; nothing happens when it has ended.

        Neither ``finally`` clauses nor exit handlers run in the child, unless it
        handles the signal. Its daemonic children end with it, however it ends. With *tree*
        all its descendants get the signal, also those that it starts meanwhile; they are
        found as long as the child runs. See `procession._starting.process_tree`.

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
        from procession._starting.stop import stop

        self._check_open()
        self._check_mine("stop a child process")
        if self._child is None:
            raise errors().UnstartedSignalError("process not started: there is nothing to stop yet")
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
            raise errors().ProcessNotStartedError("can only join a started process")
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
        if self is family.current:
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
        if self not in family.children:
            return
        from procession._processes.relatives import relatives

        relatives.note_end(self)
        family.collect_helpers()
        if _standard.followed:
            from procession._standard import state as _standard_state

            _standard_state.note_end(self)
        if self._limit_watch is not None:
            from procession._starting.limit_watch import watcher

            watcher.drop(self._limit_watch)
        exit_code = self._exit_code() or 0
        if self._post_mortem is not None:
            self._post_mortem.collect(exit_code)
        lifecycle = self.__dict__.pop("_lifecycle", None)  # of two threads, one takes it
        family.children.discard(self)
        if lifecycle is not None:
            lifecycle.ended(self, exit_code)

    @property
    def _popen(self) -> Popen:
        """What the standard package asks of those that it knows as its children."""
        from procession._standard.state import Popen

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
                raise errors().ProcessRunningError(
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
        self._name = str(name)
        if self is family.current and family.parent is not None:
            from procession._starting.name_tag import new_tag

            new_tag.wear(self._name, self._started_by, self._parent_pid)

    @property
    def daemon(self) -> bool:
        """Whether the child is ended when its parent ends. Inherited; set before start."""
        return self._daemon

    @daemon.setter
    def daemon(self, daemonic: bool) -> None:
        self._check_open()
        if self._child is not None:
            raise errors().ProcessStartedError("process has already started")
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
            raise errors().ProcessStartedError("process has already started")
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
        if self is family.current:
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
        return None if self is family.current else self._exit_code()

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
            raise errors().ProcessStartedError("process has already started")
        if options is not None:
            from procession._starting.process_options import combine

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
            raise errors().ProcessNotStartedError("process not started: it has no sentinel yet")
        return self._child.sentinel

    def __repr__(self) -> str:
        """Return the class, name, pids, state and exit code."""
        parts = [type(self).__name__, f"name={self._name!r}"]
        exit_code = None
        if self._closed:
            state = "closed"
        elif self is family.current:
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


def exit_code_text(code: int) -> str:
    """Return *code* as people read it, with the name of a signal: ``-SIGKILL``."""
    if code >= 0:
        return str(code)
    import signal

    try:
        return f"-{signal.Signals(-code).name}"
    except ValueError:
        return str(code)
