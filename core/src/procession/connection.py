"""`Connection`: objects through a channel, and `wait` for many of them at once."""

from __future__ import annotations

import procession.process  # noqa: F401 - the family's key must be there before any fork
from procession import abc
from procession._channels.byte_range import part, room
from procession._channels.connection_failures import check_total, fail, refuse
from procession._ground import standard
from procession._ground.waiting import wait_for_any
from procession._messages.pickling import Watching, dumper, explain, join, loads, with_sockets
from procession.errors import BufferTooShort, NothingToLendError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from typing import Any, NoReturn, Protocol, Self

    from procession._channels.twin import Twin
    from procession._contracts.channel import Buffer, Channel, Message
    from procession._ground.encoder import Encoder
    from procession._messages.lease import EmptyArray, Lease
    from procession._messages.pickling import Buffers

    class HasFileno(Protocol):
        """Anything that waits on a descriptor of its own."""

        def fileno(self) -> int:
            """Return the descriptor."""
            ...

    from procession._channels.pair import pipe as pipe
    from procession._remote.challenge import answer_challenge as answer_challenge
    from procession._remote.challenge import deliver_challenge as deliver_challenge
    from procession._remote.listener import Client as Client
    from procession._remote.listener import Listener as Listener

__all__ = [
    "Client",
    "Connection",
    "Listener",
    "answer_challenge",
    "deliver_challenge",
    "pipe",
    "wait",
]


# Where to find what children seldom ask for.
_ELSEWHERE = {
    "Client": "_remote.listener",
    "Listener": "_remote.listener",
    "answer_challenge": "_remote.challenge",
    "deliver_challenge": "_remote.challenge",
    "pipe": "_channels.pair",
}


def __getattr__(name: str) -> object:
    """Find what is in a module of its own when it is first asked for."""
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f"procession.{_ELSEWHERE[name]}"), name)
    globals()[name] = found
    return found


# Who has been answered less often need not learn to look for answers.
_FIRST_TRIPS = 16


