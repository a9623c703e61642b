"""Every exception that procession raises.

All of them derive from `ProcessError`, so one `except ProcessError` catches
whatever procession has to say. Each one derives *also* from the built-in that
`multiprocessing` raises in the same situation, so that programs written for
`multiprocessing` go on catching what they catch today::

    ProcessError
    |- BufferTooShort, AuthenticationError, TimeoutError    as in multiprocessing
    |  |- HandshakeTimeoutError          (builtin TimeoutError) a peer has not shown the key in time
    |  `- TlsError                       an encrypted connection that was not made
    |- PluginError                       a plugin cannot be had
    |  |- UnknownPluginError             (ValueError)  nobody has that name
    |  |  `- NoPluginError                             nobody is there at all
    |  |- DuplicatePluginError           (ValueError)  two distributions claim a name
    |  |- PluginLoadError                (ImportError) its code failed while it was loaded
    |  |- PluginContractError            (TypeError)   it is not what the contract asks for
    |  |- PluginHookError                (RuntimeError) a hook of it failed
    |  |- PluginUnavailableError         (ValueError)  it works, but not on this machine
    |  `- IncompatiblePluginsError       (ValueError)  these two do not go together
    |- SelectionError                    (RuntimeError) a choice that cannot be made (again)
    |- ConfigurationError                (ValueError)  a file or a variable that is wrong
    |- ProcessStateError                 not in this state of a process
    |  |- ProcessStartedError            (AssertionError)
    |  |- ProcessNotStartedError         (AssertionError, ValueError)
    |  |  `- UnstartedSignalError        (AttributeError)
    |  |- ProcessRunningError            (ValueError)
    |  |- ProcessClosedError             (ValueError)
    |  |- ForeignProcessError            (AssertionError)
    |  |- DaemonicProcessError           (AssertionError)
    |  `- UnguardedMainError             (RuntimeError)
    |- ProcessOptionError                (ValueError)  an option that cannot be had
    |  |- UnknownOptionError             (TypeError)   there is none of that name
    |  `- UnsupportedOptionError                       the start method cannot do it
    |- ClosedError                       we closed it ourselves
    |  |- ConnectionClosedError          (OSError)
    |  `- QueueClosedError               (ValueError, OSError)
    |- EndOfConnectionError              (EOFError)        the other side has finished
    |- BrokenConnectionError             (BrokenPipeError) it broke between us
    |- BusyConnectionError               (RuntimeError)    two users at once
    |- ConnectionDirectionError          (OSError)         send on a read-only end
    |- MessageTooLongError               (OSError)         longer than the receiver allows
    |- NothingToLendError                (ValueError)      a connection that has no leases
    |- BatchError                        some objects of a batch cannot be unpickled
    |- DescriptorLostError               (OSError)         who sent us an object has taken it along
    |- PeerDiedError                     (EndOfConnectionError) who we waited for has died
    |  |- BrokenByDeathError             (BrokenConnectionError) and cannot be sent to
    |  |- ServerDiedError                (ConnectionError) the server of a manager has
    |  `- WorkerDiedError                                   a worker of a pool has, with a task
    |- RemoteError                       a server could not do what it was asked
    |  `- NotExposedError                (AttributeError)  a method that the manager does not expose
    |  `- ReferentLostError              (LookupError)     the object behind a proxy is gone
    |- OwnerDiedError                    (OSError)         who held a lock has died
    |- BrokenBarrierError                (threading.BrokenBarrierError) not all will come
    |- BrokenPoolError                   (RuntimeError)    a pool has stopped by itself
    |- TaskCancelledError                                  nobody will do this task any more
    |- TaskTimeoutError                  (TimeoutError)    a task took too long
    |- MaybeEncodingError                                  a result that cannot travel
    |- ProcessFailedError                               a process that had to succeed did not
    |- ChildLostError                    (ChildProcessError) nobody knows how it ended
    |- ResourceError                     (OSError)         descriptors, memory, ... have run out
    |  `- TooManyProcessesError          (BlockingIOError) so have processes
    `- ShutDown                          (queue.ShutDown on 3.13+)  the queue was shut down

A queue that stays full or empty for too long raises the `queue` module's own
`Full` and `Empty`, as in `multiprocessing`; the names here are those classes.

All of them survive pickling with their attributes, because failures travel
between processes. The module imports nothing but the interpreter's own modules:
children import it, too.
"""

