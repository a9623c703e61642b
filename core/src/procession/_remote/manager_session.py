"""A process's side of a manager's server: its connections, and what it holds there."""

from __future__ import annotations

import os
import sys
from _thread import RLock, allocate_lock
from collections import deque
from threading import local
from weakref import WeakSet, WeakValueDictionary

from procession._ground.after_fork import in_forked_children
from procession._ground.fork_gate import watch as watch_forks
from procession._remote import call_pipes as pipes
from procession._remote import manager_wire as wire
from procession._remote.call_line import CallLine, call_line
from procession._remote.host_channel import GONE
from procession._remote.listener import Client
from procession.errors import (
    BusyConnectionError,
    ProcessError,
    ServerDiedError,
)
from procession.process import current_process

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

    from procession._remote.address import Address
    from procession.connection import Connection
    from procession.managers import BaseProxy
    from procession.process import BaseProcess
    from procession.tls import Tls

#: How long a server may take to let us in, in seconds. It has a thread for nothing else.
CONNECT_SECONDS = 20.0
#: What a question may fail with.
_FAILURES = (ProcessError, OSError, EOFError)


def _is_end(error: BaseException) -> bool:
    """Return whether *error* says that the server has gone, or the way to it."""
    if isinstance(error, EOFError | ConnectionError | FileNotFoundError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in GONE


class Session:
    """What this process has to do with the server at one address.

    Each thread has a connection of its own for calls, so that a call that waits keeps nobody
    else waiting. The references of the process are tied to one more connection: when that
    ends, however, the server takes them back. A server of the standard library knows no
    sessions; it is asked over connections for one question each, and only counts.

    Threads: any. Fork: a child opens connections of its own.
    """

    def __init__(self, address: Address, authkey: bytes, serializer: str) -> None:
        self.address = address
        self.authkey = bytes(authkey)
        #: How its connections are encrypted; None for not at all.
        self.tls: Tls | None = None
        #: How long the server may owe an answer, in seconds; None for what is configured.
        self.silence: float | None = None
        self.codec = wire.CODECS[serializer]
        #: The server's process, where this one has started it and it is not shut down.
        self.process: BaseProcess | None = None
        #: By their `id`: a proxy of somebody's own type may not be hashable.
        self.proxies: WeakValueDictionary[int, BaseProxy] = WeakValueDictionary()
        #: The name and the pid of the server's process, and its exit code, once known.
        self.server: tuple[str | None, int | None, int | None] = None, None, None
        self._begin()

    def _begin(self) -> None:
        # Re-entrant, for a signal handler or a finalizer may come here in the middle of a
        # question; it finds us busy then.
        self._lock = RLock()
        self._busy = False
        self._connection: CallLine | None = None
        #: Connections with an answer that nobody waits for, until their references are moved.
        self._interrupted: list[CallLine] = []
        self._knows_sessions = True
        self._dropped: deque[str] = deque()
        self._calls = local()
        #: All connections of this process, for a forked one to close.
        self._open: WeakSet[Connection] = WeakSet()

    # -- calls ---------------------------------------------------------------------------

    def call(self, ident: str | None, method: str, args: Any, kwds: Any) -> tuple[str, Any]:
        """Call a method in the server; return the kind of answer and the result.

        Raises `ServerDiedError`, and what pickling and unpickling raise.
        """
        codec = self.codec
        data = codec.dumps((ident, method, args, kwds))
        calls = self._calls
        try:
            line = calls.idle.pop()
        except (AttributeError, IndexError):
            # The thread's first call, or one of a signal handler in the middle of a call.
            line = self._open_line()
        try:
            line.send(data)
            answer = line.receive()
        except BaseException as error:
            # Also when a signal handler has raised: the answer to this call must not be taken
            # for that to the next one.
            line.close()
            if isinstance(error, OSError | EOFError):
                self._fail(error)
            raise
        calls.idle.append(line)
        if answer == codec.nothing:
            return wire.RETURN, None
        kind, result = codec.loads(answer)
        return kind, result

    def _move_references(self, connection: CallLine) -> None:
        """Tie what was tied to interrupted connections to a new one, and close those."""
        if self._interrupted:
            for proxy in list(self.proxies.values()):
                self._ask_over(connection, ("redeem", (proxy._id, None)))
            for each in self._interrupted:
                each.close()
            self._interrupted.clear()

    def _open_line(self) -> CallLine:
        if not hasattr(self._calls, "idle"):
            self._calls.idle = []
        connection = self._dial()
        line = call_line(connection)
        who = f"{current_process().name} (pid {os.getpid()})"
        # What has a session with us is procession.
        if self._connection is not None and pipes.can_have_pipes(connection):
            return self._open_pipes(connection, line, who)
        self._result(*self._ask_over(line, (wire.MARK, "accept_connection", (who,), {})))
        return line

    def _open_pipes(self, connection: Connection, line: CallLine, who: str) -> CallLine:
        """Return the line over pipes, or *line* if they were not to be had on either side."""
        try:
            line.send(self.codec.dumps((wire.MARK, "accept_pipes", (who,), {})))
            ours = pipes.offer(connection, self._open.add)
            taken = self._result(*self.codec.loads(line.receive()))
        except (OSError, EOFError) as error:
            line.close()
            self._fail(error)
        if ours is None:
            return line
        if not taken:
            ours.close()
            return line
        line.close()
        return call_line(ours)

    def _hang_up(self) -> None:
        """Close the lines of this thread."""
        for line in self._calls.__dict__.pop("idle", ()):
            line.close()

    def create(self, typeid: str, args: Any, kwds: Any) -> tuple[wire.Token, tuple[str, ...]]:
        """Make an object in the server; return its token and what is exposed.

        The token has the ticket for the first reference, except from the standard library,
        which has counted one already: `release_first` gives that back.
        """
        if self.knows_sessions():
            _, ident, exposed, ticket = self._result(
                *self.call(None, "create_ours", (typeid, *args), kwds)
            )
            return wire.Token(typeid, self.address, ident, ticket), tuple(exposed)
        ident, exposed = self.ask("create", typeid, *args, **kwds)
        return wire.Token(typeid, self.address, ident), tuple(exposed)

    # -- questions about references --------------------------------------------------------

    def knows_sessions(self) -> bool:
        """Return whether the server is procession's."""
        with self._lock:
            self._begin_question()
            try:
                self._connect()
            finally:
                self._busy = False
        self._drop_now()
        return self._knows_sessions

    def hold(self, ident: str, ticket: str | None) -> None:
        """Take a reference to *ident* for this process."""
        if self.knows_sessions():
            self.ask("redeem", ident, ticket)
        else:
            self.ask("incref", ident)

    def issue(self, idents: Iterable[str]) -> str | None:
        """Return a ticket for references to *idents* on their way; None where there is none."""
        return self.ask("issue", list(idents)) if self.knows_sessions() else None

    def drop(self, ident: str) -> None:
        """Give a reference back, as soon as possible; never raises. For finalizers."""
        self._dropped.append(ident)
        self._drop_now()

    def ask(self, function: str, /, *args: Any, **kwds: Any) -> Any:
        """Have the server itself carry out a function, and return the result.

        Raises `ServerDiedError`, `RemoteError` and what the function raises.
        """
        with self._lock:
            self._begin_question()
            try:
                self._connect()
                connection = self._connection
                if connection is not None:
                    answer = self._ask_over(connection, (function, args))
            finally:
                self._busy = False
        if connection is None:
            answer = self._ask_once((None, function, args, kwds))
        self._drop_now()
        return self._result(*answer)

    def ask_to_end(self, seconds: float) -> None:
        """Ask the server to end, and wait until it has heard that, *seconds* at the most.

        A server that hears nobody may have left another question unanswered, so that this is
        asked over a connection of its own. Raises like `ask`.
        """
        with self._dial(seconds) as connection:
            connection.send_bytes(self.codec.dumps((None, "shutdown", (), {})))
            connection.poll(seconds)

    def _begin_question(self) -> None:
        """Be busy; the lock is held."""
        if self._busy:
            raise BusyConnectionError(
                "cannot be used here: a signal handler has interrupted this thread while it was "
                "asking this very manager about its references"
            )
        self._busy = True

    def _result(self, kind: str, result: Any) -> Any:
        if kind == wire.RETURN:
            return result
        raise wire.to_exception(kind, result)

    def _ask_once(self, question: Any) -> tuple[str, Any]:
        """Ask over a connection for this one question."""
        line = call_line(self._dial())
        try:
            return self._ask_over(line, question)
        finally:
            line.close()

    def _ask_over(self, connection: CallLine, question: Any) -> tuple[str, Any]:
        """Ask and wait for the answer. Over the session's connection, the lock is held."""
        try:
            connection.send(self.codec.dumps(question))
            kind, result = self.codec.loads(connection.receive())
        except BaseException as error:
            if _is_end(error):
                connection.close()
                if connection is self._connection:
                    self._connection = None
                raise self._died() from error
            # A signal handler has raised, or memory has run out. The answer must not be taken for
            # the next one's, but the references that are tied to this connection are needed.
            if connection is self._connection:
                self._connection = None
                self._interrupted.append(connection)
            else:
                connection.close()
            raise
        return kind, result

    def _drop_now(self) -> None:
        """Tell the server what was dropped, unless somebody is asking it something now.

        Who is asking comes here afterwards.
        """
        while self._dropped and self._lock.acquire(blocking=False):
            try:
                if self._busy:
                    return
                self._busy = True
                try:
                    self._tell_dropped()
                except _FAILURES:
                    self._dropped.clear()  # the references have gone, with the server
                finally:
                    self._busy = False
            finally:
                self._lock.release()

    def _tell_dropped(self) -> None:
        """Give back the references in the list; the lock is held."""
        while self._dropped:
            ident = self._dropped.popleft()
            if self._connection is not None:
                self._connection.send(self.codec.dumps(("drop", (ident,))))
            elif not self._knows_sessions:
                self._ask_once((None, "decref", (ident,), {}))

    # -- connections -----------------------------------------------------------------------

    def _connect(self) -> None:
        """Open the session, if there is none; the lock is held."""
        if self._connection is not None or not self._knows_sessions:
            return
        connection = call_line(self._dial())
        kind, result = self._ask_over(connection, (wire.MARK, "session", (), {}))
        if kind == wire.RETURN:
            name, pid = result
            self.server = name, pid, None
            self._connection = connection
            self._move_references(connection)
        else:
            # The standard library knows no such function.
            self._knows_sessions = False
            connection.close()

    def _dial(self, seconds: float = CONNECT_SECONDS) -> Connection:
        try:
            connection = Client(
                self.address,
                authkey=self.authkey,
                timeout=seconds,
                tls=self.tls,
                silence=self.silence,
            )
        except (OSError, EOFError) as error:
            self._fail(error)
        self._open.add(connection)
        return connection

    def _fail(self, error: OSError | EOFError) -> NoReturn:
        """Raise `ServerDiedError` if *error* says so, or else itself. Called while handling it."""
        if _is_end(error):
            raise self._died() from error
        raise error

    def _died(self) -> ServerDiedError:
        """Return the error that says which server has ended, and how."""
        if self.process is not None:
            self.process.join(1.0)  # its connection ends a moment before itself
            self.server = self.process.name, self.process.pid, self.process.exitcode
        name, pid, exitcode = self.server
        who = "the manager" if name is None else f"the manager {name!r} (pid {pid})"
        how = "has ended, or cannot be reached"
        if exitcode is not None:
            how = f"has ended with exit code {exitcode}"
        return ServerDiedError(
            f"{who} at {self.address!r} {how}; its objects are gone",
            process=name,
            pid=pid,
            exitcode=exitcode,
            address=self.address,
        )

    def close(self) -> None:
        """Hang up: the server takes the references back. The next call connects again."""
        with self._lock:
            for each in (self._connection, *self._interrupted):
                if each is not None:
                    each.close()
            self._connection = None
            self._interrupted.clear()
        self._hang_up()

    # -- fork ------------------------------------------------------------------------------

    def before_fork(self) -> str | None:
        """Take a ticket for the proxies that the child will have; None if it has none."""
        idents = [each._id for each in list(self.proxies.values())]
        try:
            return self.issue(idents) if idents else None
        except _FAILURES:
            return None  # there is nothing to refer to any more, as a call will say

    def after_fork(self, ticket: str | None) -> None:
        """Begin anew, in a forked child: the connections are the parent's."""
        for each in list(self._open):  # also those that other threads were using
            each.close()
        self.process = None
        self._begin()
        for proxy in list(self.proxies.values()):
            try:
                self.hold(proxy._id, ticket)
            except _FAILURES:
                continue  # a call will say so


class Sessions:
    """The sessions of this process, one for each server and key.

    A session ends with the last proxy or manager that uses it.
    """

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._sessions: WeakValueDictionary[tuple[Any, ...], Session] = WeakValueDictionary()
        self._watches_forks = False
        self._tickets: dict[Session, str | None] = {}

    def get(
        self,
        address: Address,
        authkey: bytes,
        serializer: str,
        tls: Tls | None = None,
        silence: float | None = None,
    ) -> Session:
        """Return the session, made on first use. It connects when there is something to ask.

        *tls* and *silence* are needed once: whoever asks for a session that is there gets it
        as it is.
        """
        key = address, bytes(authkey), serializer
        with self._lock:
            if not self._watches_forks:
                self._watches_forks = True
                watch_forks()
                if sys.platform != "win32":
                    os.register_at_fork(
                        before=self._before_fork, after_in_parent=self._after_fork_in_parent
                    )
                in_forked_children(self._after_fork)
            session = self._sessions.get(key)
            if session is None:
                session = self._sessions[key] = Session(address, authkey, serializer)
            session.tls = session.tls or tls
            session.silence = session.silence or silence
            return session

    def forget(self, session: Session) -> None:
        """Leave out a session whose manager was shut down."""
        with self._lock:
            for key in [key for key, each in self._sessions.items() if each is session]:
                del self._sessions[key]
        session.close()

    def _before_fork(self) -> None:
        self._tickets = {each: each.before_fork() for each in list(self._sessions.values())}

    def _after_fork_in_parent(self) -> None:
        self._tickets = {}

    def _after_fork(self) -> None:
        self._lock = allocate_lock()
        tickets, self._tickets = self._tickets, {}
        for session in list(self._sessions.values()):
            session.after_fork(tickets.get(session))


#: Those of this process.
sessions = Sessions()