class Connection(abc.Connection):
    """One end of a pipe that carries objects.

    ``Connection(handle)`` wraps a descriptor, which it takes over, of a stream that
    carries messages as multiprocessing's connections frame them. `Connection.over` makes
    one of any channel; `Pipe` makes two.

    Threads: any number may use one end at once; messages never interleave. Fork: both
    processes hold the end afterwards; two *processes* that send, or that receive,
    through one end at once need a lock. It is closed when it is collected.
    """

    _channel: Channel
    #: What is known of the other end, if both were made in this process.
    _twin: Twin | None = None
    _recv_limit: int | None = None
    _limit_source = ""
    #: Whether something was sent since the last message was received: what comes is an answer.
    _is_asking = False
    #: How many answers were received before we begin to glance for them.
    _trips = _FIRST_TRIPS
    _glance: Callable[[], object] | None = None
    #: The public class, for one with shortcuts.
    _kind: type[Connection] | None = None

    def __init__(self, handle: int, readable: bool = True, writable: bool = True) -> None:
        from procession._channels.stream_channel import StreamChannel

        handle = handle.__index__()
        if handle < 0:
            raise ValueError("invalid handle")
        if not readable and not writable:
            raise ValueError("at least one of `readable` and `writable` must be True")
        self._set(StreamChannel((handle,) if readable else (), (handle,) if writable else ()))

    @classmethod
    def over(cls, channel: Channel, encoder: Encoder | None = None) -> Self:
        """Return a connection around *channel*, which it takes over.

        *encoder* pickles what is sent, where that is not `pickle` itself.
        """
        kind: Any = cls._kind or cls
        if kind is Connection and channel.shortcuts is not None:
            from procession._channels.shortcuts import with_shortcuts

            kind = with_shortcuts(Connection, channel.shortcuts)
        self: Self = kind.__new__(kind)
        self._set(channel, encoder)
        return self

    def _set(self, channel: Channel, encoder: Encoder | None = None) -> None:
        self._channel = channel
        self._encoder = encoder
        self._dumps = dumper(encoder, channel.carries)
        # None where it may not be called: one look tells all that there is to check.
        self._send = channel.send if channel.writable else None
        self._receive = channel.receive if channel.readable else None
        self._choose_ways()
        standard.watch()

    def _choose_ways(self) -> None:
        """Learn that how this end sends or receives has changed: for shortcuts."""

    def watch(self, twin: Twin) -> None:
        """Learn what *twin* knows about the other end, made together with this one."""
        self._twin = twin
        # While this process has both ends open it does not hear of the other's end.
        if self._send is not None:
            self._send = twin.send
        if self._receive is not None:
            self._receive = twin.receive
        self._choose_ways()

    def stop_watching(self) -> None:
        """Use the channel directly: the kernel will tell of the other side's end."""
        if self._send is not None:
            self._send = self._channel.send
        if self._receive is not None:
            self._receive = self._channel.receive
        self._choose_ways()

    # -- sending -------------------------------------------------------------------------

    def send(self, obj: Any) -> None:
        """Send an object that can be pickled; blocks while the transport has no room.

        Large buffers in it (of numpy arrays, say) are written straight from their
        memory. Raises what pickling raises, before anything is sent;
        `BrokenConnectionError` (a `BrokenPipeError`) when nobody can receive any more,
        or its subclass `BrokenByDeathError`, which names who has died;
        `ConnectionClosedError` and `ConnectionDirectionError` (an `OSError` both).
        """
        send = self._send
        if send is None:
            self._refuse("read-only")
        dumps = self._dumps
        try:
            body, buffers = dumps(obj)
        except Exception as error:
            explain(error, [("obj", obj)], self._encoder)
            raise
        if buffers:
            self._send_pickled(body, buffers)
        else:
            try:
                send(body, buffers)
            except OSError as error:
                self._fail(error)
        self._is_asking = True

    # Shortcuts hide the methods, and come back to them by other names.
    _send_any = send

    def _send_pickled(self, body: bytes, buffers: Sequence[Buffer]) -> None:
        """Send an object that is pickled already, with its buffers and descriptors."""
        send = self._send
        if send is None:
            self._refuse("read-only")
        try:
            if type(buffers) is Watching and buffers.departure is not None:
                twin = self._twin
                carrier = self._channel if twin is None or send != twin.send else twin
                buffers.departure.send(body, buffers, carrier)
            else:
                send(body, buffers)
        except OSError as error:
            self._fail(error)

    def _send_despite(self, obj: Any, buffers: Buffers, error: Exception) -> None:
        """Send *obj*, although pickling it has raised *error*, or raise that, with its reason."""
        try:
            if not isinstance(error, TypeError):
                raise error
            body = with_sockets(error, obj, buffers)
        except Exception as reason:
            explain(reason, [("obj", obj)], self._encoder)
            raise
        self._send_pickled(body, buffers)

    def send_empty(self, shape: int | tuple[int, ...], dtype: Any = float) -> EmptyArray:
        """Return a context manager that gives an array of numpy to fill, and then sends it.

        ``with connection.send_empty((1000, 1000)) as array:``, for a pipe made by
        ``Pipe(leases=True)``, has it in memory that the pipe lends, of any content, so that
        sending it copies nothing. At the end of the block it is sent, unless an exception has
        ended it, and cannot be written to any more; do not write to views of it either. It is an
        ordinary array, and copied, where it is small or the pipe has no memory to lend.

        Raises `NothingToLendError` (a `ValueError`) for a connection that lends nothing,
        `ImportError` without numpy, `TypeError` for a *dtype* of Python objects, `ValueError`
        for a negative length, and at the end of the block what `send` raises.
        """
        from procession._messages.lease import EmptyArray

        if self._send is None:
            self._refuse("read-only")
        self._check_lending("send()")
        return EmptyArray(self._channel.reserve, self._send_filled, shape, dtype)

    def _send_filled(self, array: Any, memory: memoryview | None) -> None:
        """Send *array*, which was filled where it lies in *memory*, if it lies there."""
        send = self._send
        if send is None:
            self._refuse("read-only")
        body, buffers = self._dumps(array)
        try:
            # Another serializer, or a reducer, may make something else of it.
            if memory is not None and [len(each) for each in buffers] == [len(memory)]:
                twin = self._twin
                send_reserved = (self._channel if twin is None else twin).send_reserved
                send_reserved(body, memory)
            else:
                send(body, buffers)
        except OSError as error:
            self._fail(error)

    def send_bytes(self, buf: Buffer, offset: int = 0, size: int | None = None) -> None:
        """Send *size* bytes of a bytes-like object, from *offset* on, as one message.

        Raises `ValueError` when there are not so many, and like `send`.
        """
        send = self._send
        if send is None:
            self._refuse("read-only")
        if type(buf) is not bytes or offset or size is not None:
            buf = part(buf, offset, size)
        try:
            send(buf)
        except OSError as error:
            self._fail(error)
        self._is_asking = True

    _send_any_bytes = send_bytes

    # -- receiving -----------------------------------------------------------------------

    def recv(self, *, lease: bool = False) -> Any:
        """Wait for an object and return it.

        Arrays in it lie in the memory they were received into, and can be written to. With
        *lease*, for a pipe made by ``Pipe(leases=True)``, large ones may lie in memory that the
        pipe lends, which saves copying them. It is the object's alone, to be read and written,
        until the last array in it, and every view of one, is gone. What was sent before anybody
        has asked for leases is copied, as is all that the pipe has no memory to lend for; see
        docs/how-to/send-many-and-large-objects.

        Raises `EndOfConnectionError` (an `EOFError`) when the peer has closed and
        everything was received, and `OSError` when the stream ends within a message;
        `PeerDiedError`, which is one, too, when the peer is known to have died. With *lease*
        also `NothingToLendError` (a `ValueError`) for a connection that lends nothing.
        """
        if lease:
            return loads(*self._receive_leased())
        receive = self._receive
        if receive is None:
            self._refuse("write-only")
        if self._is_asking:
            self._look_for_answer()
        try:
            body, buffers = receive(None, self._recv_limit)
        except (OSError, EOFError) as error:
            self._fail(error, self._recv_limit is not None)
        if buffers and self._recv_limit is not None:
            self._check_total(len(body) + sum(map(len, buffers)))
        return loads(body, buffers)

    _recv_any = recv

    def _look_for_answer(self) -> None:
        """Wait a moment for the answer to what was sent, if that has paid lately.

        The channel would sleep, and who is woken on another processor loses more time by that
        than the other side takes for a short answer.
        """
        self._is_asking = False
        if self._glance is not None:
            self._glance()
        elif self._trips:
            self._trips -= 1
            if not self._trips:
                ask = self._channel.asker()
                if ask is not None:
                    from procession._channels.glance import Glance

                    self._glance = Glance(ask)

    def lease(self) -> Lease:
        """Receive the next object as ``recv(lease=True)`` does, for a ``with`` block.

        ``with connection.lease() as lease:`` has it as ``lease.object``. The end of the block
        ends the lease, and is a `BufferError` if an array of the object, or a view of one, is
        kept. Raises what `recv` raises.
        """
        from procession._messages.lease import Lease

        return Lease(self._receive_leased())

    def _receive_leased(self) -> Message:
        """Wait for a message and return it, with large buffers that may be lent."""
        if self._receive is None:
            self._refuse("write-only")
        self._check_lending("recv()")
        twin = self._twin
        receive = (self._channel if twin is None else twin).receive_leased
        limit = self._recv_limit
        try:
            body, buffers = receive(limit)
        except (OSError, EOFError) as error:
            self._fail(error, limit is not None)
        self._check_total(len(body) + sum(map(len, buffers)))
        return body, buffers

    def _check_lending(self, instead: str) -> None:
        """Raise `NothingToLendError` unless this end lends. *instead* is what works with all."""
        if not self._channel.lends:
            raise NothingToLendError(
                f"{self!r} lends nothing: a pipe that does is made by Pipe(leases=True), and "
                f"connections to other processes by Listener and Client cannot; use {instead}"
            )

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Wait for one message and return it as bytes; of an object, its whole pickle.

        Raises `MessageTooLongError` (an `OSError`) for one longer than *maxlength*;
        nothing can be received here then, and a read-only end is closed.
        """
        if maxlength is not None and maxlength < 0:
            raise ValueError("negative maxlength")
        receive = self._receive
        if receive is None:
            self._refuse("write-only")
        longest = self._recv_limit
        ours = longest is not None and (maxlength is None or longest < maxlength)
        if self._is_asking:
            self._look_for_answer()
        try:
            body, buffers = receive(None, longest if ours else maxlength)
        except (OSError, EOFError) as error:
            self._fail(error, ours)
        if buffers:
            return self._as_bytes(body, buffers, maxlength)
        return body if type(body) is bytes else bytes(body)

    _recv_any_bytes = recv_bytes

    def _as_bytes(
        self, body: Buffer, buffers: Sequence[Buffer], maxlength: int | None = None
    ) -> bytes:
        """Return a message with buffers as bytes, unless they are more than *maxlength*."""
        # Its descriptors are on offer when it is joined, and closed when it is too long before.
        self._check_total(len(body) + sum(map(len, buffers)), maxlength)
        joined = join(body, buffers)
        self._check_total(len(joined), maxlength)
        return joined

    def recv_bytes_into(self, buf: Buffer, offset: int = 0) -> int:
        """Receive one message into a writable buffer, from *offset* on; return its length.

        Raises `BufferTooShort`, with the whole message, when it does not fit.
        """
        into = room(buf, offset)
        receive = self._receive
        if receive is None:
            self._refuse("write-only")
        try:
            body, buffers = receive(into, self._recv_limit)
        except (OSError, EOFError) as error:
            self._fail(error, self._recv_limit is not None)
        if buffers:
            body = self._as_bytes(body, buffers)
            into[: len(body)] = body[: len(into)]
        if len(body) > len(into):
            raise BufferTooShort(bytes(body))
        return len(body)

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Return whether there is something to receive, waiting up to *timeout* seconds.

        None waits for ever. The end is something to receive: True. Takes nothing.
        """
        if self._receive is None:
            self._refuse("write-only")
        try:
            return self._channel.wait(timeout)
        except OSError as error:
            self._fail(error)

    def __aiter__(self) -> AsyncIterator[Any]:
        """Yield, in asyncio, what is received until the other end has been closed.

        See `procession.aio.receive`.
        """
        from procession import aio

        return aio.received(self)

    # -- the end itself ------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor to wait on with select and its relatives."""
        if self._channel.closed:
            self._refuse("closed")
        return self._channel.fileno()

    def close(self) -> None:
        """Close this end. Idempotent; what was sent can still be received."""
        self._send = self._receive = None
        self._choose_ways()
        self._channel.close()

    @property
    def closed(self) -> bool:
        """Whether this end was closed, here or because a message was interrupted."""
        return self._channel.closed

    @property
    def channel(self) -> Channel:
        """The channel below, for transports: messages of bytes. It stays the connection's."""
        return self._channel

    @property
    def recv_limit(self) -> int | None:
        """The longest message that is received here, in bytes; None for any.

        A longer one is a `MessageTooLongError` as soon as its length is known, before there is
        memory for it. Nothing more can be received here then, and sending goes on; an end that
        only receives is closed. (Where buffers, as of arrays, travel apart from the pickle, they
        are counted when they have come, and the next message can be received.)
        """
        return self._recv_limit

    @recv_limit.setter
    def recv_limit(self, limit: int | None) -> None:
        from procession._choosing.limits import check_recv_limit

        self._recv_limit = None if limit is None else check_recv_limit(limit)
        self._limit_source = "set by the program"
        self._choose_ways()

    def limit(self, recv_limit: int | None, source: str) -> Self:
        """Set `recv_limit`, which is from *source*; return the connection."""
        self._recv_limit, self._limit_source = recv_limit, source
        self._choose_ways()
        return self

    def limit_like(self, other: Connection) -> Self:
        """Set `recv_limit` to that of *other*; return the connection."""
        return self.limit(other._recv_limit, other._limit_source)

    @property
    def readable(self) -> bool:
        """Whether this end can receive."""
        return self._channel.readable

    @property
    def writable(self) -> bool:
        """Whether this end can send."""
        return self._channel.writable

    def _refuse(self, state: str) -> NoReturn:
        refuse(self, state)

    def _check_total(self, length: int, maxlength: int | None = None) -> None:
        check_total(self, self._limit_source, length, maxlength)

    def _fail(self, error: OSError | EOFError, limited: bool = False) -> NoReturn:
        """Give what a channel has raised its final shape. Called while handling it.

        *limited*: whether the longest message that was asked for is that of `recv_limit`.
        """
        channel = self._channel
        # What a message that went wrong has done to the channel.
        if channel.closed or not channel.readable:
            self._receive = None
        if channel.closed:
            self._send = None
        self._choose_ways()
        fail(self, self._twin, error, self._limit_source if limited else "")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process of this host; the end stays open here, too."""
        if self._channel.closed:
            self._refuse("closed")
        kind = self._kind or type(self)
        made: tuple[Any, ...] = kind.over, (self._channel,)
        if self._encoder is not None:
            made = kind.over, (self._channel, self._encoder)
        if self._recv_limit is None:
            return made
        return *made, {"_recv_limit": self._recv_limit, "_limit_source": self._limit_source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become what `__reduce__` has said of another process's copy."""
        self.__dict__.update(state)
        self._choose_ways()

    def __repr__(self) -> str:
        """Return the class, the descriptor and what it can do."""
        channel = self._channel
        if channel.closed:
            return f"<{type(self).__name__} closed>"
        doing = {(True, False): "read-only", (False, True): "write-only"}
        kind = doing.get((channel.readable, channel.writable), "duplex")
        # Not fileno(), which some channels make when it is first asked for, and pay for ever after.
        return f"<{type(self).__name__} {kind} fd={channel.holding()}>"