from __future__ import annotations

import errno

from procession._ground import standard as _standard

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Iterable
    from queue import Empty, Full
    from typing import Any

    from procession._locks.broken_barrier import BrokenBarrierError
    from procession._mailboxes.shut_down import ShutDown
    from procession._starting.failure import FailureReport

__all__ = [
    "AuthenticationError",
    "BrokenBarrierError",
    "BrokenByDeathError",
    "BrokenConnectionError",
    "BrokenPoolError",
    "BufferTooShort",
    "BusyConnectionError",
    "ChildLostError",
    "ClosedError",
    "ConfigurationError",
    "ConnectionClosedError",
    "ConnectionDirectionError",
    "DaemonicProcessError",
    "DescriptorLostError",
    "DuplicatePluginError",
    "Empty",
    "EndOfConnectionError",
    "ForeignProcessError",
    "ForkWithThreadsWarning",
    "Full",
    "HandshakeTimeoutError",
    "IncompatiblePluginsError",
    "LeaseWarning",
    "MaybeEncodingError",
    "MessageTooLongError",
    "NoPluginError",
    "NothingToLendError",
    "OwnerDiedError",
    "PeerDiedError",
    "PluginContractError",
    "PluginError",
    "PluginHookError",
    "PluginLoadError",
    "PluginUnavailableError",
    "ProcessClosedError",
    "ProcessError",
    "ProcessFailedError",
    "ProcessNotStartedError",
    "ProcessOptionError",
    "ProcessRunningError",
    "ProcessStartedError",
    "ProcessStateError",
    "QueueClosedError",
    "NotExposedError",
    "ReferentLostError",
    "RemoteError",
    "ResourceError",
    "SelectionError",
    "ServerDiedError",
    "ShutDown",
    "TaskCancelledError",
    "TaskTimeoutError",
    "TimeoutError",
    "TlsError",
    "TooManyProcessesError",
    "UnguardedMainError",
    "UnknownOptionError",
    "UnknownPluginError",
    "UnstartedSignalError",
    "UnsupportedOptionError",
    "WorkerDiedError",
]


def __getattr__(name: str) -> object:
    """Find `Empty`, `Full`, `ShutDown` and `BrokenBarrierError` when they are first asked for.

    Importing `queue` or `threading` would cost every child more than all the rest of this
    module, and the classes derive from theirs (`ShutDown` from Python 3.13 on).
    """
    found: object
    if name == "Empty":
        try:
            from _queue import Empty as found  # where `queue` has it from, too
        except ImportError:  # an interpreter without the C accelerator
            from queue import Empty as found
    elif name == "Full":
        from queue import Full as found
    elif name == "ShutDown":
        from procession._mailboxes import shut_down

        found = shut_down.ShutDown
    elif name == "BrokenBarrierError":
        from procession._locks import broken_barrier

        found = broken_barrier.BrokenBarrierError
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


# Linux's number; errno has the name where the platform does.
_EOWNERDEAD = 130


class _Base(Exception):
    """Holds the place of multiprocessing's own `ProcessError`; see `follow_standard`."""


class ProcessError(_Base):
    """The base class of everything that procession raises."""


class BufferTooShort(ProcessError):
    """A message does not fit into the buffer that `recv_bytes_into` was given.

    The message is not lost: the whole of it is `args[0]`.
    """


class AuthenticationError(ProcessError):
    """The other side of a connection does not know the key that it must know."""


class HandshakeTimeoutError(AuthenticationError, TimeoutError):
    """The other side has not proved in time that it knows the key: it stalls, or is no peer."""


class TlsError(AuthenticationError):
    """An encrypted connection was not made: one of the two sides does not trust the other.

    Or they do not speak the same language. The message says which, whose certificate or key
    it is about, and what is wrong with it.
    """


class TimeoutError(ProcessError):  # the built-in class of this name ends here
    """A result was not there in time. Not the built-in class of this name."""


