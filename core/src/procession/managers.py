"""Managers: objects that live in a server process and are used through proxies."""

from __future__ import annotations

import itertools
import os
import queue
import sys
import threading
import traceback
from time import monotonic

from procession._choosing.limits import check_silence
from procession._remote.managed_memory import MemoryServer, managed_memory
from procession._remote.manager_server import Server
from procession._remote.manager_session import Session, sessions
from procession._remote.manager_wire import CODECS, RemoteTraceback, Token
from procession._remote.proxy import (
    AutoProxy,
    BaseProxy,
    MakeProxyType,
    RebuildProxy,
    release_first,
)
from procession._remote.proxy_types import (
    AcquirerProxy,
    Array,
    ArrayProxy,
    BarrierProxy,
    ConditionProxy,
    DictProxy,
    EventProxy,
    IteratorProxy,
    ListProxy,
    Namespace,
    NamespaceProxy,
    PoolProxy,
    SetProxy,
    Value,
    ValueProxy,
)
from procession.connection import Connection
from procession.errors import ProcessError, RemoteError, ServerDiedError
from procession.process import current_process

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any, ClassVar, Self

    from procession._remote.address import Address
    from procession.pool import Pool
    from procession.process import Process
    from procession.shared_memory import ShareableList, SharedMemory
    from procession.tls import Tls

    _ServerArguments = tuple[Address | None, "_Key", str, bool | None, Tls | None, float | None]

__all__ = [
    "AcquirerProxy",
    "Array",
    "ArrayProxy",
    "AutoProxy",
    "BarrierProxy",
    "BaseManager",
    "BaseProxy",
    "ConditionProxy",
    "DictProxy",
    "EventProxy",
    "IteratorProxy",
    "ListProxy",
    "MakeProxyType",
    "Namespace",
    "NamespaceProxy",
    "PoolProxy",
    "RebuildProxy",
    "RemoteError",
    "RemoteTraceback",
    "SetProxy",
    "SharedMemoryManager",
    "SyncManager",
    "Token",
    "Value",
    "ValueProxy",
]

_numbers = itertools.count(1)


