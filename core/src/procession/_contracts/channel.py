"""The contract of a channel: one end of a pair that carries whole messages."""

from __future__ import annotations

from abc import abstractmethod

from procession._ground.handoff import Exportable

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from functools import partial as partial
    from typing import Any, ClassVar, TypeAlias
else:
    from _functools import partial  # functools itself brings much more

# Anything with the buffer protocol; a pickle body or one out-of-band buffer.
Buffer: TypeAlias = "bytes | bytearray | memoryview"
#: A body and its out-of-band buffers.
Message: TypeAlias = "tuple[Buffer, Sequence[Buffer]]"


class Channel(Exportable):
    """One end of a pair: whole messages, in order, each received exactly once.

    A message is a *body* (a pickle, or the bytes given to `send_bytes`) and its
    out-of-band *buffers* (pickle protocol 5), any of which may be empty. Buffers are
    written from the memory they lie in and received into memory of their own.

    Threads: any number may use one end at once; messages never interleave. Fork:
    both processes hold the same end afterwards; two *processes* that use one end at
    once need a lock of their own, except where the transport says otherwise.
    Nothing is read ahead: what has not been received stays for whoever receives next.

    Ownership: a channel owns its descriptors, of which none is inheritable, and closes
    them once, in `close` or when it is collected.

    Errors are the operating system's own (`OSError`); the connection around the
    channel gives them their final shape.
    """

    __slots__ = ()

    #: Whether `receive` and `wait` may be called on this end.
    readable: bool
    #: Whether `send` may be called on this end.
    writable: bool
    #: Whether `close` was called, or an interrupted message made this end unusable.
    closed: bool
    #: Whether `receive_leased` and `reserve` lend memory, as long as there is any to lend.
    lends: bool = False
    #: What copies the second buffer into the first, which has just its length, better than Python
    #: can, and lets other threads run meanwhile: for what a connection lends. None if nothing does.
    copy: Callable[[Buffer, Buffer], object] | None = None
    #: Whether `accompany` may be called on a new end.
    takes_companion: ClassVar[bool] = False

    @property
    def shortcuts(self) -> type[Any] | None:
        """A class of compiled methods for connections around this channel, or None.

        It becomes the first base of their class, and has `send`, `send_bytes`, `recv` and
        `recv_bytes`. Each does the same as that of `Connection` in the case that is common, by
        `shorten`'s leave, and leaves all others to `_send_any`, `_send_any_bytes`, `_recv_any` and
        `_recv_any_bytes`, with its arguments as they are. An `OSError` or `EOFError` of the channel
        is given to `_fail`, which raises. An object is pickled by `_encode`, as
        `_messages.pickling.dumps` does it, or `dumps_watching` if it `carries`; what that raises
        is given to `_send_despite`, and a pickle with buffers to `_send_pickled`. Bytes that came
        with buffers are made whole by `_as_bytes`. Its static method ``prepare`` is called once
        before, with the names of `procession._messages.pickling`. Such a channel has no `asker`.
        """
        return None

    def shorten(self, connection: Any, sends: bool, receives: bool, pickles: bool, /) -> None:
        """Let the shortcuts of *connection* send, or receive, or neither, from now on.

        *pickles* says whether objects are pickled as the pickle module does it. Only for a
        channel that has `shortcuts`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no shortcuts")

    @property
    def carries(self) -> bool:
        """Whether `send_carrying` may find a way for descriptors."""
        return False

    @property
    def torn(self) -> bool:
        """Whether a message interrupted half-way has made this end unusable."""
        return False

    @abstractmethod
    def send(self, body: Buffer, buffers: Sequence[Buffer] = (), /) -> None:
        """Send one message; blocks while the transport has no room.

        *body* and every one of *buffers* are contiguous, of format ``B``. They may
        be changed again as soon as this returns.

        Raises `BrokenPipeError` or `ConnectionResetError` when nobody can receive
        any more. After any exception but one of a signal handler the message has not
        been and will not be received whole. A handler that raises may do so in the
        instant after the kernel took a message; if it does while only a part may have
        been written, this end is closed, so that the peer sees a truncated message
        rather than a wrong one.
        """

    def accompany(self, companion: int, /) -> None:
        """Take over *companion*, a socket through which descriptors travel to the other end.

        See `procession._ground.companion`. It goes with this end wherever that goes, and is closed
        with it. Only for a new end, whose other one gets the other socket.
        """
        raise OSError(f"{type(self).__name__} takes no companion")

    def send_carrying(
        self, body: Buffer, buffers: Sequence[Buffer], descriptors: Sequence[int], /
    ) -> bool:
        """Like ``send(body, buffers)``, with *descriptors* beside the message.

        Duplicates of them come with it: `receive` returns a `_messages.luggage.Luggage` for
        its buffers. Returns False, and has sent nothing, where there is no way for
        descriptors now.
        """
        return False

    def sender(self, body: bytes, /) -> Callable[[], object]:
        """Return what sends the message *body*, without buffers, each time that it is called.

        For an end that nobody else sends through meanwhile, and with room for the message:
        then no lock is needed. A channel that can has it be one step: a function of the
        interpreter's, during which no signal handler runs. Raises what `send` raises.
        """
        return partial(self.send, body)

    @abstractmethod
    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
        """Wait for one message and return ``(body, buffers)``.

        *into*: a writable, contiguous view of format ``B``. A message without
        buffers whose body fits is received into it, and the body returned is the
        part of *into* that was filled. *limit*: the longest body accepted, in bytes;
        a longer one raises `procession.errors.MessageTooLongError` and this end can
        not be read any more (a write-only use goes on).

        Raises `EOFError` when the peer has closed and every message was received,
        and `OSError` ("got end of file during message") when the stream ends
        within a message. After an exception raised half-way by a signal handler
        this end is closed. One raised in the instant after the kernel gave the last of
        a message loses that message; what is received next is the next one.
        """

    def receive_leased(self, limit: int | None = None, /) -> Message:
        """Like ``receive(None, limit)``, with buffers that may lie in memory which is lent.

        That is theirs until the last view of them is gone, or this process, and those that were
        forked from it since. A channel that lends nothing gives copies.
        """
        return self.receive(None, limit)

    def reserve(self, size: int, /) -> memoryview | None:
        """Return memory of *size* bytes, of any content, for the buffer of a message to send.

        None when there is none: send it as any other then. The memory is the caller's as what
        `receive_leased` returns is; `send_reserved` does not change that.
        """
        return None

    def send_reserved(self, body: Buffer, memory: memoryview, /) -> None:
        """Like ``send(body, (memory,))``, for what `reserve` has returned, without copying it.

        Once for each *memory*, which must not be written to any more.
        """
        self.send(body, (memory,))

    @abstractmethod
    def wait(self, timeout: float | None = None, /) -> bool:
        """Return whether `receive` would not block: a message or the end is there.

        Waits up to *timeout* seconds; None waits for ever, 0 (or less) does not
        wait. Takes nothing: asking again gives the same answer.
        """

    def wait_for_room(self, length: int, timeout: float | None = None, /) -> bool:
        """Return whether sending *length* bytes can begin: there is room, or nobody receives.

        *length* is that of the body and all buffers together. Waits up to *timeout* seconds,
        as `wait` does, and writes nothing. A longer message may have to wait again in the
        middle, and another sender may be faster. A channel that cannot tell returns True at
        once, and then `send` waits where nobody looks whether the receiver has died.
        """
        return True

    def watch(self, receiving: Callable[[], object], sending: Callable[[], object], /) -> bool:
        """Have a function called about once a second while this end waits; True if it will be.

        That is *receiving* while `receive` waits for a message to begin, and *sending* while
        `send` waits for room to begin one. What they raise ends the wait: nothing was received,
        or sent, then. A channel that calls nobody is waited for with `wait` and
        `wait_for_room` before each message.
        """
        return False

    def asker(self) -> Callable[[], object] | None:
        """Return what says at once, by a true value, whether a message or the end is there.

        For one thread at a time; it lets go of the GIL each time that it is called. Who expects
        an answer may ask again and again for some tenths of a millisecond at most before it
        calls `receive`. None for a channel that does such a thing itself, or gains nothing.
        """
        return None

    @abstractmethod
    def fileno(self) -> int:
        """Return a descriptor that is readable when a message, or the end, is there.

        For select, poll, epoll and asyncio. It stays the channel's: do not close it.
        """

    def holding(self) -> int:
        """Return a descriptor of a file that is open in every process that has this end.

        A process that has only the other end does not have it (the two ends of a pipe count
        as two files), so that it tells who could still use this one. It stays the channel's.
        """
        return self.fileno()

    @abstractmethod
    def close(self) -> None:
        """Give the descriptors back. Idempotent; never raises for a broken peer."""
