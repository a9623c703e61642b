"""Queues: a mailbox of this host, and one that is served by another host."""

from __future__ import annotations

import os
import time
from math import inf
from queue import Empty, Full
from struct import Struct

from procession.errors import AuthenticationError, BrokenConnectionError, ShutDown
from procession.plugin import Mailbox, PacketMailbox

from ._channel import other_hosts_may_come

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Self, TypeVar

    from procession.connection import Connection
    from procession.plugin import Buffer, Handoff, Message, Recipe, Takeover

    from ._dock import Claim

    T = TypeVar("T")

#: What is asked: the question, and how long the answer may take (infinity: for ever).
_question = Struct("!cd")
_PUT, _GET, _SIZE, _DRAIN, _DROP, _TASK_DONE, _JOIN = b"PGSDXTJ"
_QUESTIONS = {bytes([each]): each for each in (_PUT, _GET, _SIZE, _DRAIN, _DROP, _TASK_DONE, _JOIN)}
#: What is answered: the kind, a number, and a text.
_answer = Struct("!cQ")
_DONE, _FULL, _EMPTY, _SHUT, _WRONG, _FAILED = b"d", b"f", b"e", b"s", b"w", b"x"
_LONGEST_ANSWER = 4096
#: How long the server waits before it looks whether who has asked is still there, in seconds.
_SLICE = 0.5


class TcpMailbox(PacketMailbox):
    """A mailbox of this host, which other hosts may come to use.

    In a message to another host it is where to find it: who unpickles that has a
    `RemoteMailbox`. It is served until it is closed in the process that has sent it.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for a message to a running process: of another host, if one can reach us."""
        bind = other_hosts_may_come()
        if bind is None:
            return super().__reduce__()
        from ._dock import dock

        return RemoteMailbox, (dock.offer_mailbox(self, bind), self.maxsize)

    def close(self) -> None:
        """See `Mailbox.close`."""
        if other_hosts_may_come() is not None and not self.closed:
            from ._dock import dock

            dock.withdraw(self)
        super().close()


