"""The contract of a mailbox: what a queue is made of."""

from __future__ import annotations

from abc import abstractmethod

from procession._ground.handoff import Exportable
from procession.errors import Empty, ShutDown

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence

    from procession._contracts.channel import Buffer, Message


class Mailbox(Exportable):
    """Whole messages from many processes to many processes.

    Each message is taken exactly once; the messages of one producer are taken in the
    order in which it put them. Any number of threads and processes may use a mailbox
    at once, without a lock of their own. A process killed at any instruction leaves
    the mailbox usable for the others: a message it was putting is there whole or not
    at all, and it takes at most the one message with it that it was getting.

    A mailbox owns its descriptors; every process closes its own copy.
    """

    __slots__ = ()

    #: The most messages it holds; 0 for no limit.
    maxsize: int
    #: Whether `close` was called on this process's copy.
    closed: bool

    @abstractmethod
    def put(
        self, body: Buffer, buffers: Sequence[Buffer] = (), /, *, timeout: float | None = None
    ) -> None:
        """Add one message; with a *maxsize*, wait for room up to *timeout* seconds.

        None waits for ever, 0 does not wait. Raises `queue.Full` when there was no
        room in time, `procession.errors.ShutDown` after `shutdown`, `OSError` when
        the kernel refuses memory; without a timeout, `BrokenByDeathError` when all who
        could make room have died. When this returns, the message will be taken even
        if this process is killed at once. After an exception it was not added.
        """

    @abstractmethod
    def get(self, *, timeout: float | None = None) -> Message:
        """Take the next message, waiting up to *timeout* seconds for one.

        None waits for ever, 0 does not wait. Raises `queue.Empty` when none came in
        time and `procession.errors.ShutDown` when it was shut down and is empty (or
        was shut down immediately); without a timeout, `PeerDiedError` when all who could
        put something have died.
        """

    def put_many(self, messages: Sequence[Message], /, *, timeout: float | None = None) -> int:
        """Add *messages* one after the other and return how many were added, at least one.

        It may be fewer than all: then adding the next one, by another call, waits or fails. So
        this waits, and raises, like `put` for the first one only. Messages of others may come
        between them. Killed meanwhile, this process has added the first of them, or none.
        """
        if not messages:
            return 0
        self.put(*messages[0], timeout=timeout)
        return 1

    def get_many(self, most: int, /, *, timeout: float | None = None) -> list[Message]:
        """Take up to *most* messages that are there, at least one, and wait for that.

        Like `get_pickle` for the first one; what keeps it from taking the next one is told by
        the next call. Killed meanwhile, this process takes at most these along.
        """
        messages = [self.get_pickle(timeout=timeout)]
        while len(messages) < most:
            try:
                messages.append(self.get_pickle(timeout=0.0))
            except (Empty, ShutDown, OSError):
                break
        return messages

    def get_pickle(self, *, timeout: float | None = None) -> Message:
        """Like `get`, for a body that is a pickle: bytes may follow, which unpickling ignores.

        For queues. A mailbox overrides it where it can save cutting the padding off.
        """
        return self.get(timeout=timeout)

    def get_leased(self, *, timeout: float | None = None) -> Message:
        """Like `get_pickle`, with buffers that may lie in memory which the mailbox has lent.

        That is theirs until the last view of them is gone, or this process, and those that were
        forked from it since. A mailbox that lends nothing gives copies.
        """
        return self.get_pickle(timeout=timeout)

    def lend_at_most(self, budget: int, /) -> None:
        """Let what is lent, by all processes together, keep *budget* bytes at most.

        That is about new memory: what is lent already stays so. A mailbox that lends nothing
        has nothing to do.
        """
        return None

    def reserve(self, size: int, /) -> memoryview | None:
        """Return memory of *size* bytes, of any content, for the buffer of a message to put.

        None when there is none: put it as any other then. The memory is the caller's as what
        `get_leased` returns is; `put_reserved` does not change that.
        """
        return None

    def put_reserved(
        self, body: Buffer, memory: memoryview, /, *, timeout: float | None = None
    ) -> None:
        """Like ``put(body, (memory,))``, for what `reserve` has returned, without copying it.

        Once for each *memory*, which must not be written to any more.
        """
        self.put(body, (memory,), timeout=timeout)

    @abstractmethod
    def size(self) -> int:
        """Return how many messages have been put and not yet been taken."""

    @abstractmethod
    def shutdown(self, *, immediate: bool = False) -> None:
        """Refuse every further `put`, in all processes, and wake who waits.

        With *immediate*, messages not yet taken are dropped (and count as done, so
        that `join` returns). Idempotent.
        """

    @abstractmethod
    def task_done(self) -> None:
        """Count one taken message as done.

        Raises `ValueError` ("task_done() called too many times").
        """

    @abstractmethod
    def join(self, timeout: float | None = None, /) -> bool:
        """Wait until every message put was counted as done; False if not in time.

        Without a timeout, raises `PeerDiedError` when who has taken what is undone, or all
        who could take it, have died.
        """

    @abstractmethod
    def fileno(self) -> int:
        """Return a descriptor that is readable when a message may be there."""

    @abstractmethod
    def close(self) -> None:
        """Give this process's descriptors back. Idempotent; others are not affected."""