def wait(object_list: Iterable[HasFileno | int], timeout: float | None = None) -> list[Any]:
    """Wait until some of the objects are ready to be received from, and return those.

    Objects are connections (also multiprocessing's), sockets, descriptors such as
    `Process.sentinel`, and whatever else has a `fileno`. One whose peer has closed is
    ready, and so is one whose host has vanished. Returns them in the order in which they
    were given, or none if *timeout* seconds are over (None: never; negative: 0). Raises
    `OSError` for a closed one, and `ValueError` for what is nothing to wait for.
    """
    items = [(_descriptor_of(item), item) for item in object_list]
    fds = [fd for fd, _ in items]
    channels = [item._channel for _, item in items if isinstance(item, Connection)]
    # Those of other hosts: only a look tells that one has vanished.
    looks = {each.fileno(): look for each in channels if (look := getattr(each, "look", None))}
    if looks:
        from procession._ground.silence import wait_and_look

        ready = wait_and_look(fds, looks, timeout)
    else:
        ready = wait_for_any(fds, timeout)
    return [item for fd, item in items if fd in ready]


def _descriptor_of(item: HasFileno | int) -> int:
    if isinstance(item, int):
        return item
    try:
        fileno = item.fileno
    except AttributeError:
        raise ValueError(
            f"cannot wait for {item!r}: it is no descriptor and has no fileno()"
        ) from None
    return fileno()