class Registration:
    """What a manager knows of one type."""

    __slots__ = ("callable", "exposed", "method_to_typeid", "proxytype")

    def __init__(
        self,
        callable: Callable[..., Any] | None,
        exposed: tuple[str, ...] | None,
        method_to_typeid: dict[str, str] | None,
        proxytype: Any,
    ) -> None:
        self.callable = callable
        self.exposed = exposed
        self.method_to_typeid = method_to_typeid
        self.proxytype = proxytype

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for the server, which makes no proxies."""
        return Registration, (self.callable, self.exposed, self.method_to_typeid, None)


class BaseManager:
    """A server with objects of registered types, in a process of its own or somewhere else.

    *address* is the server's, or None for one that nobody uses yet; *authkey* the key that
    everybody who connects has to know, None for that of this process. *serializer* is
    ``"pickle"`` or ``"xmlrpclib"``. *ctx* is the context of the server's process.
    *shutdown_timeout*: how long, in seconds, the server may take to end before it is
    terminated, and again before it is killed. *accept_md5*, *tls* and *silence* as for
    `procession.connection.Listener`; proxies use *tls* and *silence*, too, in whichever process
    they are, unless the environment there has files of its own (see `procession.tls.Tls`).

    The server ends with the process that has started it, however that ends. Threads: any may
    use a manager; one at a time starts it and shuts it down.
    """

    _registry: ClassVar[dict[str, Registration]] = {}
    _Server: ClassVar[type[Server]] = Server

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Whatever was registered, and `shutdown` after the start."""

    def __init__(
        self,
        address: Address | None = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
        accept_md5: bool | None = None,
        tls: Tls | None = None,
        silence: float | None = None,
    ) -> None:
        CODECS[serializer]  # KeyError for one that is not there
        if authkey is None:
            authkey = current_process().authkey
        if not isinstance(authkey, bytes):
            raise TypeError("authkey should be a byte string")
        if ctx is None:
            from procession.context import default_context

            ctx = default_context
        self._address = address
        self._authkey = bytes(authkey)
        self._serializer = serializer
        self._ctx = ctx
        self._shutdown_timeout = shutdown_timeout
        self._accept_md5 = accept_md5
        self._tls = tls
        self._silence = None if silence is None else check_silence(silence)
        self._state = "initial"
        self._process: Process | None = None
        self._session: Session | None = None

    # -- life ----------------------------------------------------------------------------

    def start(
        self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()
    ) -> None:
        """Start the server's process; *initializer* is called in it first.

        Raises `procession.ProcessError` when it was started, `TypeError` for an initializer
        that cannot be called, and what has kept the server from starting, with its traceback
        there as the cause.
        """
        self._check_initial()
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        reader, writer = _one_way()
        with reader:
            with writer:
                self._process = process = self._ctx.Process(
                    target=_run_server,
                    args=(
                        self._Server,
                        *(self._registry, self._server_arguments()),
                        *(writer, initializer, initargs),
                    ),
                    name=f"{type(self).__name__}-{next(_numbers)}",
                    daemon=True,
                    sigint="ignore",
                )
                process.start()
            try:
                outcome = reader.recv()
            except EOFError as error:
                pid, exitcode = self._collect()
                raise ServerDiedError(
                    f"the manager {process.name!r} (pid {pid}) has ended with exit code "
                    f"{exitcode} before it could serve",
                    process=process.name,
                    pid=pid,
                    exitcode=exitcode,
                ) from error
        if isinstance(outcome, BaseException):
            self._collect()
            raise outcome
        self._address = outcome
        self._state = "started"
        self._open_session().process = process
        self.shutdown = self._shut_down

    def _collect(self) -> tuple[int | None, int | None]:
        """Close the ended server's process object; return its pid and exit code."""
        process = self._process
        assert process is not None
        process.join()
        ended = process.pid, process.exitcode
        process.close()
        self._process = None
        return ended

    def _server_arguments(self) -> _ServerArguments:
        return (
            *(self._address, _Key(self._authkey)),
            *(self._serializer, self._accept_md5, self._tls, self._silence),
        )

    def get_server(self) -> Server:
        """Return a server for this process to run, by `serve_forever`.

        Raises `procession.ProcessError` when this manager has a server already.
        """
        self._check_initial()
        address, key, serializer, accept_md5, tls, silence = self._server_arguments()
        return self._Server(self._registry, address, key.key, serializer, accept_md5, tls, silence)

    def connect(self) -> None:
        """Use the server that runs at the manager's address.

        Raises `procession.errors.ServerDiedError` (a `ConnectionRefusedError`, among others)
        when there is none, and `procession.AuthenticationError` when it has another key.
        """
        self._open_session().ask("dummy")
        self._state = "started"

    def _open_session(self) -> Session:
        assert self._address is not None
        self._session = sessions.get(
            self._address, self._authkey, self._serializer, self._tls, self._silence
        )
        return self._session

    def _check_initial(self) -> None:
        if self._state == "started":
            raise ProcessError("Already started server")
        if self._state == "shut down":
            raise ProcessError("Manager has shut down")

    def _check_started(self) -> Session:
        if self._state != "started" or self._session is None:
            raise AssertionError(
                "server not yet started" if self._state == "initial" else "Manager has shut down"
            )
        return self._session

    def _shut_down(self) -> None:
        """End the server's process; see `shutdown_timeout`. Idempotent.

        Nothing happens in a forked copy of the process that has started it, whose server it is.
        """
        process, session = self._process, self._session
        if process is not None and process._parent_pid != os.getpid():
            return
        self._state = "shut down"
        if process is None or session is None:
            return
        deadline = monotonic() + self._shutdown_timeout
        try:
            session.ask_to_end(self._shutdown_timeout)
        except (ProcessError, OSError, EOFError):
            pass  # it has ended already, or hears nobody: then it is told otherwise
        for tell in (None, process.terminate, process.kill):
            if tell is not None:
                deadline = monotonic() + self._shutdown_timeout
                tell()
            process.join(max(0.0, deadline - monotonic()))
            if not process.is_alive():
                break
        sessions.forget(session)
        session.process = None
        session.server = process.name, *self._collect()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the server's process has ended, up to *timeout* seconds."""
        if self._process is not None:
            self._process.join(timeout)

    @property
    def address(self) -> Address | None:
        """Where the server is."""
        return self._address

    def __enter__(self) -> Self:
        """Start the server if it was not; return the manager."""
        if self._state == "initial":
            self.start()
        self._check_started()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Shut down, if this manager has started the server."""
        if self._process is not None:
            self._shut_down()

    # -- objects -------------------------------------------------------------------------

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Callable[..., Any] | None = None,
        proxytype: Any = None,
        exposed: Iterable[str] | None = None,
        method_to_typeid: Mapping[str, str] | None = None,
        create_method: bool = True,
    ) -> None:
        """Add a type to this class of managers.

        *callable* makes objects of it, in the server. *proxytype* makes proxies for them;
        None for `AutoProxy`. *exposed* are the methods that may be called, None for those that
        the proxy type names, or else all whose names do not begin with ``_``. The result of
        a method in *method_to_typeid* stays in the server, and a proxy of that type is
        returned. With *create_method*, managers get a method *typeid* that makes an object.
        """
        if "_registry" not in cls.__dict__:
            cls._registry = cls._registry.copy()
        if proxytype is None:
            proxytype = AutoProxy
        exposed = exposed or getattr(proxytype, "_exposed_", None)
        methods = method_to_typeid or getattr(proxytype, "_method_to_typeid_", None)
        for pair in (methods or {}).items():
            if not all(isinstance(each, str) for each in pair):
                raise TypeError(f"method_to_typeid maps names to names, not {pair!r}")
        cls._registry[typeid] = Registration(
            callable,
            None if exposed is None else tuple(exposed),
            None if methods is None else dict(methods),
            proxytype,
        )
        if create_method:

            def create(self: BaseManager, /, *args: Any, **kwds: Any) -> Any:
                return self._make(typeid, args, kwds)

            create.__name__ = typeid
            create.__doc__ = f"Make an object of type {typeid!r} and return a proxy for it."
            setattr(cls, typeid, create)

    def _make(self, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> Any:
        session = self._check_started()
        token, exposed = session.create(typeid, args, kwds)
        proxy = self._registry[typeid].proxytype(
            token, self._serializer, manager=self, authkey=self._authkey, exposed=exposed
        )
        if token.ticket is None:
            release_first(proxy)
        return proxy

    def _debug_info(self) -> str:
        """Return a text about the objects in the server."""
        return str(self._check_started().ask("debug_info"))

    def _number_of_objects(self) -> int:
        """Return how many objects are in the server."""
        return int(self._check_started().ask("number_of_objects"))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a manager that uses the same server, whose key the other side knows."""
        options = self._serializer, self._tls, self._silence
        return type(self)._from_address, (self._address, *options)

    @classmethod
    def _from_address(
        cls, address: Address, serializer: str, tls: Tls | None, silence: float | None
    ) -> Self:
        manager = cls(address, None, serializer, tls=tls, silence=silence)
        manager.connect()
        return manager