# -- plugins ---------------------------------------------------------------------------


class PluginError(ProcessError):
    """A plugin that was asked for cannot be had. The subclasses say why.

    `kind` is ``"start_method"`` or ``"transport"``, `plugin` the name that was asked
    for; either is None where it makes no sense.
    """

    def __init__(self, message: str, *, kind: str | None = None, plugin: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.plugin = plugin


class UnknownPluginError(PluginError, ValueError):
    """No installed distribution has a plugin of this kind and name."""


class NoPluginError(UnknownPluginError):
    """No plugin of this kind is installed, or none that is can be used."""


class DuplicatePluginError(PluginError, ValueError):
    """Two distributions claim the same name, and choosing silently would be a guess."""


class PluginLoadError(PluginError, ImportError):
    """The code of a plugin failed while it was loaded; its own exception is the cause."""


class PluginContractError(PluginError, TypeError):
    """What a plugin offers is not what the contract of its kind asks for."""


class PluginHookError(PluginError, RuntimeError):
    """A hook of a plugin failed, so that a process could not be started; why is the cause."""


class PluginUnavailableError(PluginError, ValueError):
    """A plugin is installed, but says that it cannot work on this machine."""


class IncompatiblePluginsError(PluginError, ValueError):
    """A start method and a transport that cannot work together."""


class SelectionError(ProcessError, RuntimeError):
    """A choice was made a second time without `force`, or nobody can make it."""


class ConfigurationError(ProcessError, ValueError):
    """A configuration file is missing, cannot be read or says something wrong.

    Or a variable of the environment does, or a file of certificates is none. `file` is the
    path, `key` the key at fault, or None if it is the whole file.
    """

    def __init__(self, message: str, *, file: str | None = None, key: str | None = None) -> None:
        super().__init__(message)
        self.file = file
        self.key = key


# -- states of a process ---------------------------------------------------------------


class ProcessStateError(ProcessError):
    """An operation that the process is not in the right state for.

    `state` is the state it was in, `allowed` the states in which the operation
    would have been allowed.
    """

    def __init__(
        self, message: str, *, state: str | None = None, allowed: Iterable[str] = ()
    ) -> None:
        super().__init__(message)
        self.state = state
        self.allowed = tuple(allowed)


class ProcessStartedError(ProcessStateError, AssertionError):
    """The process has been started: it cannot be started or changed any more."""


class ProcessNotStartedError(ProcessStateError, AssertionError, ValueError):
    """The process has not been started yet.

    Two built-ins, because `multiprocessing` has `join` raise the one and `sentinel`
    the other for this same state.
    """


class UnstartedSignalError(ProcessNotStartedError, AttributeError):
    """`terminate`, `kill` or `interrupt` of a process that has not been started.

    A class of its own, because `multiprocessing` raises AttributeError here, and
    `ProcessNotStartedError` must not be one: raised by the property `sentinel`, it
    would make ``hasattr(process, "sentinel")`` answer instead of raise.
    """


class ProcessRunningError(ProcessStateError, ValueError):
    """The process is still running, so that it cannot be closed."""


class ProcessClosedError(ProcessStateError, ValueError):
    """The process object has been closed: only its repr is left."""


class ForeignProcessError(ProcessStateError, AssertionError):
    """Only the process that created a `Process` may start it, join it or ask about it."""


class DaemonicProcessError(ProcessStateError, AssertionError):
    """In strict mode, a daemonic process may not have children."""


class UnguardedMainError(ProcessStateError, RuntimeError):
    """A child has imported the main module, which starts processes without a guard."""


# -- options of a process --------------------------------------------------------------


class ProcessOptionError(ProcessError, ValueError):
    """An option of a process has a value that cannot be had, here or in the child.

    `option` is its name.
    """

    def __init__(self, message: str, *, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class UnknownOptionError(ProcessOptionError, TypeError):
    """A process has no option of that name."""


class UnsupportedOptionError(ProcessOptionError):
    """The start method cannot do what an option asks for."""


# -- connections and queues ------------------------------------------------------------


class ClosedError(ProcessError):
    """We closed the connection or queue ourselves, in this process."""


class ConnectionClosedError(ClosedError, OSError):
    """This end of a connection was closed in this process."""


class QueueClosedError(ClosedError, ValueError, OSError):
    """This queue was closed in this process.

    multiprocessing raises ValueError in `put` and `get`, and in other methods OSError in some
    versions and ValueError in later ones.
    """


class EndOfConnectionError(ProcessError, EOFError):
    """The other side has closed its end, and everything it sent has been read."""


class BrokenConnectionError(ProcessError, BrokenPipeError):
    """The other end is gone while we were sending, or in the middle of a message."""


class BusyConnectionError(ProcessError, RuntimeError):
    """Two users did at once what only one at a time can do with a connection."""


class ConnectionDirectionError(ProcessError, OSError):
    """Sending through a read-only end, or receiving from a write-only one."""


class MessageTooLongError(ProcessError, OSError):
    """A message is longer than the receiver was willing to take."""


class NothingToLendError(ProcessError, ValueError):
    """A lease is wanted of a connection that lends nothing."""


class BatchError(ProcessError):
    """Some of the objects that were got together could not be unpickled, and are gone."""

    #: The others, in their order.
    objects: list[Any]
    #: What unpickling has raised, once for each that is gone.
    errors: list[Exception]

    def __init__(self, objects: list[Any], errors: list[Exception]) -> None:
        super().__init__(objects, errors)
        self.objects = objects
        self.errors = errors

    def __str__(self) -> str:
        """Return how many there are of each kind, and the first error."""
        first = self.errors[0]
        return (
            f"{len(self.errors)} of {len(self.objects) + len(self.errors)} objects cannot be "
            f"unpickled and are gone, the first because of {type(first).__name__}: {first}; the "
            f"others are this error's `objects`"
        )


class DescriptorLostError(ProcessError, OSError):
    """An object was received whose descriptors cannot be had any more.

    The process that sent it has ended before they were fetched, or somebody else has
    fetched them.
    """


# -- ends of processes -----------------------------------------------------------------


class PeerDiedError(EndOfConnectionError):
    """The process we waited for has died, so that waiting on would be for ever.

    `process` is its name, `pid` its number and `exitcode` its exit code, negative for
    a signal; each is None where it is not known. When several have died, the message names
    all of them, and these are of the one that ended last.
    """

    def __init__(
        self,
        message: str,
        *,
        process: str | None = None,
        pid: int | None = None,
        exitcode: int | None = None,
    ) -> None:
        super().__init__(message)
        self.process = process
        self.pid = pid
        self.exitcode = exitcode


class BrokenByDeathError(PeerDiedError, BrokenConnectionError):
    """The process we were sending to has died, or the one we had half a message from.

    Also of a `put`, when the queue is full and all who could have made room have died.
    """

    def __init__(
        self,
        message: str,
        *,
        process: str | None = None,
        pid: int | None = None,
        exitcode: int | None = None,
    ) -> None:
        super().__init__(message, process=process, pid=pid, exitcode=exitcode)
        self.errno = errno.EPIPE


class OwnerDiedError(ProcessError, OSError):
    """The process that held a lock or a semaphore has ended without releasing it.

    Raised by `acquire` in one process, which does *not* hold it then: it is free again, and
    the next acquire goes on as usual. What it guards may be half done.

    `process`, `pid` and `exitcode` say who and how, as in `PeerDiedError`; `errno` is
    EOWNERDEAD, as POSIX has it for its own robust locks.
    """

    def __init__(
        self,
        message: str,
        *,
        process: str | None = None,
        pid: int | None = None,
        exitcode: int | None = None,
    ) -> None:
        super().__init__(message)
        self.errno = _EOWNERDEAD
        self.process = process
        self.pid = pid
        self.exitcode = exitcode


class ProcessFailedError(ProcessError):
    """A process has failed that was joined with ``check=True``.

    `failure` is its `procession.FailureReport`, whose text is the message; the cause is the
    exception of the child, if it can be had here.
    """

    def __init__(self, message: str, *, failure: FailureReport | None = None) -> None:
        super().__init__(message)
        self.failure = failure


class ServerDiedError(PeerDiedError, BrokenPipeError, ConnectionRefusedError, ConnectionResetError):
    """The server of a manager has ended, or cannot be reached any more.

    multiprocessing raises any of these, as chance has it; hence so many. `address` is where
    it was. After it, the call may have been carried out or not.
    """

    def __init__(
        self,
        message: str,
        *,
        process: str | None = None,
        pid: int | None = None,
        exitcode: int | None = None,
        address: object = None,
    ) -> None:
        super().__init__(message, process=process, pid=pid, exitcode=exitcode)
        self.address = address


class RemoteError(ProcessError):
    """A manager's server could not do what it was asked; it says why, with its traceback."""


class NotExposedError(RemoteError, AttributeError):
    """A method was asked for that the manager does not expose of this object."""


class ReferentLostError(RemoteError, LookupError):
    """The object that a proxy stands for is not in its manager any more."""


class ChildLostError(ProcessError, ChildProcessError):
    """A child has ended and its exit code is lost.

    Somebody else has waited for it, or the helper process that was its parent is gone.
    """


class ResourceError(ProcessError, OSError):
    """A process, pipe, queue or memory could not be had: something has run out.

    The message names the resource and its limit, `errno` is the system's. What was tried has
    not happened, nothing was left behind, and it may be tried again.
    """


class TooManyProcessesError(ResourceError, BlockingIOError):
    """There are as many processes already as the user, the group or the system may have."""


# -- pools -----------------------------------------------------------------------------


class WorkerDiedError(PeerDiedError):
    """A worker of a pool has died in the middle of a task.

    `failure` is its `procession.FailureReport` (None if it ended with exit code 0), `task`
    says which task it was; the rest is as in `PeerDiedError`. The pool has another worker.
    """

    def __init__(
        self,
        message: str,
        *,
        process: str | None = None,
        pid: int | None = None,
        exitcode: int | None = None,
        failure: FailureReport | None = None,
        task: str | None = None,
    ) -> None:
        super().__init__(message, process=process, pid=pid, exitcode=exitcode)
        self.failure = failure
        self.task = task


class BrokenPoolError(ProcessError, RuntimeError):
    """A pool has stopped by itself: its workers fail before they have done anything.

    The cause is the exception of the initializer, if it was that; `failure` the
    `procession.FailureReport` of the last worker, if it died.
    """

    def __init__(self, message: str, *, failure: FailureReport | None = None) -> None:
        super().__init__(message)
        self.failure = failure


class TaskCancelledError(ProcessError):
    """A task was cancelled, or its pool terminated, before it was done."""


class TaskTimeoutError(TimeoutError):
    """A task took longer than it was allowed to; its worker was killed."""


class MaybeEncodingError(ProcessError):
    """A result or an exception of a pool's task that cannot be pickled, or not unpickled.

    `exc` is why and `value` what it was, both as text.
    """

    def __init__(self, exc: object, value: object = None) -> None:
        self.exc = exc if isinstance(exc, str) else repr(exc)
        self.value = value if isinstance(value, str) else repr(value)
        super().__init__(*((self.exc,) if value is None else (self.exc, self.value)))

    def __str__(self) -> str:
        if len(self.args) == 1:
            return self.exc
        return f"Error sending result: '{self.value}'. Reason: '{self.exc}'"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"


class LeaseWarning(RuntimeWarning):
    """Leases keep all the memory that a queue, or pipe, lends, so that large objects are copied."""


class ForkWithThreadsWarning(RuntimeWarning):
    """A process with several threads was forked: a lock held by one stays held in the child."""


def follow_standard() -> None:
    """Derive the classes from the standard package's, which is loaded.

    So that programs catch them by the names that it has for them.
    """
    import multiprocessing as standard

    ProcessError.__bases__ = (standard.ProcessError,)
    for ours, theirs in (
        (BufferTooShort, standard.BufferTooShort),
        (AuthenticationError, standard.AuthenticationError),
        (TimeoutError, standard.TimeoutError),
    ):
        ours.__bases__ = (ProcessError, theirs)


if _standard.followed:
    follow_standard()
