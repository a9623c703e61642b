"""Proxies: objects that stand for an object in a manager's server."""

from __future__ import annotations

import sys

from procession._processes.authentication_string import FamilyKey
from procession._remote import manager_wire as wire
from procession._remote.manager_session import sessions
from procession._remote.manager_wire import Token
from procession.process import current_process

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, ClassVar

    from procession._remote.manager_server import Server
    from procession._remote.manager_session import Session
    from procession.tls import Tls


class BaseProxy:
    """Stands for the object that *token* names, in the manager's server.

    Each call of a method is one of the object's; arguments and results are pickled. The
    object lives as long as proxies, in any process, refer to it. *manager* is the one that it
    belongs to, if that is known; *authkey* is the server's key, the process's own if None.
    With *incref*, the proxy takes a reference. A proxy that is unpickled in its own server
    (*manager_owned*) calls without a connection.

    Threads: any; each has a connection of its own. Fork: both processes refer to the object
    afterwards. Pickling: the proxy that is made of a pickle refers to the object as well, if
    it is made within a minute or somebody else still refers to it.
    """

    _exposed_: ClassVar[tuple[str, ...] | None] = None
    _method_to_typeid_: ClassVar[dict[str, str] | None] = None
    _isauto = False

    def __init__(
        self,
        token: Token,
        serializer: str,
        manager: Any = None,
        authkey: bytes | None = None,
        exposed: Iterable[str] | None = None,
        incref: bool = True,
        manager_owned: bool = False,
    ) -> None:
        self._token = token
        self._id = token.id
        self._manager = manager
        self._serializer = serializer
        self._holds = False
        if authkey is None:
            authkey = getattr(manager, "_authkey", None) or current_process().authkey
        self._authkey = bytes(authkey)
        self._server: Server | None = _server_here(token) if manager_owned else None
        self._session: Session | None = None
        if self._server is None:
            self._session = sessions.get(token.address, self._authkey, serializer)
        if incref:
            self._incref()

    def _incref(self) -> None:
        """Take a reference to the object, once."""
        ticket = getattr(self._token, "ticket", None)
        if self._server is not None:
            self._server.referents.redeem(self._id, ticket)
        else:
            assert self._session is not None
            self._session.hold(self._id, ticket)
            self._session.proxies[id(self)] = self
        self._holds = True

    def _decref(self) -> None:
        """Give the reference back. Idempotent."""
        if self._holds:
            self._holds = False
            if self._server is not None:
                self._server.referents.drop(self._id)
            elif self._session is not None:
                self._session.proxies.pop(id(self), None)
                self._session.drop(self._id)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if self.__dict__.get("_holds") and not is_finalizing():
            self._decref()

    def _callmethod(
        self, methodname: str, args: Any = (), kwds: dict[str, Any] | None = None
    ) -> Any:
        """Call a method of the object and return the result, or a proxy for it.

        Raises what the method raises, with the server's traceback as the cause;
        `procession.errors.ServerDiedError` (a `ConnectionError` and `EOFError`) when the
        server has ended; `procession.errors.ReferentLostError` when the object is gone.
        """
        if self._server is not None:
            kind, result = self._server.call(self._id, methodname, tuple(args), kwds or {})
            return self._proxy_here(result) if kind == wire.PROXY else result
        assert self._session is not None
        kind, result = self._session.call(self._id, methodname, args, kwds or {})
        if kind == wire.RETURN:
            return result
        if kind == wire.PROXY:
            return self._proxy_for(*result)
        raise wire.to_exception(kind, result)

    def _proxy_for(self, exposed: Iterable[str], token: Any) -> BaseProxy:
        """Return a proxy for a result that stays in the server."""
        bare = not hasattr(token, "ticket")
        proxytype = _proxy_type(self._manager, token.typeid)
        proxy: BaseProxy = proxytype(
            Token(token.typeid, self._token.address, token.id, getattr(token, "ticket", None)),
            self._serializer,
            manager=self._manager,
            authkey=self._authkey,
            exposed=exposed,
        )
        if bare:
            release_first(proxy)
        return proxy

    def _proxy_here(self, created: tuple[str, str, tuple[str, ...], str]) -> BaseProxy:
        """Return a proxy for a result of a call made in the server itself."""
        typeid, ident, exposed, ticket = created
        token = Token(typeid, self._token.address, ident, ticket)
        proxy: BaseProxy = _proxy_type(self._manager, typeid)(
            token, self._serializer, authkey=self._authkey, exposed=exposed, manager_owned=True
        )
        return proxy

    def _getvalue(self) -> Any:
        """Return a copy of the object."""
        return self._callmethod("#GETVALUE")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for any process that knows the server's key; children are told it."""
        if self._server is not None:
            ticket: str | None = self._server.referents.issue((self._id,))
        else:
            assert self._session is not None
            ticket = self._session.issue((self._id,))
        token = Token(self._token.typeid, self._token.address, self._id, ticket)
        kwds: dict[str, Any] = {}
        kind: Any = type(self)
        if self._isauto:
            kind, kwds["exposed"] = AutoProxy, tuple(self._exposed_ or ())
        reached = self._server or self._session
        assert reached is not None
        key = FamilyKey(self._authkey)
        options = reached.tls, reached.silence
        return RebuildProxy, (kind, token, self._serializer, kwds, key, *options)

    def __deepcopy__(self, memo: object) -> Any:
        """Return a copy of the object, as multiprocessing's proxies do."""
        return self._getvalue()

    def __repr__(self) -> str:
        """Return the class, the type of the object and where the proxy is."""
        kind = type(self).__name__
        return f"<{kind} object, typeid {self._token.typeid!r} at {id(self):#x}>"

    def __str__(self) -> str:
        """Return the object's own repr."""
        try:
            return str(self._callmethod("__repr__"))
        except Exception:
            return repr(self)[:-1] + "; '__str__()' failed>"