class _Key:
    """The server's key, in the parcel of its process."""

    def __init__(self, key: bytes) -> None:
        self.key = key


def _one_way() -> tuple[Connection, Connection]:
    """Return the two ends of a pipe that needs no transport."""
    import os

    reader, writer = os.pipe()
    return Connection(reader, writable=False), Connection(writer, readable=False)


def _run_server(
    kind: type[Server],
    registry: dict[str, Registration],
    arguments: _ServerArguments,
    writer: Connection,
    initializer: Callable[..., object] | None,
    initargs: Iterable[Any],
) -> None:
    """Be the process of a server; report the address, or what has gone wrong."""
    address, key, serializer, accept_md5, tls, silence = arguments
    with writer:
        try:
            kind.prepare()
            if initializer is not None:
                initializer(*initargs)
            server = kind(registry, address, key.key, serializer, accept_md5, tls, silence)
        except BaseException as error:
            text = "".join(traceback.format_exception(error))
            error.__cause__ = None
            try:
                writer.send(_Failure(error, text))
            except Exception:
                writer.send(_Failure(RemoteError(text), text))
            sys.exit(1)
        writer.send(server.address)
    server.serve_forever()


class _Failure:
    """Pickles as an exception with its traceback elsewhere as the cause."""

    def __init__(self, error: BaseException, text: str) -> None:
        self.parts = error, text

    def __reduce__(self) -> tuple[Any, ...]:
        return _caused, self.parts


