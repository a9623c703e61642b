"""The contracts that users of procession meet: `Process`, `Connection`, `Queue`.

They are multiprocessing's own, written down; the classes of `procession.process`,
`procession.connection` and `procession.queues` keep them for every start method and
transport. Use them in annotations and for objects of your own that take their place.
Plugin authors implement the smaller contracts of `procession.plugin` instead.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Any, Self

    from procession._contracts.channel import Buffer

__all__ = ["Connection", "Process", "Queue"]


class Process(ABC):
    """A function, or an overridden `run`, that is carried out by a process of its own.

    Only the process that created the object may start, join or ask it. States:
    *initial*, *started*, *stopped*, *closed*; an operation in the wrong state raises
    `procession.ProcessStateError` and names the state.
    """

    @abstractmethod
    def run(self) -> None:
        """What the child does; override it, or give a target."""

    @abstractmethod
    def start(self) -> None:
        """Start the child. At most once."""

    @abstractmethod
    def join(self, timeout: float | None = None) -> None:
        """Wait up to *timeout* seconds (None: for ever) until the child has ended."""

    @abstractmethod
    def is_alive(self) -> bool:
        """Return whether the child was started and has not ended."""

    @abstractmethod
    def interrupt(self) -> None:
        """Send SIGINT: KeyboardInterrupt in the child, unless it handles the signal."""

    @abstractmethod
    def terminate(self) -> None:
        """Send SIGTERM."""

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the object holds; the child must have ended."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The child's process id; None before start."""

    @property
    @abstractmethod
    def exitcode(self) -> int | None:
        """The child's exit code, -N when signal N killed it, None while it runs."""

    @property
    @abstractmethod
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the child has ended."""


class Connection(ABC):
    """One end of a pipe that carries objects."""

    @abstractmethod
    def send(self, obj: Any) -> None:
        """Send an object that can be pickled."""

    @abstractmethod
    def recv(self) -> Any:
        """Wait for an object and return it; `EOFError` when the peer has closed."""

    @abstractmethod
    def send_bytes(self, buf: Buffer, offset: int = 0, size: int | None = None) -> None:
        """Send *size* bytes of a bytes-like object, from *offset* on, as one message."""

    @abstractmethod
    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Wait for one message and return it as bytes."""

    @abstractmethod
    def recv_bytes_into(self, buf: Buffer, offset: int = 0) -> int:
        """Receive one message into a writable buffer and return its length in bytes."""

    @abstractmethod
    def poll(self, timeout: float | None = 0.0) -> bool:
        """Return whether there is something to receive, waiting up to *timeout* seconds."""

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to wait on with select and its relatives."""

    @abstractmethod
    def close(self) -> None:
        """Close this end. Idempotent."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether this end was closed."""

    def __enter__(self) -> Self:
        """Return the connection itself, to be closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close this end."""
        self.close()


class Queue(ABC):
    """Objects from many processes to many processes, first in, first out."""

    @abstractmethod
    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an object that can be pickled; `queue.Full` when there is no room in time."""

    @abstractmethod
    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next object; `queue.Empty` when none comes in time."""

    @abstractmethod
    def qsize(self) -> int:
        """Return how many objects were put and not yet taken."""

    @abstractmethod
    def close(self) -> None:
        """Put nothing more from this process."""

    @abstractmethod
    def shutdown(self, immediate: bool = False) -> None:
        """Refuse every further put, in all processes, and wake who waits."""

    def put_many(
        self, objects: Iterable[Any], block: bool = True, timeout: float | None = None
    ) -> int:
        """Put *objects* in their order and return how many were put; all, if no time runs out.

        If there is no room in time for all, the first ones are put; if there is none for any,
        `queue.Full` is raised. *timeout* is for all together. What others put may come between.

        Raises what `put` raises. An exception that comes when putting has begun says in its
        attribute ``done`` how many were put before.
        """
        from procession.errors import Full  # not in every child

        end = None if timeout is None else time.monotonic() + timeout
        done = 0
        try:
            for obj in objects:
                self.put(obj, block, None if end is None else max(0.0, end - time.monotonic()))
                done += 1
        except Full:
            if not done:
                raise
        except Exception as error:
            error.done = done  # type: ignore[attr-defined]
            raise
        return done

    def get_many(self, most: int, block: bool = True, timeout: float | None = None) -> list[Any]:
        """Take what is there, up to *most* objects, waiting for the first one as `get` does.

        So the list is never empty: `queue.Empty` when none comes in time. What keeps the next
        one from being taken, a shutdown say, is raised by the next call.
        """
        if most < 1:
            raise ValueError(f"at least one object has to be taken, not {most}")
        from procession.errors import Empty, ShutDown  # not in every child

        objects = [self.get(block, timeout)]
        try:
            while len(objects) < most:
                objects.append(self.get(block=False))
        except (Empty, ShutDown, OSError):
            pass
        return objects

    def put_nowait(self, obj: Any) -> None:
        """Put without waiting."""
        self.put(obj, block=False)

    def get_nowait(self) -> Any:
        """Get without waiting."""
        return self.get(block=False)

    def empty(self) -> bool:
        """Return whether nothing was there when it was looked at."""
        return self.qsize() == 0
