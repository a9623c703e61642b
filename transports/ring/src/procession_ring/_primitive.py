"""Locks and semaphores on words in shared memory, by the compiled half."""

from __future__ import annotations

import errno
import sys

from procession.plugin import (
    LOCK,
    RECORD_WORDS,
    RECURSIVE,
    SEMAPHORE,
    Bell,
    Holder,
    Primitive,
    SharedWords,
    owner_died,
    reserve,
    write_record,
)

from ._implementation import NATIVE, VARIABLE, implementation, obstacle

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Self

    from procession.plugin import Handoff, Recipe, Takeover

    from ._native import Lock, Semaphore

# As in csrc/lock.c.
_LOCK_WORDS = 11
# As in csrc/semaphore.c: words of the head, and of each holder.
_HEAD = 8
_SLOT = RECORD_WORDS + 1
# The most processes that are recorded as holders of one semaphore at a time.
_MOST_HOLDERS = 256
_NOUNS = {LOCK: "a Lock", RECURSIVE: "an RLock", SEMAPHORE: "a semaphore"}


class RingPrimitive(Primitive):
    """See `Primitive`, and `csrc/` for what lies in the memory and who may write it.

    Locks need no descriptor, semaphores one. More than 256 processes that hold units of one
    semaphore at once are not recorded: it becomes a signal.
    """

    name = "ring"

    __slots__ = (
        "_at", "_held", "_level", "_semaphore", "_slots", "_space", "acquire", "count", "kind",
        "maxvalue", "release", "value",
    )  # fmt: skip

    if TYPE_CHECKING:

        def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
            """See `Primitive.acquire`."""
            ...

        def release(self) -> None:
            """See `Primitive.release`."""

        def value(self) -> int:
            """See `Primitive.value`."""
            ...

        def count(self) -> int:
            """See `Primitive.count`."""
            ...

    def __init__(
        self, kind: int, maxvalue: int, place: tuple[SharedWords, int, int], level: Bell | None
    ) -> None:
        self.kind = kind
        self.maxvalue = maxvalue
        self._space, self._at, self._slots = place
        self._level = level
        self._semaphore: Semaphore | None
        memory = self._space.words[self._at : self._at + _length(kind, self._slots)].cast("B")
        native = _load_native()
        units: Lock | Semaphore
        if level is None:
            self._semaphore = None
            units = native.Lock(memory, kind == RECURSIVE)
        else:
            units = self._semaphore = native.Semaphore(memory, maxvalue, level.fileno())
        self._held = units.held
        self.acquire = units.acquire  # type: ignore[method-assign]
        self.release = units.release  # type: ignore[method-assign]
        self.value = units.value  # type: ignore[method-assign]
        self.count = units.count  # type: ignore[method-assign]

    @classmethod
    def unavailable(cls) -> str | None:
        """See `Primitive.unavailable`."""
        if sys.platform != "linux":
            return "Linux"
        problem = obstacle()
        if problem is None and implementation() != NATIVE:
            problem = f"the compiled extension (it is not there, or {VARIABLE} forbids it)"
        return problem

    @classmethod
    def make(cls, kind: int, value: int, maxvalue: int, /) -> Self:
        """See `Primitive.make`."""
        slots = min(value, _MOST_HOLDERS)
        level = Bell() if kind == SEMAPHORE else None
        space, at = reserve(_length(kind, slots))
        if kind == SEMAPHORE:
            space.words[at + 4] = value  # all
            space.words[at + 2] = not slots  # signal
        return cls(kind, maxvalue, (space, at, slots), level)

    def holders(self) -> list[Holder]:
        """See `Primitive.holders`."""
        return [_holder(record, units) for record, units in self._held()]

    def fileno(self) -> int:
        """See `Primitive.fileno`."""
        if self._level is None or self._semaphore is None:
            raise OSError(
                errno.EOPNOTSUPP, "only an Event and a semaphore can be waited for by descriptor"
            )
        self._semaphore.watch()
        return self._level.fileno()

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        level = None if self._level is None else self._level.export(handoff)
        return self.kind, self.maxvalue, (self._space.export(handoff), self._at, self._slots), level

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        kind, maxvalue, (space, at, slots), level = recipe
        return cls(
            kind,
            maxvalue,
            (SharedWords.attach(space, takeover), at, slots),
            None if level is None else Bell.attach(level, takeover),
        )

    def close(self) -> None:
        """See `Primitive.close`."""
        if self._semaphore is not None:
            self._semaphore.close()
        if self._level is not None:
            self._level.close()


def _holder(record: bytes, units: int) -> Holder:
    return Holder.from_record(memoryview(record), units)


def _identify() -> bytes:
    record = bytearray(RECORD_WORDS * 8)
    write_record(memoryview(record).cast("Q"))
    return bytes(record)


def _bury(kind: int, record: bytes, units: int) -> BaseException:
    return owner_died(_holder(record, units), _NOUNS[kind])


def _length(kind: int, slots: int) -> int:
    """Return how many words it takes."""
    return _HEAD + _SLOT * slots if kind == SEMAPHORE else _LOCK_WORDS


def _load_native() -> ModuleType:
    try:
        from . import _native
    except ImportError as error:
        raise OSError(
            "this lock needs the compiled extension of procession-ring, as the process that made "
            "it has, and this one has not; have it everywhere, or set PROCESSION_PRIMITIVE=python "
            "where locks are made"
        ) from error

    # What is asked for when it is needed: a child gets its name after it was forked.
    _native.set_people(_identify, _bury)
    return _native
