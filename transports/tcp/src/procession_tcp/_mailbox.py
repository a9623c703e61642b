"""Queues: a mailbox of this host, and one that is served by another host."""

from __future__ import annotations

import os
import threading
import time
from math import inf
from queue import Empty, Full
from struct import Struct

from procession.errors import BrokenConnectionError, ShutDown
from procession.plugin import Handoff, Mailbox, PacketMailbox, Takeover

from ._channel import other_hosts_may_come

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Self, TypeVar

    from procession.connection import Connection
    from procession.plugin import Buffer, Message, Recipe

    from ._dock import Claim

    T = TypeVar("T")

#: What is asked: the question, and how long the answer may take (infinity: for ever).
_question = Struct("!cd")
_PUT, _GET, _SIZE, _DRAIN, _DROP, _TASK_DONE, _JOIN = b"P", b"G", b"S", b"D", b"X", b"T", b"J"
#: What is answered: the kind, a number, and a text.
_answer = Struct("!cQ")
_DONE, _FULL, _EMPTY, _SHUT, _WRONG, _FAILED = b"d", b"f", b"e", b"s", b"w", b"x"
_LONGEST_ANSWER = 4096
_LONGEST_TEXT = _LONGEST_ANSWER - _answer.size
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
        self.close_copy()

    def close_copy(self) -> None:
        """Close this copy; if it is not the one that was offered, nobody is affected."""
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

    def _simply(self, question: bytes, timeout: float | None = None) -> int:
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


def _ask(connection: Connection, question: bytes, timeout: float | None) -> None:
    connection.send_bytes(_question.pack(question, inf if timeout is None else timeout))


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


class _Duplicates(Handoff, Takeover):
    """How a mailbox crosses into its own process: with duplicates of its descriptors."""

    __slots__ = ("_untaken",)

    def __init__(self) -> None:
        self._untaken: list[int] = []

    def give(self, fd: int, /) -> int:
        """See `Handoff.give`."""
        duplicate = os.dup(fd)
        self._untaken.append(duplicate)
        return duplicate

    def take(self, token: int, /) -> int:
        """See `Takeover.take`."""
        self._untaken.remove(token)
        return token

    def close(self) -> None:
        """Close what nobody took."""
        while self._untaken:
            os.close(self._untaken.pop())


class Served:
    """A mailbox as other hosts use it, until its owner has closed it.

    It is a copy with descriptors of its own: the owner may close his at any time, while a
    guest is in the middle of an operation.
    """

    def __init__(self, owner: TcpMailbox) -> None:
        crossing = _Duplicates()
        try:
            self._mailbox = TcpMailbox.attach(owner.export(crossing), crossing)
        finally:
            crossing.close()
        self._lock = threading.Lock()
        self._guests = 0
        self._withdrawn = False

    def serve(self, connection: Connection) -> None:
        """Answer the questions of one guest, until it has gone or the mailbox is withdrawn."""
        with self._lock:
            if self._withdrawn:
                return
            self._guests += 1
        try:
            while not self._withdrawn:
                if connection.poll(_SLICE) and not self._withdrawn:
                    _serve_one(self._mailbox, connection, self._check_wanted)
        except (OSError, EOFError, _Gone):
            return
        finally:
            with self._lock:
                self._guests -= 1
            self._close_if_left()

    def withdraw(self) -> None:
        """Serve nobody any more; who waits here hears of it soon."""
        self._withdrawn = True
        self._close_if_left()

    def abandon(self) -> None:
        """Close the copy, in a forked child."""
        self._mailbox.close_copy()

    def _close_if_left(self) -> None:
        with self._lock:
            if self._withdrawn and not self._guests:
                self._mailbox.close_copy()

    def _check_wanted(self, connection: Connection) -> None:
        # Who waits for an answer sends nothing: what there is to receive is its end.
        if self._withdrawn or connection.poll(0):
            raise _Gone


def _serve_one(
    mailbox: Mailbox, connection: Connection, check_wanted: Callable[[Connection], None]
) -> None:
    """Answer one question; *check_wanted* raises `_Gone` when nobody waits for that any more."""
    question, seconds = _question.unpack(connection.recv_bytes(_question.size))
    given = connection.channel.receive() if question == _PUT else None

    def sliced(operate: Callable[[float], T], not_yet: type[Exception]) -> T:
        """Return what *operate* does in time; look meanwhile whether it is still wanted.

        A message that was got for nobody would be lost.
        """
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            try:
                return operate(max(0.0, min(left, _SLICE)))
            except not_yet:
                if left <= _SLICE:
                    raise
            check_wanted(connection)

    message: Message | None = None
    number, text = 0, ""
    try:
        if question == _GET:
            message = sliced(lambda left: mailbox.get(timeout=left), Empty)
        elif given is not None:
            body, buffers = given
            sliced(lambda left: mailbox.put(body, buffers, timeout=left), Full)
        elif question == _JOIN:
            sliced(lambda left: _join(mailbox, left), _NotYet)
            number = 1
        else:
            number = _do(mailbox, question)
        kind = _DONE
    except _NotYet:
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


class _Gone(Exception):
    """Who has asked has gone meanwhile, or the mailbox was withdrawn."""


class _NotYet(Exception):
    """Something is not done yet."""


def _join(mailbox: Mailbox, seconds: float) -> None:
    if not mailbox.join(seconds):
        raise _NotYet


def _do(mailbox: Mailbox, question: bytes) -> int:
    if question == _SIZE:
        return mailbox.size()
    if question == _TASK_DONE:
        mailbox.task_done()
    elif question in (_DRAIN, _DROP):
        mailbox.shutdown(immediate=question == _DROP)
    else:
        raise ValueError("there is no such question")
    return 0
