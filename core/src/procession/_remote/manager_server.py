"""The server of a manager: it keeps objects and calls their methods for others."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections import Counter
from weakref import WeakSet

from procession._ground.after_fork import in_forked_children
from procession._ground.fork_gate import end_moment, moments
from procession._remote import call_pipes as pipes
from procession._remote import manager_wire as wire
from procession._remote.call_line import call_line
from procession._remote.listener import Listener
from procession._remote.referents import Referent, Referents
from procession.errors import (
    AuthenticationError,
    ConnectionClosedError,
    NotExposedError,
    RemoteError,
)
from procession.process import current_process

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from procession._remote.address import Address
    from procession._remote.call_pipes import Identity
    from procession._remote.line import Line
    from procession.connection import Connection
    from procession.managers import Registration
    from procession.tls import Tls

#: How many clients may wait to be let in, as the kernel counts.
_BACKLOG = 128
#: How long to wait for a descriptor or a thread to be free, in seconds.
_BREATH = 0.05
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))

#: The servers of this process, by address: a proxy that comes home needs no connection.
servers: dict[Address, Server] = {}
#: Those and such as end: their threads need a moment longer.
_remembered: WeakSet[Server] = WeakSet()
_watches_forks = False


def _remember(server: Server) -> None:
    """Have *server* known as one of this process, and only of this one."""
    global _watches_forks
    if not _watches_forks:
        _watches_forks = True
        in_forked_children(_abandon_all)
    _remembered.add(server)
    servers[server.address] = server


def _abandon_all() -> None:
    servers.clear()
    for server in list(_remembered):
        server.abandon()


class _Session:
    """The references of one process with proxies."""

    def __init__(self) -> None:
        self.held: Counter[str] = Counter()


class _Door(Listener):
    """The listener of a server, which gets to know every connection before anybody can fork."""

    def __init__(self, keep: Callable[[Connection], object], *args: Any, **kwds: Any) -> None:
        self._keep = keep
        super().__init__(*args, **kwds)

    def welcome(self, line: Line, address: Address) -> Connection:
        """See `Listener.welcome`."""
        connection: Connection | None = None
        for alone in moments():
            try:
                connection = super().welcome(line, address)
                self._keep(connection)
            finally:
                if alone:
                    end_moment()
        assert connection is not None
        return connection


class Server:
    """Keeps objects, and serves each connection from a thread of its own.

    *registry* says which types there are; *address*, *authkey*, *accept_md5*, *tls* and
    *silence* are the `Listener`'s, *serializer* is ``"pickle"`` or ``"xmlrpclib"``.
    """

    def __init__(
        self,
        registry: Mapping[str, Registration],
        address: Address | None,
        authkey: bytes,
        serializer: str,
        accept_md5: bool | None = None,
        tls: Tls | None = None,
        silence: float | None = None,
    ) -> None:
        if not isinstance(authkey, bytes):
            raise TypeError(f"Authkey {authkey!r} is type {type(authkey)!s}, not bytes")
        self._registry = registry
        self._codec = wire.CODECS[serializer]
        #: What proxies that are made here have to use elsewhere.
        self.tls = tls
        self.silence = silence
        #: Those that are open, as `pipes.identify` knows them.
        self._connections: dict[Connection, Identity] = {}
        self.listener = _Door(
            self._keep,
            address,
            backlog=_BACKLOG,
            authkey=bytes(authkey),
            accept_md5=accept_md5,
            tls=tls,
            silence=silence,
        )
        #: Where to connect to.
        self.address = self.listener.address
        #: Set it to end `serve_forever`.
        self.stop_event = threading.Event()
        self.referents = Referents()

    @classmethod
    def prepare(cls) -> None:
        """Make ready for a server. The first thing in a process that was started for one."""

    def serve_forever(self) -> None:
        """Serve until a client asks to shut down, or `stop_event` is set; then exit.

        Like multiprocessing's, it ends by ``sys.exit(0)``.
        """
        _remember(self)
        try:
            accepter = threading.Thread(target=self._accept, name="procession-manager", daemon=True)
            accepter.start()
            self.stop_event.wait()
        finally:
            self.stop_event.set()  # also when something else has ended the wait
            servers.pop(self.address, None)
            self.listener.close()
            for connection, identity in list(self._connections.items()):
                pipes.hang_up(connection, identity)
        sys.exit(0)

    def _accept(self) -> None:
        while True:
            try:
                connection = self.listener.accept()
            except ConnectionClosedError:
                return
            except (AuthenticationError, EOFError):
                continue  # a bad client was told, and the others must be served
            except OSError:
                time.sleep(_BREATH)  # no descriptor to accept with
                continue
            try:
                threading.Thread(
                    target=self._serve, args=(connection,), name="procession-client", daemon=True
                ).start()
            except RuntimeError:  # no more threads: this client hears that it was hung up on
                self._close(connection)

    def _keep(self, connection: Connection) -> None:
        """Note that *connection* is open."""
        self._connections[connection] = pipes.identify(connection)

    def _close(self, connection: Connection) -> None:
        """Close it. Idempotent."""
        self._connections.pop(connection, None)
        connection.close()

    def abandon(self) -> None:
        """Close everything, in a forked child: clients and objects are its parent's."""
        self.listener.close()
        for connection in list(self._connections):
            connection.close()
        self._connections.clear()

    def _serve(self, connection: Connection) -> None:
        """Serve one connection to its end."""
        try:
            self._serve_open(connection)
        finally:
            self._close(connection)

    def _serve_open(self, connection: Connection) -> None:
        """Do what the first request asks for."""
        if not self.stop_event.is_set():
            try:
                mark, function, args, kwds = self._codec.loads(connection.recv_bytes())
            except (OSError, EOFError):
                return
            except Exception:
                self._answer(connection, False, wire.TRACEBACK, traceback.format_exc())
                return
            ours = mark == wire.MARK
            if function == "accept_connection":
                self._answer(connection, ours, wire.RETURN, None)
                self._serve_calls(connection, ours)
            elif function == "accept_pipes" and ours:
                self._serve_pipes(connection)
            elif function == "session" and ours:
                self._serve_session(connection)
            else:
                self._answer(connection, ours, *self._control(None, function, args, kwds))
                if function == "shutdown":
                    self.stop_event.set()

    # -- calls ---------------------------------------------------------------------------

    def _serve_pipes(self, connection: Connection) -> None:
        """Serve calls through pipes that come by *connection*, or through that if none come."""
        try:
            through = pipes.take(connection, self._keep)
        except OSError:
            return
        self._answer(connection, True, wire.RETURN, through is not None)
        if through is None:
            self._serve_calls(connection, True)
            return
        self._close(connection)
        try:
            self._serve_calls(through, True)
        finally:
            self._close(through)

    def _serve_calls(self, connection: Connection, ours: bool) -> None:
        line, loads, nothing = call_line(connection), self._codec.loads, self._codec.nothing
        has_ended = self.stop_event.is_set
        if has_ended():
            return
        while True:
            try:
                data: Any = line.receive()
            except (OSError, EOFError):
                return
            if has_ended():
                return  # that may have been a `hang_up`
            try:
                ident, method, args, kwds = loads(data)
                if ident is None:
                    kind, result = self._control(None, method, args, kwds)
                else:
                    kind, result = self.call(ident, method, args, kwds)
            except BaseException as error:
                kind, result = self._failed(error, ours)
            # Nothing of a call is kept until the next one comes.
            data, ident, method, args, kwds = None, None, None, None, None
            if result is None and nothing and kind is wire.RETURN:
                answer = nothing
            else:
                answer = self._pack(kind, result, ours)
            result = None
            try:
                line.send(answer)
            except OSError:
                return

    def call(
        self, ident: str, method: str, args: tuple[Any, ...], kwds: dict[str, Any]
    ) -> tuple[str, Any]:
        """Call a method of a referent; return the kind of answer and the result.

        Raises what the method raises, `ReferentLostError`, and `NotExposedError`.
        """
        referent = self.referents.find(ident)
        obj = referent.obj
        if method not in referent.exposed:
            return self._call_special(referent, method)
        result = getattr(obj, method)(*args, **kwds)
        typeid = referent.method_to_typeid.get(method)
        if typeid:
            return wire.PROXY, self._create(typeid, (result,), {})
        return wire.RETURN, list(result) if type(result) in _VIEWS else result

    def _call_special(self, referent: Referent, method: str) -> tuple[str, Any]:
        """Answer what can be asked of every referent."""
        if method == "__str__":
            return wire.RETURN, str(referent.obj)
        if method == "__repr__":
            return wire.RETURN, repr(referent.obj)
        if method == "#GETVALUE":
            return wire.RETURN, referent.obj
        raise NotExposedError(
            f"method {method!r} of {type(referent.obj)!r} object is not in "
            f"exposed={tuple(sorted(referent.exposed))!r}"
        )

    def _failed(self, error: BaseException, ours: bool) -> tuple[str, Any]:
        text = _text(error)
        if self._codec is not wire.PickleCodec:
            return wire.TRACEBACK, text  # XML has no exceptions
        if not ours:
            # The standard library has no such classes, and raises its RemoteError for the text.
            return (wire.TRACEBACK, text) if isinstance(error, RemoteError) else (wire.ERROR, error)
        try:
            return wire.RAISED, (wire.PickleCodec.dumps(error), text)
        except Exception:
            return wire.RAISED, (None, text)

    def _answer(self, connection: Connection, ours: bool, kind: str, result: Any) -> bool:
        """Send an answer; return whether the client is still there."""
        try:
            connection.send_bytes(self._pack(kind, result, ours))
        except OSError:
            return False
        return True

    def _pack(self, kind: str, result: Any, ours: bool) -> bytes:
        """Return the bytes of an answer, or of one that says why they cannot be had."""
        try:
            if kind == wire.PROXY:
                return self._pack_proxy(result, ours)
            return self._codec.dumps((kind, result))
        except Exception:
            if kind == wire.ERROR:
                return self._codec.dumps((wire.TRACEBACK, _text(result)))
            return self._codec.dumps((wire.UNSERIALIZABLE, traceback.format_exc()))

    def _pack_proxy(self, created: tuple[str, str, tuple[str, ...], str], ours: bool) -> bytes:
        """Return the answer that a new proxy is to be made from."""
        typeid, ident, exposed, ticket = created
        if ours:
            token: Any = wire.Token(typeid, self.address, ident, ticket)
            return self._codec.dumps((wire.PROXY, (exposed, token)))
        # The standard library expects a token of its own, and one bare reference.
        from multiprocessing.managers import Token

        self.referents.redeem(ident, ticket)
        token = Token(typeid, self.address, ident)  # type: ignore[arg-type]
        return self._codec.dumps((wire.PROXY, (exposed, token)))

    # -- control -------------------------------------------------------------------------

    def _serve_session(self, connection: Connection) -> None:
        """Carry out what one process asks about its references, until it ends."""
        session = _Session()
        me = current_process()
        self._answer(connection, True, wire.RETURN, (me.name, os.getpid()))
        try:
            while True:
                try:
                    data = connection.recv_bytes()
                except (OSError, EOFError):
                    return
                try:
                    function, args = self._codec.loads(data)
                    if function == "drop":
                        # Not answered: a finalizer has asked. It may be about a reference of an
                        # earlier connection, which has gone with that.
                        if args[0] in session.held:
                            self.referents.drop(args[0], session.held)
                        continue
                    answer = self._control(session, function, tuple(args), {})
                except BaseException as error:
                    answer = self._failed(error, True)
                if not self._answer(connection, True, *answer):
                    return
                if function == "shutdown":
                    self.stop_event.set()
        finally:
            self.referents.drop_all(session.held)

    def _control(
        self,
        session: _Session | None,
        function: str,
        args: tuple[Any, ...],
        kwds: dict[str, Any],
    ) -> tuple[str, Any]:
        """Carry out one function of the server itself; return the answer."""
        functions = self._functions(None if session is None else session.held)
        try:
            found = functions.get(function)
            if found is None:
                raise RemoteError(f"{function!r} unrecognized: the server has no such function")
            return wire.RETURN, found(*args, **kwds)
        except BaseException as error:
            if session is None and not isinstance(error, Exception):
                raise
            return self._failed(error, True) if session else (wire.TRACEBACK, _text(error))

    def _functions(self, held: Counter[str] | None) -> dict[str, Callable[..., Any]]:
        """Return what can be asked of the server itself by a session that has *held*."""
        return {
            "create": self._create_for_client,
            "create_ours": lambda typeid, *a, **k: self._create(typeid, a, k),
            "debug_info": self.referents.describe,
            "decref": self.referents.drop,
            "dummy": lambda: None,
            "get_methods": lambda token: sorted(self.referents.find(token.id).exposed),
            "incref": self.referents.take,
            "issue": self.referents.issue,
            "number_of_objects": self.referents.__len__,
            "redeem": lambda ident, ticket: self.referents.redeem(ident, ticket, held),
            "shutdown": lambda: None,
        }

    def _create_for_client(self, typeid: str, /, *args: Any, **kwds: Any) -> tuple[str, Any]:
        """Make an object for a client of the standard library; it has one bare reference."""
        _, ident, exposed, ticket = self._create(typeid, args, kwds)
        self.referents.redeem(ident, ticket)
        return ident, exposed

    def _create(
        self, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]
    ) -> tuple[str, str, tuple[str, ...], str]:
        """Make an object; return its type, its ident, what is exposed and a ticket."""
        found = self._registry[typeid]
        if found.callable is None:
            if kwds or len(args) != 1:
                raise ValueError("Without callable, must have one non-keyword argument")
            obj = args[0]
        else:
            obj = found.callable(*args, **kwds)
        exposed = found.exposed
        if exposed is None:
            exposed = tuple(public_methods(obj))
        methods = dict(found.method_to_typeid or {})
        names = frozenset([*exposed, *methods])
        ident, ticket = self.referents.add(Referent(typeid, obj, names, methods))
        return typeid, ident, tuple(names), ticket


def public_methods(obj: Any) -> list[str]:
    """Return the names of what can be called on *obj* and does not begin with ``_``."""
    return [name for name in dir(obj) if name[0] != "_" and callable(getattr(obj, name))]


def _text(error: BaseException) -> str:
    """Return the traceback of *error*, as far as its class lets us have it."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:
        return f"{type(error).__module__}.{type(error).__qualname__}, which cannot be shown\n"
