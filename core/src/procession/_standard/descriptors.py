"""Descriptors of the standard package's objects in our parcels, and of ours in its parcels.

While the standard package starts a process, what starts it stands in a variable of the thread,
the *spawning popen*; objects that are pickled meanwhile give their descriptors to it. Our own
hand-offs are nowhere but in the pickler: `Spawning` takes that place while a parcel is packed.
The other way round, what is `Exportable` gives its descriptors to the popen of the standard
package, if that is what has it pickled.
"""

from __future__ import annotations

import os

from procession._ground import standard as _standard
from procession._ground.handoff import Exportable, Handoff, Takeover
from procession._ground.passed_descriptor import PassedDescriptor
from procession._processes.family import authenticate_as, current_process, parent_process

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

    from procession._ground.handoff import Recipe, Token


def _context() -> Any:
    return _standard.module("multiprocessing.context")


class Spawning:
    """Lets objects of the standard package believe that it starts a process: while ``with``."""

    #: What becomes of a descriptor that was duplicated for the child.
    DupFd = PassedDescriptor

    def duplicate_for_child(self, fd: int) -> int:
        """Return *fd*: it is duplicated when the object that has it is pickled."""
        return fd

    def __enter__(self) -> None:
        """Take the place."""
        self._context = _context()
        self._before = self._context.get_spawning_popen()
        self._context.set_spawning_popen(self)

    def __exit__(self, *exception: object) -> None:
        """Give it back."""
        self._context.set_spawning_popen(self._before)


def is_spawning() -> bool:
    """Return whether the standard package starts a process in this thread."""
    popen = _context().get_spawning_popen()
    return popen is not None and not isinstance(popen, Spawning)


class _StandardHandoff(Handoff):
    """Gives descriptors to the process that the standard package is starting."""

    __slots__ = ("_given",)

    def __init__(self) -> None:
        # What was given to the same popen: it refuses a descriptor that it has already.
        popen = _context().get_spawning_popen()
        self._given: dict[int, Token] = popen.__dict__.setdefault("_procession_given", {})

    def give(self, fd: int, /) -> Token:
        """See `Handoff.give`."""
        if fd not in self._given:
            self._given[fd] = _standard.module("multiprocessing.reduction").DupFd(fd)
        return self._given[fd]


class _StandardTakeover(Takeover):
    """Takes descriptors in a process that the standard package has started."""

    __slots__ = ()

    def take(self, token: Token, /) -> int:
        """See `Takeover.take`."""
        fd: int = token.detach()
        if fd in _taken:
            return os.dup(fd)  # it was given once, to several
        _taken.add(fd)
        os.set_inheritable(fd, False)
        return fd


_taken: set[int] = set()


def give(exportable: Exportable) -> tuple[Any, ...]:
    """Return how *exportable* is pickled for a process that the standard package starts.

    With it goes the key of the family, which the process needs for what it is sent later.
    """
    recipe = exportable.export(_StandardHandoff())
    return take, (type(exportable), recipe, bytes(current_process().authkey))


def take(kind: type[Exportable], recipe: Recipe, authkey: bytes) -> Exportable:
    """Build what `give` has given, in the process that it was given to."""
    if parent_process() is None:
        authenticate_as(authkey)
    return kind.attach(recipe, _StandardTakeover())