def release_first(proxy: BaseProxy) -> None:
    """Give back the reference that a server of the standard library has counted by itself."""
    assert proxy._session is not None
    proxy._session.ask("decref", proxy._id)


def RebuildProxy(
    func: Callable[..., Any],
    token: Token,
    serializer: str,
    kwds: dict[str, Any],
    key: FamilyKey | None = None,
    tls: Tls | None = None,
    silence: float | None = None,
) -> Any:
    """Make a proxy from its pickle: *func* is its class, or `AutoProxy`.

    *tls* and *silence* are those of where it was pickled; files of its own that this process
    has go first.
    """
    if key is not None and key.key is not None:
        kwds = {**kwds, "authkey": key.key}
    server = _server_here(token)
    if server is not None:
        kwds = {**kwds, "manager_owned": True}
    elif tls is not None or silence is not None:
        if tls is not None:
            from procession.tls import Tls

            tls = Tls.from_environment() or tls
        authkey = kwds.get("authkey") or current_process().authkey
        # Kept until the proxy has found it.
        session = sessions.get(token.address, authkey, serializer, tls, silence)
        proxy = func(token, serializer, **kwds)
        del session
        return proxy
    return func(token, serializer, **kwds)


def MakeProxyType(name: str, exposed: Iterable[str]) -> type[BaseProxy]:
    """Return a class of proxies with the methods *exposed*."""
    names = tuple(exposed)
    members: dict[str, Any] = {each: _forwarding(each) for each in names}
    # Pickles refer to the class by the module that has asked for it.
    module = sys._getframe(1).f_globals.get("__name__", __name__)
    return type(name, (BaseProxy,), {**members, "_exposed_": names, "__module__": module})


def _forwarding(name: str) -> Callable[..., Any]:
    def method(self: BaseProxy, /, *args: Any, **kwds: Any) -> Any:
        return self._callmethod(name, args, kwds)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Call the object's ``{name}``."
    return method


def AutoProxy(
    token: Token,
    serializer: str,
    manager: Any = None,
    authkey: bytes | None = None,
    exposed: Iterable[str] | None = None,
    incref: bool = True,
    manager_owned: bool = False,
) -> BaseProxy:
    """Return a proxy with the methods *exposed*; None for what the server says."""
    if exposed is None:
        key = authkey or getattr(manager, "_authkey", None) or current_process().authkey
        exposed = sessions.get(token.address, key, serializer).ask("get_methods", token)
    kind = MakeProxyType(f"AutoProxy[{token.typeid}]", exposed)
    kind._isauto = True
    return kind(
        token,
        serializer,
        manager=manager,
        authkey=authkey,
        incref=incref,
        manager_owned=manager_owned,
    )


def _proxy_type(manager: Any, typeid: str) -> Any:
    """Return what makes proxies for *typeid*."""
    from procession.managers import SyncManager

    registry = getattr(manager, "_registry", None) or SyncManager._registry
    found = registry.get(typeid)
    return AutoProxy if found is None else found.proxytype


def _server_here(token: Token) -> Server | None:
    """Return the server of *token* if it runs in this very process."""
    module = sys.modules.get("procession._remote.manager_server")
    return None if module is None else module.servers.get(token.address)
