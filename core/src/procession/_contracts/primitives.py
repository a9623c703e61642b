"""The contract of a primitive: what every lock and semaphore between processes is made of.

One small thing is implemented twice: in pure Python, from kernel objects
(`procession._locks.kernel_primitive`, in core), and natively, on words in shared memory (a
distribution brings it through the hook ``procession_primitive``). `Lock`, `RLock`,
`Semaphore` and `BoundedSemaphore` are a primitive and a repr; `Condition` and `Barrier` use
locks and keep their own state; `Event` is a descriptor and needs none. Which
implementation new locks get, `procession._choosing.primitive_choice` decides.
"""

from __future__ import annotations

from abc import abstractmethod

from procession._ground.handoff import Exportable

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import ClassVar, Final, Self

    from procession._locks.holder import Holder

#: The kinds. A lock: one unit, anybody may release it. A recursive lock: one unit, for one
#: thread of one process, which may acquire it again and alone may release it. A semaphore:
#: any number of units, anybody may release one.
LOCK: Final = 0
RECURSIVE: Final = 1
SEMAPHORE: Final = 2

#: The most units that there can be, as in multiprocessing on Linux.
MOST_UNITS: Final = 2**31 - 1

#: How soon a waiter notices that a holder has died, at the latest, in seconds.
NOTICE_SECONDS: Final = 0.1


class Primitive(Exportable):
    """Units, of which each is free or held by a process that is known.

    **Anonymous.** It is made of memory and descriptors without a name, which are gone with
    the last process that has them, however that ends. Nobody cleans up.

    **What one costs.** A program may have thousands, one for each shared value: many live in
    one piece of memory. The native implementation needs no descriptor for each of them; the
    pure one needs one.

    **Crossing.** It is `Exportable`: an argument of a process on every start method, or sent
    through a running connection or queue. The class that attaches is that of the recipe, so
    that processes which would choose different implementations still share one.

    **A holder that dies.** Who holds is recorded in the same step that takes the unit, as
    process id *and* start time, so that a recycled id fools nobody. An `acquire` that finds
    no free unit looks at who holds them, at the latest after a millisecond or when it gives
    up, and every `NOTICE_SECONDS` while it waits.
    If one of them has ended, all its units become free in one step, and this acquire raises
    `OwnerDiedError` (from `procession.plugin.owner_died`) **without holding anything**:
    whoever acquires next, the same caller included, gets a unit as usual. There is one
    error for each dead holder. It goes to whichever waiter is first; the others sleep on,
    or get the units that became free. What the holder left half done is for the caller to
    put right: acquire again, look, repair, release.

    *Processes hold, threads do not*: a unit whose thread has ended is still held by its
    process (anybody there may release it), and so is one whose `Primitive` was collected.
    A robust futex is marked when its *thread* ends, and must not be taken for this.

    **Whose unit does a release give back?** A release by a process that holds a unit gives
    back its own. One by a process that holds none is allowed, as in multiprocessing:

    - A lock has one holder: it is that one's unit.
    - A semaphore is being used as a signal then: units are made in one process and used up
      in another, and "held" means nothing. From the first such release on, for good, no
      holder is recorded and nobody's death gives units back (`holders` is empty): a
      consumer that dies has used up what it took. Before it, a process that dies counts as
      a holder. A semaphore made with value 0 is a signal from its first release.

    **Killed at any instruction**, a process leaves the units right: an acquire has taken
    its unit, and is recorded, or has not; a release has given it back and the others see
    it, within `NOTICE_SECONDS` when the process died before it could wake them.

    **Threads.** All methods may be called from any number of threads at once. A blocked
    acquire does not hold the interpreter's lock.

    **Signals.** A handler runs at once, also while `acquire` blocks; if it raises
    (KeyboardInterrupt), nothing was acquired. If it returns, the wait goes on, up to the
    same deadline. A handler may itself use the primitive; if that is impossible in the
    instant that it interrupted, it gets a `RuntimeError` and never waits for ever.

    **Fork.** A forked child has the same primitive, and holds nothing: what its parent held
    at the fork its parent holds, and nobody else. A recursive lock that the parent's thread
    holds is not "mine" in the child.

    **Order.** None is promised: a free unit goes to whoever takes it first.
    """

    __slots__ = ()

    #: What ``procession plugins`` and PROCESSION_PRIMITIVE call the implementation; equals
    #: the name of the entry point.
    name: ClassVar[str]

    #: One of `LOCK`, `RECURSIVE`, `SEMAPHORE`.
    kind: int
    #: The most units; releasing more raises ValueError.
    maxvalue: int

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why this implementation cannot work here, as a noun phrase, or None."""
        return None

    @classmethod
    @abstractmethod
    def make(cls, kind: int, value: int, maxvalue: int, /) -> Self:
        """Return a new primitive with *value* free units, ``0 <= value <= maxvalue``.

        The arguments were checked. Raises `OSError` when memory or descriptors have run out,
        and leaves nothing open then.
        """

    @abstractmethod
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take a unit; return whether it was there in time.

        *timeout* in seconds: None waits for ever, negative is 0; without *block* it is not
        looked at and 0 is meant. **This is the public method**: `Lock.acquire` is this bound
        method itself, so that it costs what the implementation costs; names, order, defaults
        and truth values of the arguments are therefore as in multiprocessing.

        A recursive lock that the calling thread holds is acquired once more, at once.
        Raises `OwnerDiedError` as described, also without *block*.
        """

    @abstractmethod
    def release(self) -> None:
        """Give a unit back and wake a waiter, if there is one. Never blocks for long.

        This, too, is the public method. Raises
        `AssertionError` ("attempt to release recursive lock not owned by thread") for a
        recursive lock of somebody else, and `ValueError` ("semaphore or lock released too
        many times") when all *maxvalue* units are free.
        """

    @abstractmethod
    def value(self) -> int:
        """Return how many units are free. Units of the dead count as held until noticed."""

    @abstractmethod
    def count(self) -> int:
        """Return how often this process holds it; a recursive lock, how often this thread.

        0 for a semaphore that is a signal.
        """

    @abstractmethod
    def holders(self) -> list[Holder]:
        """Return who holds units, living or dead, in no order; for reprs and diagnosis."""

    @abstractmethod
    def fileno(self) -> int:
        """Return a descriptor that is readable while a unit of this semaphore is free.

        For select, epoll and asyncio; it stays the primitive's. Whoever sees it readable
        tries ``acquire(block=False)``, since another may be faster. Until somebody, in any
        process, has asked for it for the first time nothing needs to keep it up to date, so
        that programs which never ask need not pay. Units of the dead do not make it
        readable. Only semaphores have it: others raise `OSError` (EOPNOTSUPP).
        """

    @abstractmethod
    def close(self) -> None:
        """Give this process's part back. Idempotent; others are not affected.

        It releases nothing. Happens by itself when the object is collected.
        """
