"""Locks, semaphores, events, conditions and barriers between processes.

All of them are anonymous (no name in ``/dev/shm``, no tracker process), work with processes
of every start method and context, and may be arguments of a process or be sent through a
running connection or queue of the same host. A lock whose holder has died raises
`OwnerDiedError` for the next one who wants it, and is free again.
"""

from __future__ import annotations

import errno
from _thread import get_ident

from procession import process
from procession._contracts.primitives import LOCK, MOST_UNITS, RECURSIVE, SEMAPHORE, Primitive
from procession._locks.barrier import Barrier
from procession._locks.condition import Condition
from procession._locks.event import Event

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

    from procession._standard.classes import SemLock

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]


class _OfPrimitive:
    """What locks and semaphores have in common: they are a primitive with a name.

    See `procession._contracts.primitives.Primitive` for all that is promised.
    """

    _primitive: Primitive

    def __init__(self, kind: int, value: int, maxvalue: int) -> None:
        from procession._choosing.primitive_choice import primitive_class

        self._set_up(primitive_class().make(kind, value, maxvalue))

    def _set_up(self, primitive: Primitive) -> None:
        self._primitive = primitive
        # They hide the methods of the class, so that calling them costs no more than the
        # primitive itself.
        self.__dict__["acquire"] = primitive.acquire
        self.__dict__["release"] = primitive.release

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take it, waiting up to *timeout* seconds (None: for ever) if *block*.

        Returns whether it was there in time. Raises `OwnerDiedError` when a process that
        held it has died: it is not held then, but free again.
        """
        return self._primitive.acquire(block, timeout)

    def release(self) -> None:
        """Give it back and wake one who waits.

        Raises `ValueError` when it was not held, and `AssertionError` for an `RLock` of
        another thread.
        """
        self._primitive.release()

    def locked(self) -> bool:
        """Return whether nothing is free: an acquire would have to wait, or raise."""
        return self._primitive.value() == 0

    @property
    def _semlock(self) -> SemLock:
        """What queues of the standard package that are made of this look at."""
        from procession._standard.classes import SemLock

        return SemLock(self._primitive)

    def __enter__(self) -> bool:
        """Acquire it."""
        return self._primitive.acquire()

    def __exit__(self, *exception: object) -> None:
        """Release it."""
        self._primitive.release()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process of this host."""
        return _rebuild, (type(self), self._primitive)

    def _is_mine(self) -> bool:
        """Return whether this thread holds it."""
        return any(
            holder.is_this_process() and holder.thread == get_ident()
            for holder in self._primitive.holders()
        )

    def _times_held(self) -> int:
        """Return how often this thread holds it."""
        if self._primitive.kind == RECURSIVE:
            return self._primitive.count()
        return int(self._is_mine())

    def _owner(self) -> tuple[str, int]:
        """Return who holds it, as multiprocessing calls that, and how often."""
        holders = self._primitive.holders()
        if not holders:
            return "None", 0
        if not self._is_mine():
            same = any(holder.is_this_process() for holder in holders)
            return "SomeOtherThread" if same else "SomeOtherProcess", -1
        import threading

        name = process.current_process().name
        thread = threading.current_thread()
        if thread is not threading.main_thread():
            name += f"|{thread.name}"
        return name, self._primitive.count()


class Lock(_OfPrimitive):
    """One at a time. Whoever likes may release it, as in multiprocessing.

    A context makes it. *ctx* is multiprocessing's, and not needed.
    """

    def __init__(self, *, ctx: object = None) -> None:
        super().__init__(LOCK, 1, 1)

    def __repr__(self) -> str:
        """Return who holds it."""
        return f"<{type(self).__name__}(owner={self._owner()[0]})>"


class RLock(_OfPrimitive):
    """One thread of one process at a time, which may acquire it again.

    It has to be released as often as it was acquired, by that thread. A context makes it.
    """

    def __init__(self, *, ctx: object = None) -> None:
        super().__init__(RECURSIVE, 1, 1)

    def __repr__(self) -> str:
        """Return who holds it, and how often."""
        owner, count = self._owner()
        return f"<{type(self).__name__}({owner}, {'nonzero' if count < 0 else count})>"


class Semaphore(_OfPrimitive):
    """*value* units, of which each acquire takes one and each release gives back one.

    More may be released than there were. When a process that holds units dies, an acquire
    that finds none left raises `OwnerDiedError`, and they are free again. From the first
    release by a process that holds none on, the semaphore is taken for a *signal*: units
    are made here and used up there, nobody holds them, and nobody's death matters.

    A context makes it.
    """

    def __init__(self, value: int = 1, *, ctx: object = None) -> None:
        value = _checked(value)
        super().__init__(SEMAPHORE, value, MOST_UNITS)

    def get_value(self) -> int:
        """Return how many units are free."""
        return self._primitive.value()

    def fileno(self) -> int:
        """Return a descriptor that is readable while a unit is free.

        For `procession.connection.wait`, select and asyncio; it stays the semaphore's.
        Another process may be faster: follow it by ``acquire(block=False)``.
        """
        return self._primitive.fileno()

    def __repr__(self) -> str:
        """Return how many units are free."""
        return f"<{type(self).__name__}(value={self.get_value()})>"


class BoundedSemaphore(Semaphore):
    """A semaphore that never has more free units than in the beginning.

    A release beyond that raises `ValueError`.
    """

    def __init__(self, value: int = 1, *, ctx: object = None) -> None:
        value = _checked(value)
        _OfPrimitive.__init__(self, SEMAPHORE, value, value)

    def __repr__(self) -> str:
        """Return how many units are free, and the most that can be."""
        maxvalue = self._primitive.maxvalue
        return f"<{type(self).__name__}(value={self.get_value()}, maxvalue={maxvalue})>"


def _checked(value: int) -> int:
    """Return *value* as the number of units to begin with; raise what multiprocessing raises."""
    if not hasattr(value, "__index__"):
        raise TypeError(
            f"{type(value).__name__!r} object cannot be interpreted as an integer, which the "
            f"value of a semaphore must be"
        )
    value = value.__index__()
    if value > MOST_UNITS:
        raise OverflowError(f"a semaphore has at most {MOST_UNITS} units, and not {value}")
    if value < 0:
        raise OSError(errno.EINVAL, f"Invalid argument: a semaphore cannot have {value} units")
    return value


def _rebuild(kind: type[_OfPrimitive], primitive: Primitive) -> _OfPrimitive:
    made = kind.__new__(kind)
    made._set_up(primitive)
    return made