class RemoteMailbox(Mailbox):
    """A mailbox that the process at *claim*, on another host, serves.

    Each operation is a question and its answer; threads that ask at the same time have a
    connection each. A `put` that has returned has been made there. A `get` that ends
    otherwise than by its answer - this process is killed, the network is cut - may take a
    message with it, as on one host.

    Fork: the child connects anew. It may be handed over and sent on to any host. Other than
    on one host, nobody notices that all who could put something have died; that the server
    has, everybody does: `BrokenConnectionError`.
    """

    __slots__ = ("_claim", "_idle", "_owner", "closed", "maxsize")

    def __init__(self, claim: Claim, maxsize: int) -> None:
        self._claim = claim
        self.maxsize = maxsize
        self.closed = False
        self._idle: list[Connection] = []
        self._owner = os.getpid()

    # -- operations ----------------------------------------------------------------------

    def put(
        self, body: Buffer, buffers: Sequence[Buffer] = (), /, *, timeout: float | None = None
    ) -> None:
        """See `Mailbox.put`."""

        def ask(connection: Connection) -> int:
            _ask(connection, _PUT, timeout)
            connection.channel.send(body, buffers)
            return _understand(connection)

        self._over(ask)

    def get(self, *, timeout: float | None = None) -> Message:
        """See `Mailbox.get`."""

        def ask(connection: Connection) -> Message:
            _ask(connection, _GET, timeout)
            _understand(connection)
            return connection.channel.receive()

        return self._over(ask)

    def size(self) -> int:
        """See `Mailbox.size`."""
        return self._simply(_SIZE)

    def shutdown(self, *, immediate: bool = False) -> None:
        """See `Mailbox.shutdown`."""
        self._simply(_DROP if immediate else _DRAIN)

    def task_done(self) -> None:
        """See `Mailbox.task_done`."""
        self._simply(_TASK_DONE)

    def join(self, timeout: float | None = None, /) -> bool:
        """See `Mailbox.join`."""
        return bool(self._simply(_JOIN, timeout))

    def _simply(self, question: int, timeout: float | None = None) -> int:
        def ask(connection: Connection) -> int:
            _ask(connection, question, timeout)
            return _understand(connection)

        return self._over(ask)

    def _over(self, ask: Callable[[Connection], T]) -> T:
        """Return what *ask* does over a connection that nobody else uses meanwhile."""
        connection = self._connect()
        try:
            result = ask(connection)
        except _ANSWERS:
            self._idle.append(connection)
            raise
        except (OSError, EOFError) as error:
            connection.close()
            host, port = self._claim[0]
            raise BrokenConnectionError(
                f"the queue that is served at {host} port {port} cannot be used any more: {error}"
            ) from error
        except BaseException:
            connection.close()  # the answer must not be taken for that to the next question
            raise
        self._idle.append(connection)
        return result

    def _connect(self) -> Connection:
        if self._owner != os.getpid():
            # A forked child: these are the parent's.
            idle, self._idle = self._idle, []
            self._owner = os.getpid()
            for each in idle:
                each.close()
        try:
            return self._idle.pop()
        except IndexError:
            from ._dock import dial

            return dial(self._claim, "queue")

    # -- the mailbox itself --------------------------------------------------------------

    def fileno(self) -> int:
        """Refuse: what happens on another host makes no descriptor readable here."""
        raise OSError("a queue of another host has no descriptor to wait for: get has a timeout")

    def close(self) -> None:
        """See `Mailbox.close`."""
        self.closed = True
        while self._idle:
            self._idle.pop().close()

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        return self._claim, self.maxsize

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        return cls(*recipe)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for any process that can reach the server."""
        return type(self), (self._claim, self.maxsize)


class _Wrong(ValueError):
    """What the server calls wrong."""


class _Failed(OSError):
    """What the server could not do."""


#: What leaves a connection usable: an answer was had.
_ANSWERS = (Full, Empty, ShutDown, _Wrong, _Failed)


def _ask(connection: Connection, question: int, timeout: float | None) -> None:
    connection.send_bytes(_question.pack(bytes([question]), inf if timeout is None else timeout))


def _understand(connection: Connection) -> int:
    """Wait for an answer; return its number, or raise what it says."""
    answer = connection.recv_bytes(_LONGEST_ANSWER)
    kind, number = _answer.unpack_from(answer)
    text = answer[_answer.size :].decode()
    if kind == _DONE:
        return int(number)
    if kind == _FULL:
        raise Full
    if kind == _EMPTY:
        raise Empty
    if kind == _SHUT:
        raise ShutDown(text)
    if kind == _WRONG:
        raise _Wrong(text)
    raise _Failed(text)


# -- the server's side -------------------------------------------------------------------


def serve(mailbox: Mailbox, connection: Connection) -> None:
    """Answer the questions of one client about *mailbox*, until it has gone."""
    try:
        while True:
            _serve_one(mailbox, connection)
    except (OSError, EOFError, AuthenticationError, _Gone):
        return


def _serve_one(mailbox: Mailbox, connection: Connection) -> None:
    question, seconds = _question.unpack(connection.recv_bytes(_question.size))
    what = _QUESTIONS.get(question)
    given = connection.channel.receive() if what == _PUT else None
    message: Message | None = None
    number, text = 0, ""
    try:
        if what == _GET:
            message = _sliced(lambda left: mailbox.get(timeout=left), seconds, connection, Empty)
        elif given is not None:
            body, buffers = given
            _sliced(
                lambda left: mailbox.put(body, buffers, timeout=left), seconds, connection, Full
            )
        elif what == _JOIN:
            number = _join(mailbox, seconds, connection)
        else:
            number = _do(mailbox, what)
        kind = _DONE
    except Full:
        kind = _FULL
    except Empty:
        kind = _EMPTY
    except ShutDown as error:
        kind, text = _SHUT, str(error)
    except ValueError as error:
        kind, text = _WRONG, str(error)
    except OSError as error:
        kind, text = _FAILED, str(error)
    connection.send_bytes(_answer.pack(kind, number) + text.encode()[:_LONGEST_TEXT])
    if message is not None:
        connection.channel.send(*message)


_LONGEST_TEXT = _LONGEST_ANSWER - _answer.size


class _Gone(Exception):
    """Who has asked has gone meanwhile."""


def _sliced(
    operate: Callable[[float], T],
    seconds: float,
    connection: Connection,
    not_yet: type[Exception],
) -> T:
    """Return what *operate* does within *seconds*; look meanwhile whether it is still wanted.

    A message that was got for nobody would be lost. Raises *not_yet* when the time is over.
    """
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        try:
            return operate(max(0.0, min(left, _SLICE)))
        except not_yet:
            if left <= _SLICE:
                raise
        _check_there(connection)


def _join(mailbox: Mailbox, seconds: float, connection: Connection) -> int:
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        if mailbox.join(max(0.0, min(left, _SLICE))):
            return 1
        if left <= _SLICE:
            return 0
        _check_there(connection)


def _check_there(connection: Connection) -> None:
    # Who waits for an answer sends nothing: what there is to receive is its end.
    if connection.poll(0):
        raise _Gone


def _do(mailbox: Mailbox, what: int | None) -> int:
    if what == _SIZE:
        return mailbox.size()
    if what == _TASK_DONE:
        mailbox.task_done()
    elif what in (_DRAIN, _DROP):
        mailbox.shutdown(immediate=what == _DROP)
    else:
        raise ValueError("there is no such question")
    return 0
