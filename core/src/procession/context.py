"""Contexts: the whole API, bound to a start method and a transport."""

from __future__ import annotations

import os
import sys
from _operator import index

from procession import errors as _errors
from procession import process
from procession._choosing import selection as _selection
from procession._ground import standard as _standard
from procession._ground.encoder import PICKLE
from procession._ground.resource_errors import raise_explained
from procession._processes import interpreter as _interpreter
from procession._starting import preload

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable
    from typing import Any, ClassVar, Self, TypeVar, Unpack

    from procession import synchronize
    from procession._contracts.mailbox import Mailbox
    from procession._contracts.start_method import StartMethod
    from procession._contracts.transport import Transport
    from procession._ground.encoder import Encoder
    from procession._starting.process_options import OptionKeywords, ProcessOptions
    from procession.connection import Connection
    from procession.managers import SyncManager
    from procession.pool import Pool
    from procession.queues import JoinableQueue, Queue, SimpleQueue

    T = TypeVar("T")

__all__ = ["BaseContext", "Context", "DefaultContext", "get_context"]


class BaseContext:
    """What every context offers: the API of the package, as methods.

    A context holds no resources and needs no closing. Threads may share it.
    """

    #: The class of processes that this context starts.
    Process: ClassVar[type[process.Process]]

    ProcessError = _errors.ProcessError
    BufferTooShort = _errors.BufferTooShort
    TimeoutError = _errors.TimeoutError
    AuthenticationError = _errors.AuthenticationError

    @property
    def ShutDown(self) -> type[_errors.ShutDown]:
        """The class of `procession.ShutDown`; from Python 3.13 on it brings `queue` along."""
        return _errors.ShutDown

    current_process = staticmethod(process.current_process)
    parent_process = staticmethod(process.parent_process)
    active_children = staticmethod(process.active_children)

    # What `with_size` and `with_lease_budget` were given.
    _size: int | None = None
    _lease_budget: int | None = None

    @property  # type: ignore[misc]  # nobody sets it
    def __class__(self) -> type[Any]:
        """The class; where the standard package is loaded, one that passes for its contexts."""
        if not _standard.is_loaded():
            return type(self)
        from procession._standard.classes import disguise

        return disguise(type(self), "context", "BaseContext")

    def _transport(self) -> Transport:
        """Return the transport that a pipe or queue made now is to use."""
        raise NotImplementedError

    def _encoder(self) -> Encoder | None:
        """Return what is to pickle for what is made now; None for `pickle` itself."""
        raise NotImplementedError

    def _for_messages(self) -> tuple[Transport, Encoder | None]:
        """Return the transport, and what pickles, of a pipe or queue made now."""
        return self._transport(), self._encoder()

    def Pipe(
        self,
        duplex: bool = True,
        *,
        size: int | None = None,
        leases: bool = False,
        lease_budget: int | None = None,
    ) -> tuple[Connection, Connection]:
        """Return the two ends of a new pipe; the caller owns both.

        With *duplex* both ends send and receive; without, the first only receives and
        the second only sends. *size*: how many bytes can be on their way, in each direction,
        where the transport has a choice. With *leases*, large arrays can be received without
        copying them, by ``recv(lease=True)``; every message costs some microseconds more then.
        *lease_budget*: how many bytes leases may keep in each direction.
        Raises `ResourceError` (an `OSError`) when descriptors or memory have run out, and
        `ValueError` for a *size* or a *lease_budget* that cannot be had, or is given without
        *leases*, and for *leases* where there are none.
        """
        from procession.connection import pipe

        transport, encoder = self._for_messages()
        options = self._size_option(transport, size)
        if leases:
            options["lease_budget"] = self._budget(lease_budget)
        elif lease_budget is not None:
            raise ValueError(
                f"lease_budget is {lease_budget}, of a pipe that lends nothing: add leases=True"
            )
        return _made("a pipe", lambda: pipe(transport, duplex, encoder, **options))

    def Queue(
        self, maxsize: int = 0, *, size: int | None = None, lease_budget: int | None = None
    ) -> Queue:
        """Return a queue for any number of producers and consumers.

        *maxsize*: the most items it holds; zero or less for no limit. *size*: how many bytes
        of small items it holds before it becomes slower, where the transport has a choice.
        *lease_budget*: how many bytes leases may keep. Raises `TypeError` for what is no
        integer, and `ValueError` for a *size* or *lease_budget* that cannot be had.
        """
        from procession.queues import Queue

        maxsize = index(maxsize)
        mailbox, encoder = self._mailbox(size, lease_budget, maxsize=max(0, maxsize))
        return Queue(maxsize, mailbox=mailbox, encoder=encoder)

    def JoinableQueue(
        self, maxsize: int = 0, *, size: int | None = None, lease_budget: int | None = None
    ) -> JoinableQueue:
        """Return a queue whose consumers report each item as done, with `join`."""
        from procession.queues import JoinableQueue

        maxsize = index(maxsize)
        mailbox, encoder = self._mailbox(size, lease_budget, maxsize=max(0, maxsize), joinable=True)
        return JoinableQueue(maxsize, mailbox=mailbox, encoder=encoder)

    def SimpleQueue(
        self, *, size: int | None = None, lease_budget: int | None = None
    ) -> SimpleQueue:
        """Return a queue with nothing but put, get, empty and close."""
        from procession.queues import SimpleQueue

        mailbox, encoder = self._mailbox(size, lease_budget)
        return SimpleQueue(mailbox=mailbox, encoder=encoder)

    def _mailbox(
        self, size: int | None, lease_budget: int | None, **options: Any
    ) -> tuple[Mailbox, Encoder | None]:
        transport, encoder = self._for_messages()
        options.update(self._size_option(transport, size))
        budget = self._budget(lease_budget)
        mailbox = _made("a queue", lambda: transport.mailbox(**options))
        if budget:
            mailbox.lend_at_most(budget)
        return mailbox, encoder

    def _budget(self, given: int | None) -> int:
        """Return how many bytes the leases of what is made now may keep; 0 if nobody says."""
        from procession._choosing.limits import lease_budget

        return lease_budget(self._lease_budget if given is None else given)[0]

    def _size_option(self, transport: Transport, size: int | None) -> dict[str, int]:
        """Return what to tell *transport* about the size, if anything."""
        if size is None:
            size = self._size
        if size is None:
            return {}
        size = index(size)
        if not transport.features.sizes:
            raise ValueError(
                f"size is {size}, and the transport {transport.name!r} has no sizes to choose "
                f"from; leave it out, or choose a transport that has, such as 'ring'"
            )
        return {"size": size}

    def Lock(self) -> synchronize.Lock:
        """Return a lock, for processes of every context. See `procession.synchronize`."""
        from procession.synchronize import Lock

        return _made("a lock", Lock)

    def RLock(self) -> synchronize.RLock:
        """Return a recursive lock, owned by one thread of one process."""
        from procession.synchronize import RLock

        return _made("a recursive lock", RLock)

    def Semaphore(self, value: int = 1) -> synchronize.Semaphore:
        """Return a semaphore with *value* units."""
        from procession.synchronize import Semaphore

        return _made("a semaphore", lambda: Semaphore(value))

    def BoundedSemaphore(self, value: int = 1) -> synchronize.BoundedSemaphore:
        """Return a semaphore that never has more than *value* free units."""
        from procession.synchronize import BoundedSemaphore

        return _made("a bounded semaphore", lambda: BoundedSemaphore(value))

    def Condition(
        self, lock: synchronize.Lock | synchronize.RLock | None = None
    ) -> synchronize.Condition:
        """Return a condition around *lock*, by default a recursive lock of its own."""
        from procession.synchronize import Condition

        return _made("a condition", lambda: Condition(lock))

    def Barrier(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> synchronize.Barrier:
        """Return a barrier for *parties*; the last one to come calls *action*."""
        from procession.synchronize import Barrier

        return _made("a barrier", lambda: Barrier(parties, action, timeout))

    def Event(self) -> synchronize.Event:
        """Return an event, which is not set."""
        from procession.synchronize import Event

        return _made("an event", Event)

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        max_age: float | None = None,
        max_rss: int | None = None,
    ) -> Pool:
        """Return a pool of worker processes. See `procession.pool.Pool`."""
        from procession.pool import Pool

        return _made(
            "a pool",
            lambda: Pool(
                processes,
                initializer,
                initargs,
                maxtasksperchild,
                self,
                max_age=max_age,
                max_rss=max_rss,
            ),
        )

    # Any, as in the four below: what comes back is as the caller's C type is.

    def Value(self, typecode_or_type: str | type[Any], *args: Any, lock: Any = True) -> Any:
        """Return an object of a C type in shared memory, with a lock unless *lock* is false.

        See `procession.sharedctypes.Value`.
        """
        from procession.sharedctypes import Value

        return Value(typecode_or_type, *args, lock=lock, ctx=self)

    def Array(
        self, typecode_or_type: str | type[Any], size_or_initializer: Any, *, lock: Any = True
    ) -> Any:
        """Return an array of a C type in shared memory, with a lock unless *lock* is false.

        See `procession.sharedctypes.Array`.
        """
        from procession.sharedctypes import Array

        return Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self)

    def RawValue(self, typecode_or_type: str | type[Any], *args: Any) -> Any:
        """Return an object of a C type in shared memory; see `sharedctypes.RawValue`."""
        from procession.sharedctypes import RawValue

        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: str | type[Any], size_or_initializer: Any) -> Any:
        """Return an array of a C type in shared memory; see `sharedctypes.RawArray`."""
        from procession.sharedctypes import RawArray

        return RawArray(typecode_or_type, size_or_initializer)

    def Manager(self) -> SyncManager:
        """Return a started manager: objects in a server process, shared through proxies.

        The caller shuts it down, best by ``with``; it ends with this process at the latest.
        """
        from procession.managers import SyncManager

        manager = SyncManager(ctx=self)
        manager.start()
        return manager

    def cpu_count(self) -> int:
        """Return how many processors the machine has, usable by this program or not.

        Raises `NotImplementedError` where that cannot be known.
        """
        count = os.cpu_count()
        if count is None:
            raise NotImplementedError("cannot determine number of cpus")
        return count

    def freeze_support(self) -> None:
        """Be the child, if this run of a frozen program was started to be one.

        Call it first under the main guard of a program that is frozen to an executable;
        in every other program it does nothing. Ends the process if it was a child.
        """
        if getattr(sys, "frozen", False) and sys.argv[1:2] == [_interpreter.CHILD_ARGUMENT]:
            from procession import child

            child.main(*map(int, sys.argv[2].split(",")))

    def set_executable(
        self, executable: str | bytes | os.PathLike[str] | os.PathLike[bytes]
    ) -> None:
        """Start the children of spawn and forkserver with this interpreter from now on."""
        _interpreter.set_executable(executable)

    def set_forkserver_preload(self, module_names: Iterable[str]) -> None:
        """Let fork servers started from now on import these modules before they serve.

        See `procession.set_forkserver_preload`.
        """
        preload.set_forkserver_preload(module_names)

    def get_logger(self) -> logging.Logger:
        """Return the logger that procession itself writes to."""
        from procession._starting.logging import get_logger

        return get_logger()

    def log_to_stderr(self, level: int | str | None = None) -> logging.Logger:
        """Let procession's logger write to stderr, at *level* if given; return it."""
        from procession._starting.logging import log_to_stderr

        return log_to_stderr(level)

    def get_context(
        self,
        method: str | None = None,
        *,
        transport: str | None = None,
        options: ProcessOptions | None = None,
        serializer: str | None = None,
    ) -> BaseContext:
        """Return the context of a start method, a transport and a serializer.

        Without all, this one. See `procession.get_context`.
        """
        found: BaseContext = self
        if not (method is transport is serializer is None):
            found = get_context(method, transport, serializer=serializer)
        return found if options is None else found.with_options(options)

    def with_options(
        self, options: ProcessOptions | None = None, **keywords: Unpack[OptionKeywords]
    ) -> Self:
        """Return a context like this one whose processes all have these options.

        They add to those that this context has; those of a single process add to them.
        See `procession.ProcessOptions`. Raises `procession.errors.ProcessOptionError`.
        """
        from procession._starting.process_options import combine

        return self._like(combine(self.Process.default_process_options, options, keywords))

    def with_size(self, size: int | None) -> Self:
        """Return a context like this one whose pipes and queues have *size*.

        See `Pipe` and `Queue`, where another one can be given. None stands for the
        transport's own choice.
        """
        made = self._copy()
        made.__dict__["_size"] = None if size is None else index(size)
        return made

    def with_lease_budget(self, lease_budget: int | None) -> Self:
        """Return a context like this one whose queues, and pipes that lend, have *lease_budget*.

        See `Pipe` and `Queue`, where another one can be given. None stands for what the
        environment or the configuration file says, or 1 GiB. Raises `ValueError` for what cannot
        be had, and `TypeError` for what is no integer.
        """
        from procession._choosing.limits import check_lease_budget

        made = self._copy()
        budget = None if lease_budget is None else check_lease_budget(lease_budget)
        made.__dict__["_lease_budget"] = budget
        return made

    def _like(self, options: ProcessOptions) -> Self:
        """Return a context like this one, with other options."""
        made = self._copy()
        made.__dict__["Process"] = process.process_class_with(self.Process, options)
        return made

    def _copy(self) -> Self:
        kind = type(self)
        made = kind.__new__(kind)
        made.__dict__.update(self.__dict__)
        return made

    def get_start_method(self, allow_none: bool = False) -> str | None:
        """Return the name of the start method of processes that this context starts."""
        raise NotImplementedError

    def get_transport(self, allow_none: bool = False) -> str | None:
        """Return the name of the transport of this context's pipes and queues."""
        raise NotImplementedError

    def get_serializer(self, allow_none: bool = False) -> str | None:
        """Return the name of the serializer of what this context makes."""
        raise NotImplementedError

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Choose the start method of this process; see `procession.set_start_method`."""
        raise NotImplementedError

    def set_transport(self, transport: str | None, force: bool = False) -> None:
        """Choose the transport of this process; see `procession.set_transport`."""
        raise NotImplementedError

    def set_serializer(self, serializer: str | None, force: bool = False) -> None:
        """Choose the serializer of this process; see `procession.set_serializer`."""
        raise NotImplementedError


class DefaultContext(BaseContext):
    """The context that follows the selection; its methods are the package's functions."""

    Process = process.Process

    def _transport(self) -> Transport:
        return _selection.load_pair()[1]()

    def _encoder(self) -> Encoder | None:
        return _selection.encoder()

    def _for_messages(self) -> tuple[Transport, Encoder | None]:
        transport, encoder = _selection.load_for_messages()
        return transport(), encoder

    def get_start_method(self, allow_none: bool = False) -> str | None:
        """Return the name of the start method that would be used now. Decides nothing."""
        return _selection.get_start_method(allow_none)

    def get_transport(self, allow_none: bool = False) -> str | None:
        """Return the name of the transport that would be used now. Decides nothing."""
        return _selection.get_transport(allow_none)

    def get_serializer(self, allow_none: bool = False) -> str | None:
        """Return the name of the serializer that would be used now. Decides nothing."""
        return _selection.get_serializer(allow_none)

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Choose the start method of this process; see `procession.set_start_method`."""
        _selection.set_start_method(method, force)

    def set_transport(self, transport: str | None, force: bool = False) -> None:
        """Choose the transport of this process; see `procession.set_transport`."""
        _selection.set_transport(transport, force)

    def set_serializer(self, serializer: str | None, force: bool = False) -> None:
        """Choose the serializer of this process; see `procession.set_serializer`."""
        _selection.set_serializer(serializer, force)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as what follows the selection there."""
        return _again, (
            self._size,
            self._lease_budget,
            None,
            None,
            self.Process.default_process_options,
        )


