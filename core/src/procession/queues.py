"""`Queue`, `JoinableQueue` and `SimpleQueue`: objects from many processes to many processes.

A queue is a mailbox and pickling. There is no feeder thread: `put` pickles and hands the
message to the kernel itself, so what cannot be pickled raises in `put`, a `put` that has
returned has happened, and a process may end, or be killed, at any time after it.
"""

from __future__ import annotations

import sys
import time
from _operator import index

from procession import abc
from procession._ground import standard as _standard
from procession._messages.pickling import dumper, explain, loads
from procession.errors import BatchError, ConnectionClosedError, QueueClosedError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from types import GenericAlias
    from typing import Any, NoReturn

    from procession._contracts.channel import Message
    from procession._contracts.mailbox import Mailbox
    from procession._ground.encoder import Encoder
    from procession._messages.lease import EmptyArray, Lease
    from procession.context import BaseContext

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

# The types module would have to be imported for its name.
_GenericAlias: Any = type(list[int])


# How many messages a mailbox is given at once: some are left over each time it has no room, and
# to hand over all that are left again and again would take for ever.
_AT_ONCE = 256


class Queue(abc.Queue):
    """Objects from many processes to many processes, first in, first out.

    A context makes it: ``ctx.Queue(maxsize)``. A class derived from it may be given *ctx*, a
    context, instead of *mailbox*, which is what carries the messages and is taken over, and
    *encoder*, which pickles what is put, where that is not `pickle` itself. What such a class
    adds goes to other processes by its own ``__getstate__`` and ``__setstate__``.

    Any number of threads and processes may use it at once. What one producer puts is
    got in that order, each object exactly once. A process killed at any instruction
    leaves it usable for the others (see the mailbox of the transport for what exactly
    is promised); `qsize`, `empty` and `full` are exact at the moment they look.

    It may be an argument of a process, on every start method. Fork: both processes hold
    it afterwards. Its descriptors are closed when it is collected, or by `close`.
    """

    #: Whether its mailbox counts what is done.
    _joinable = False

    def __init__(
        self,
        maxsize: int = 0,
        *,
        ctx: BaseContext | None = None,
        mailbox: Mailbox | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        if mailbox is None:
            options = {"joinable": True} if self._joinable else {}
            maxsize = index(maxsize)
            mailbox, encoder = _mailbox_of(type(self), ctx, maxsize=max(0, maxsize), **options)
        self._begin(max(0, maxsize), mailbox, encoder)

    @property  # type: ignore[misc]  # nobody sets it
    def __class__(self) -> type[Any]:
        """The class; where the standard package is loaded, one that passes for its queue."""
        if not _standard.is_loaded():
            return type(self)
        from procession._standard.classes import disguise

        return disguise(type(self), "queues", "Queue")

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add *obj*, waiting for room up to *timeout* seconds (None: for ever) if *block*.

        Only a queue with a maxsize is ever full. Raises what pickling raises,
        `queue.Full`, `ShutDown` after `shutdown`, `QueueClosedError` (a ValueError)
        after `close`, and `OSError` when memory has run out; without a timeout also
        `BrokenByDeathError` (a BrokenPipeError) when all who could make room have died.
        The object was not added then. When this returns, it will be got even if this
        process is killed at once.
        """
        if self._closed:
            raise self._closed_error()
        dumps = self._dumps
        try:
            body, buffers = dumps(obj)
        except Exception as error:
            explain(error, [("obj", obj)], self._encoder)
            raise
        try:
            if block and timeout is None:
                self._mailbox.put(body, buffers)
            else:
                self._mailbox.put(body, buffers, timeout=_seconds(block, timeout))
        except (OSError, ValueError) as error:
            self._fail(error, "put this into the queue")

    def get(self, block: bool = True, timeout: float | None = None, *, lease: bool = False) -> Any:
        """Take the next object, waiting for one up to *timeout* seconds if *block*.

        With *lease*, large arrays in it may lie in the queue's own memory, which saves copying
        them. It is the object's alone, to be read and written, until the last array in it, and
        every view of one, is gone; then it is used for other messages. It pays where objects
        are let go of soon. What was put before anybody has asked for leases is copied, as is
        all that the queue has no memory to lend for; see docs/how-to/send-many-and-large-objects.

        Raises `queue.Empty`; `ShutDown` after a shutdown, when nothing is left;
        `QueueClosedError` (a ValueError) after `close`; what unpickling raises - the
        object is gone then, and the next `get` gets the next one. Without a timeout also
        `PeerDiedError` (an EOFError) when all who could put something have died.
        """
        if self._closed:
            raise self._closed_error()
        try:
            if lease:
                body, buffers = self._mailbox.get_leased(timeout=_seconds(block, timeout))
            elif block and timeout is None:
                body, buffers = self._mailbox.get_pickle()
            else:
                body, buffers = self._mailbox.get_pickle(timeout=_seconds(block, timeout))
        except (OSError, ValueError) as error:
            self._fail(error, "get an object from the queue")
        return loads(body, buffers)

    def lease(self, block: bool = True, timeout: float | None = None) -> Lease:
        """Take the next object as ``get(lease=True)`` does, for a ``with`` block.

        ``with queue.lease() as lease:`` has it as ``lease.object``. The end of the block ends
        the lease, and is a `BufferError` if an array of the object, or a view of one, is kept.
        Raises what `get` raises.
        """
        from procession._messages.lease import Lease

        if self._closed:
            raise self._closed_error()
        try:
            message = self._mailbox.get_leased(timeout=_seconds(block, timeout))
        except (OSError, ValueError) as error:
            self._fail(error, "get an object from the queue")
        return Lease(message)

    def put_empty(
        self,
        shape: int | tuple[int, ...],
        dtype: Any = float,
        block: bool = True,
        timeout: float | None = None,
    ) -> EmptyArray:
        """Return a context manager that gives an array of numpy to fill, and then puts it.

        ``with queue.put_empty((1000, 1000)) as array:`` has it in the queue's own memory, of
        any content, so that putting it copies nothing. At the end of the block it is put, as
        by `put` with *block* and *timeout*, unless an exception has ended it, and cannot be
        written to any more; do not write to views of it either. It is an ordinary array, and
        copied, where it is small or the queue has no memory to lend.

        Raises `ImportError` without numpy, `TypeError` for a *dtype* of Python objects,
        `ValueError` for a negative length, and at the end of the block what `put` raises.
        """
        from procession._messages.lease import EmptyArray

        if self._closed:
            raise self._closed_error()
        seconds = _seconds(block, timeout)

        def put(array: Any, memory: memoryview | None) -> None:
            self._put_filled(array, memory, seconds)

        return EmptyArray(self._mailbox.reserve, put, shape, dtype)

    def _put_filled(self, array: Any, memory: memoryview | None, timeout: float | None) -> None:
        """Put *array*, which was filled where it lies in *memory*, if it lies there."""
        if self._closed:
            raise self._closed_error()
        body, buffers = self._dumps(array)
        try:
            # Another serializer, or a reducer, may make something else of it.
            if memory is not None and [len(each) for each in buffers] == [len(memory)]:
                self._mailbox.put_reserved(body, memory, timeout=timeout)
            else:
                self._mailbox.put(body, buffers, timeout=timeout)
        except (OSError, ValueError) as error:
            self._fail(error, "put this into the queue")

    def put_many(
        self, objects: Iterable[Any], block: bool = True, timeout: float | None = None
    ) -> int:
        """Put *objects* in their order and return how many were put; all, if no time runs out.

        All are pickled first: what cannot be pickled raises, and nothing was put. If there is
        no room in time for all, the first ones are put; if there is none for any, `queue.Full`
        is raised. *timeout* is for all together. What others put may come between. A process
        that is killed meanwhile has put the first ones, each of them whole.

        Raises what `put` raises. An exception that comes when putting has begun says in its
        attribute ``done`` how many were put before.
        """
        if self._closed:
            raise self._closed_error()
        dumps = self._dumps
        messages = []
        for obj in objects:
            try:
                messages.append(dumps(obj))
            except Exception as error:
                explain(error, [(f"objects[{len(messages)}]", obj)], self._encoder)
                raise
        longest = _seconds(block, timeout)
        end = None if longest is None else time.monotonic() + longest
        done = 0
        try:
            while done < len(messages):
                done += self._mailbox.put_many(
                    messages[done : done + _AT_ONCE],
                    timeout=None if end is None else max(0.0, end - time.monotonic()),
                )
        except Exception as error:
            if _is_full(error):
                if not done:
                    raise
                return done
            try:
                self._fail(error, "put these into the queue")
            except Exception as final:
                final.done = done  # type: ignore[attr-defined]
                raise
        return done

    def get_many(
        self, most: int, block: bool = True, timeout: float | None = None, *, lease: bool = False
    ) -> list[Any]:
        """Take what is there, up to *most* objects, waiting for the first one as `get` does.

        So the list is never empty: `queue.Empty` when none comes in time. What keeps the next
        one from being taken, a shutdown say, is raised by the next call. A process that is
        killed meanwhile, or whose signal handler raises, takes at most these objects along.

        *lease* as for `get`, for each of the objects.

        Raises what `get` raises, but `BatchError` when some of them cannot be unpickled: they
        are gone, and it has the others.
        """
        if most < 1:
            raise ValueError(f"at least one object has to be taken, not {most}")
        if self._closed:
            raise self._closed_error()
        try:
            seconds = _seconds(block, timeout)
            if lease:
                messages = _get_many_leased(self._mailbox, most, seconds)
            else:
                messages = self._mailbox.get_many(most, timeout=seconds)
        except (OSError, ValueError) as error:
            self._fail(error, "get an object from the queue")
        objects: list[Any] = []
        try:
            for body, buffers in messages:
                objects.append(loads(body, buffers))
        except Exception as error:
            _unpickle_the_rest(objects, messages, error)
        return objects

    def __aiter__(self) -> AsyncIterator[Any]:
        """Yield, in asyncio, what is got until the queue is shut down and empty.

        See `procession.aio.get`.
        """
        from procession import aio

        return aio.got(self)

    def qsize(self) -> int:
        """Return how many objects were put and not yet taken."""
        self._check_open()
        return self._mailbox.size()

    def full(self) -> bool:
        """Return whether there was no room when it was looked at."""
        return self.qsize() >= self._maxsize > 0

    def shutdown(self, immediate: bool = False) -> None:
        """Refuse every further put, in all processes, and wake who waits.

        Gets go on until the queue is empty and then raise `ShutDown`; with *immediate*
        what is in the queue is dropped and they raise it at once. As in Python 3.13's
        `queue.Queue`.
        """
        self._check_open()
        self._mailbox.shutdown(immediate=immediate)

    def fileno(self) -> int:
        """Return a descriptor that is readable when there may be something to get.

        For select, epoll and asyncio; it stays the queue's. Another process may be
        faster: follow it by `get_nowait`.
        """
        self._check_open()
        return self._mailbox.fileno()

    def close(self) -> None:
        """End this process's use of the queue; others are not affected. Idempotent."""
        self._closed = True
        self._mailbox.close()

    def join_thread(self) -> None:
        """Return at once: every put that has returned has been made, there is no thread.

        Raises `AssertionError` before `close`, as in multiprocessing.
        """
        if not self._closed:
            raise AssertionError(f"Queue {self!r} not closed")

    def cancel_join_thread(self) -> None:
        """Do nothing: there is no thread that a process would wait for when it ends."""

    def _fail(self, error: Exception, doing: str) -> NoReturn:
        """Give what the mailbox has raised its final shape. Called while handling it."""
        if self._closed:
            raise self._closed_error() from None
        _explain(error, doing)
        raise error

    def _closed_error(self) -> QueueClosedError:
        return QueueClosedError(f"Queue {self!r} is closed")

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    @property
    def _reader(self) -> _Reader:
        """What clients of multiprocessing's queues wait on and receive from."""
        return _Reader(self._mailbox)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process of this host; the queue stays open here, too."""
        return _new, (type(self),), self.__getstate__()

    def __getstate__(self) -> Any:
        """Return what another process of this host makes the same queue from."""
        if self._closed:
            raise self._closed_error()
        return self._maxsize, self._mailbox, self._encoder

    def __setstate__(self, state: Any) -> None:
        """Become the queue that *state* is of."""
        self._begin(*state)

    def _begin(self, maxsize: int, mailbox: Mailbox, encoder: Encoder | None) -> None:
        self._maxsize = maxsize
        self._mailbox = mailbox
        self._encoder = encoder
        self._dumps = dumper(encoder)
        self._closed = False
        _standard.watch()

    def __repr__(self) -> str:
        """Return the class, the limit and the state."""
        state = "closed" if self._closed else f"at {id(self):#x}"
        limit = f" maxsize={self._maxsize}" if self._maxsize else ""
        return f"<{type(self).__name__}{limit} {state}>"

    @classmethod
    def __class_getitem__(cls, item: Any, /) -> GenericAlias:
        """Return ``Queue[item]``, for annotations."""
        alias: GenericAlias = _GenericAlias(cls, item)
        return alias


class JoinableQueue(Queue):
    """A queue whose consumers report each object as done, and that can be waited for."""

    _joinable = True

    def task_done(self) -> None:
        """Report an object that was got as done.

        Raises `ValueError` ("task_done() called too many times").
        """
        if self._closed:
            raise self._closed_error()
        self._mailbox.task_done()

    def join(self) -> None:
        """Wait until every object that was put has been reported as done.

        Raises `PeerDiedError` when who has got what is not done, or all who could get it,
        have died. The count stays as it is.
        """
        if self._closed:
            raise self._closed_error()
        self._mailbox.join()


class SimpleQueue:
    """A queue with nothing but `put`, `get`, `empty` and `close`.

    A context makes it. Like `Queue` in every other respect; in particular `put` never
    waits for a reader.
    """

    def __init__(
        self,
        *,
        ctx: BaseContext | None = None,
        mailbox: Mailbox | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        if mailbox is None:
            mailbox, encoder = _mailbox_of(type(self), ctx)
        self._begin(mailbox, encoder)

    def put(self, obj: Any) -> None:
        """Add *obj*; see `Queue.put`. Raises `OSError` after `close`."""
        self._check_open()
        try:
            message = self._dumps(obj)
        except Exception as error:
            explain(error, [("obj", obj)], self._encoder)
            raise
        try:
            self._mailbox.put(*message)
        except OSError as error:
            _explain(error, "put this into the queue")
            raise

    def get(self, *, lease: bool = False) -> Any:
        """Wait for the next object and take it; *lease* as for `Queue.get`.

        Raises `OSError` after `close`, and `PeerDiedError` like `Queue.get`.
        """
        self._check_open()
        body, buffers = self._mailbox.get_leased() if lease else self._mailbox.get()
        return loads(body, buffers)

    def empty(self) -> bool:
        """Return whether nothing was there when it was looked at."""
        self._check_open()
        return self._mailbox.size() == 0

    def fileno(self) -> int:
        """Return a descriptor that is readable when there may be something to get."""
        self._check_open()
        return self._mailbox.fileno()

    def close(self) -> None:
        """End this process's use of the queue; others are not affected. Idempotent."""
        self._mailbox.close()

    def _check_open(self) -> None:
        if self._mailbox.closed:
            raise ConnectionClosedError(f"{self!r} is closed")

    @property
    def _reader(self) -> _Reader:
        """What `concurrent.futures` waits on and receives from."""
        return _Reader(self._mailbox)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process of this host; the queue stays open here, too."""
        return _new, (type(self),), self.__getstate__()

    def __getstate__(self) -> Any:
        """Return what another process of this host makes the same queue from."""
        self._check_open()
        return self._mailbox, self._encoder

    def __setstate__(self, state: Any) -> None:
        """Become the queue that *state* is of."""
        self._begin(*state)

    def _begin(self, mailbox: Mailbox, encoder: Encoder | None) -> None:
        self._mailbox = mailbox
        self._encoder = encoder
        self._dumps = dumper(encoder)
        _standard.watch()

    def __repr__(self) -> str:
        """Return the class and the state."""
        state = "closed" if self._mailbox.closed else f"at {id(self):#x}"
        return f"<{type(self).__name__} {state}>"

    @classmethod
    def __class_getitem__(cls, item: Any, /) -> GenericAlias:
        """Return ``SimpleQueue[item]``, for annotations."""
        alias: GenericAlias = _GenericAlias(cls, item)
        return alias


class _Reader:
    """The receiving side of a queue, with the methods of a connection."""

    __slots__ = ("_mailbox",)

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def fileno(self) -> int:
        """Return a descriptor that is readable when there may be something to receive."""
        return self._mailbox.fileno()

    def recv(self) -> Any:
        """Wait for an object and return it."""
        body, buffers = self._mailbox.get()
        return loads(body, buffers)

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Return whether there is something to receive, waiting up to *timeout* seconds."""
        if self._mailbox.size():
            return True
        from procession._ground.waiting import wait_readable

        return wait_readable(self._mailbox.fileno(), timeout)

    def close(self) -> None:
        """Close the queue in this process."""
        self._mailbox.close()

    @property
    def closed(self) -> bool:
        """Whether the queue was closed in this process."""
        return self._mailbox.closed


def _is_full(error: Exception) -> bool:
    # Who raises it has loaded `queue`, which others need not: it brings threading.
    queue = sys.modules.get("queue")
    return queue is not None and isinstance(error, queue.Full)


def _seconds(block: bool, timeout: float | None) -> float | None:
    """Return *timeout* as mailboxes understand it: None for ever, and never negative."""
    if not block:
        return 0.0
    return None if timeout is None else max(0.0, timeout)


def _get_many_leased(mailbox: Mailbox, most: int, timeout: float | None) -> list[Message]:
    """Take up to *most* messages as `Mailbox.get_many` does, each with a lease."""
    from procession.errors import Empty, ShutDown  # which others need not load

    messages = [mailbox.get_leased(timeout=timeout)]
    try:
        while len(messages) < most:
            messages.append(mailbox.get_leased(timeout=0.0))
    except (Empty, ShutDown, OSError):
        pass  # the next call tells
    return messages


def _explain(error: Exception, doing: str) -> None:
    """Raise what says which resource has run out, if it is that."""
    if isinstance(error, OSError):
        from procession._ground.resource_errors import explain

        explained = explain(error, f"cannot {doing}")
        if explained is not None:
            raise explained from error


def _unpickle_the_rest(
    objects: list[Any], messages: Sequence[Message], error: Exception
) -> NoReturn:
    """Go on behind the message that *error* is about, each message once, and raise."""
    errors = [error]
    for body, buffers in messages[len(objects) + 1 :]:
        try:
            objects.append(loads(body, buffers))
        except Exception as another:
            errors.append(another)
    raise BatchError(objects, errors) from error


def _mailbox_of(
    kind: type[Any], ctx: BaseContext | None, **options: Any
) -> tuple[Mailbox, Encoder | None]:
    """Return a mailbox that *ctx* makes, and its encoder, for a queue of class *kind*."""
    make: Callable[..., tuple[Mailbox, Encoder | None]] | None = getattr(ctx, "_mailbox", None)
    if make is None:
        raise TypeError(
            f"a {kind.__name__} needs a context of procession, not {ctx!r}: call "
            f"ctx.Queue(...), or pass ctx=procession.get_context() in a class of your own"
        )
    return make(None, None, **options)


def _new(kind: Any) -> Any:
    """Return a queue without its state: its class may have an ``__init__`` of its own."""
    return kind.__new__(kind)
