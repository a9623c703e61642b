"""What a benchmark is: subjects, their cases, and the figures that a case yields."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from payloads import Board

if TYPE_CHECKING:
    from contenders import Contender

#: What a case may depend on. "kernel object": compare with the standard library on the same one.
METHOD = frozenset({"method"})
TRANSPORT = frozenset({"transport"})
KERNEL_OBJECT = frozenset({"transport", "kernel object"})
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Effort:
    """How much work one measurement does."""

    quick: bool

    def of(self, full: int, quick: int) -> int:
        """Return *full*, or *quick* if somebody only wants to see it work."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Figure:
    """One number that a measurement yields."""

    name: str
    unit: str
    better: Literal["less", "more"] = "less"


#: Measures once, in a process made for it, and returns one number for each figure by name.
Measure = Callable[["Contender", Effort], Mapping[str, float]]


@dataclass(frozen=True)
class Case:
    """One thing to measure. A measurement runs in a process of its own."""

    name: str
    figures: tuple[Figure, ...]
    measure: Measure
    varies: frozenset[str]


@dataclass(frozen=True)
class Subject:
    """Cases that belong together; one module of `subjects` each."""

    name: str
    title: str
    cases: tuple[Case, ...]

    def case(self, name: str) -> Case:
        """Return the case called *name*; `KeyError` if there is none."""
        for case in self.cases:
            if case.name == name:
                return case
        raise KeyError(name)


@contextmanager
def board(slots: int) -> Iterator[tuple[str, Board]]:
    """Make a board of *slots* numbers; yield its path and the board; remove it at the end."""
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    descriptor, path = tempfile.mkstemp(prefix="procession-bench-", dir=folder)
    try:
        os.ftruncate(descriptor, 8 * slots)
        os.close(descriptor)
        yield path, Board(path)
    finally:
        os.unlink(path)