class Context(BaseContext):
    """The context of one start method, one transport and one serializer, whatever is selected.

    *method* and *transport* are classes that were negotiated. The transport is None
    where none is installed; such a context starts processes and nothing else. The encoder is
    None for `pickle` itself.
    """

    def __init__(
        self,
        method: type[StartMethod],
        transport: type[Transport] | None,
        encoder: Encoder | None = None,
    ) -> None:
        self._method_class = method
        self._transport_class = transport
        self._own_encoder = encoder

    def _transport(self) -> Transport:
        if self._transport_class is None:
            return _selection.load_transport()()
        return self._transport_class()

    def _encoder(self) -> Encoder | None:
        return self._own_encoder

    def get_start_method(self, allow_none: bool = False) -> str | None:
        """Return the name of this context's start method."""
        return self._method_class.name

    def get_transport(self, allow_none: bool = False) -> str | None:
        """Return the name of this context's transport."""
        return None if self._transport_class is None else self._transport_class.name

    def get_serializer(self, allow_none: bool = False) -> str:
        """Return the name of this context's serializer."""
        return PICKLE if self._own_encoder is None else self._own_encoder.name

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Refuse: the start method of this context is fixed."""
        raise ValueError(
            f"cannot set start method of concrete context: this one is for "
            f"{self.get_start_method()!r}; procession.set_start_method sets that of the "
            f"process, procession.get_context({method!r}) gives a context for another one"
        )

    def set_transport(self, transport: str | None, force: bool = False) -> None:
        """Refuse: the transport of this context is fixed."""
        raise ValueError(
            f"cannot set transport of concrete context: this one is for "
            f"{self.get_transport()!r}; procession.get_context(transport={transport!r}) "
            f"gives a context for another one"
        )

    def set_serializer(self, serializer: str | None, force: bool = False) -> None:
        """Refuse: the serializer of this context is fixed."""
        raise ValueError(
            f"cannot set serializer of concrete context: this one is for "
            f"{self.get_serializer()!r}; procession.get_context(serializer={serializer!r}) "
            f"gives a context for another one"
        )

    def __repr__(self) -> str:
        """Return the class and the names."""
        serializer = "" if self._own_encoder is None else f" serializer={self.get_serializer()!r}"
        return (
            f"<{type(self).__name__} start_method={self.get_start_method()!r} "
            f"transport={self.get_transport()!r}{serializer}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the names."""
        names = self.get_start_method(), self.get_transport()
        options = self.Process.default_process_options
        return _again, (self._size, self._lease_budget, *names, options, self.get_serializer())