def _caused(error: BaseException, text: str) -> BaseException:
    error.__cause__ = RemoteTraceback(text)
    return error


class SyncManager(BaseManager):
    """A manager with the types that programs share most, as threading and queue have them."""

    if TYPE_CHECKING:

        def Barrier(
            self, parties: int, action: Callable[[], object] | None = None, timeout: Any = None
        ) -> BarrierProxy: ...
        def BoundedSemaphore(self, value: int = 1) -> AcquirerProxy: ...
        def Condition(self, lock: Any = None) -> ConditionProxy: ...
        def Event(self) -> EventProxy: ...
        def JoinableQueue(self, maxsize: int = 0) -> queue.Queue[Any]: ...
        def Lock(self) -> AcquirerProxy: ...
        def Pool(self, *args: Any, **kwds: Any) -> PoolProxy: ...
        def Namespace(self, **kwds: Any) -> NamespaceProxy: ...
        def Queue(self, maxsize: int = 0) -> queue.Queue[Any]: ...
        def RLock(self) -> AcquirerProxy: ...
        def Semaphore(self, value: int = 1) -> AcquirerProxy: ...
        def Array(self, typecode: str, sequence: Iterable[Any]) -> Any: ...
        def Value(self, typecode: str, value: Any) -> ValueProxy: ...
        # Lists, dictionaries and sets for all that a caller can see.
        def dict(self, *args: Any, **kwds: Any) -> Any: ...
        def list(self, *args: Any) -> Any: ...
        def set(self, *args: Any) -> Any: ...


def _pool(*args: Any, **kwds: Any) -> Pool:
    from procession.pool import Pool

    return Pool(*args, **kwds)


_LOCKS = {
    "Lock": threading.Lock,
    "RLock": threading.RLock,
    "Semaphore": threading.Semaphore,
    "BoundedSemaphore": threading.BoundedSemaphore,
}
SyncManager.register("Queue", queue.Queue)
SyncManager.register("JoinableQueue", queue.Queue)
SyncManager.register("Event", threading.Event, EventProxy)
for _name, _callable in _LOCKS.items():
    SyncManager.register(_name, _callable, AcquirerProxy)
SyncManager.register("Condition", threading.Condition, ConditionProxy)
SyncManager.register("Barrier", threading.Barrier, BarrierProxy)
SyncManager.register("list", list, ListProxy)
SyncManager.register("dict", dict, DictProxy)
SyncManager.register("set", set, SetProxy)
SyncManager.register("Value", Value, ValueProxy)
SyncManager.register("Array", Array, ArrayProxy)
SyncManager.register("Namespace", Namespace, NamespaceProxy)
SyncManager.register("Pool", _pool, PoolProxy)
# Results of methods; not to be made on their own.
SyncManager.register(
    "AsyncResult",
    exposed=("get", "wait", "ready", "successful", "cancel"),
    create_method=False,
)
SyncManager.register("Iterator", proxytype=IteratorProxy, create_method=False)


class SharedMemoryManager(BaseManager):
    """A manager for shared memory with a name: what it has made goes when it ends.

    The segments are those of `procession.shared_memory`, and no proxies: they are used at
    the speed of memory, on the server's host only, and can be attached by name, also by the
    standard library. Their names are unlinked when the server ends, however it ends; who
    still uses a segment then keeps the memory.
    """

    _Server = MemoryServer

    def SharedMemory(self, size: int) -> SharedMemory:
        """Return new memory of *size* bytes, all zero and reserved.

        Raises `ValueError` for a size below one, `procession.errors.ResourceError` when there
        is no room, and `procession.errors.ServerDiedError`.
        """
        return managed_memory(self._check_started(), size)

    def ShareableList(self, sequence: Iterable[Any]) -> ShareableList:
        """Return a new list of numbers, strings, bytes and None in memory of its own.

        Raises like `procession.shared_memory.ShareableList` and like `SharedMemory`.
        """
        from procession.shared_memory import ShareableList

        session = self._check_started()
        return ShareableList._made_by(lambda size: managed_memory(session, size), sequence)