default_context = DefaultContext()
_contexts: dict[tuple[str, str | None, str], Context] = {}


def get_context(
    method: str | None = None,
    transport: str | None = None,
    options: ProcessOptions | None = None,
    serializer: str | None = None,
) -> BaseContext:
    """Return the context of a start method, a transport and a serializer, with the whole API.

    Without arguments, the context that follows the selection. With one of them, the others
    are those selected now, and all stay what they are from then on. With *options*, all
    processes of the context have them; see `BaseContext.with_options`.

    Raises `ValueError` (`UnknownPluginError`, `PluginUnavailableError`, ...) for names that
    cannot be used and `IncompatiblePluginsError` for a pair that cannot work together.
    """
    if options is not None:
        return get_context(method, transport, serializer=serializer).with_options(options)
    if method is transport is serializer is None:
        return default_context
    method_class, transport_class = _load_pair(method, transport)
    encoder = _selection.encoder(serializer)
    name = PICKLE if encoder is None else encoder.name
    key = method_class.name, None if transport_class is None else transport_class.name, name
    if key not in _contexts:
        prefix = method_class.__name__
        members = {"Process": process.process_class(method_class.name, f"{prefix}Process", name)}
        kind = type(f"{prefix}Context", (Context,), {**members, "__module__": __name__})
        _contexts.setdefault(key, kind(method_class, transport_class, encoder))
    return _contexts[key]


def _again(size: int | None, lease_budget: int | None, *arguments: Any) -> BaseContext:
    """Return the context that was pickled."""
    context = get_context(*arguments)
    if size is not None:
        context = context.with_size(size)
    return context if lease_budget is None else context.with_lease_budget(lease_budget)


def _made(what: str, make: Callable[[], T]) -> T:
    """Return what *make* makes; say which resource has run out if it cannot."""
    try:
        return make()
    except OSError as error:
        raise_explained(error, f"cannot make {what}")
        raise


def _load_pair(
    method: str | None, transport: str | None
) -> tuple[type[StartMethod], type[Transport] | None]:
    try:
        return _selection.load_pair(method, transport)
    except _errors.NoPluginError:
        if transport is not None:
            raise
        # Processes can be started where no transport is installed.
        return _selection.load_start_method(method), None
