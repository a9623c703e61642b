"""How an object made of descriptors crosses into another process.

A *recipe* says how to build the object again; descriptors in it are replaced by
tokens. The `Handoff` of one crossing turns descriptors into tokens, and on the
other side the `Takeover` of the same crossing turns the tokens into descriptors.
There are two kinds of crossing: the start of a process (this module: descriptors
travel with the parcel) and a message through a running connection or queue
(`procession._messages.broker`). Nothing here is ambient: each crossing has its own pair.
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod

import procession._ground.pickle_accelerator  # noqa: F401 - makes the next import a cheap one
from procession._ground import standard as _standard

try:
    from _pickle import PickleBuffer, Pickler, Unpickler
except ImportError:  # an interpreter without the C accelerator
    from pickle import PickleBuffer, Pickler, Unpickler

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, ClassVar, Self, TypeAlias

# What the maker of a recipe puts into it is its own business, as long as it can be
# pickled, hence Any; tokens stand where descriptors were.
Recipe: TypeAlias = "tuple[Any, ...]"
Token: TypeAlias = "Any"

PROTOCOL = 5
_MARK = b"fd"


class Mark(bytearray):
    """What a pickle has before an object that is made of descriptors.

    A pickler with a callback for buffers shows it there, before anything of the object is
    pickled, and may put what it likes better into *crossing*: that is pickled next.
    """

    __slots__ = ("crossing", "exportable")

    exportable: Exportable
    crossing: list[Any]


class Handoff(ABC):
    """The giving side of one crossing."""

    __slots__ = ()

    @abstractmethod
    def give(self, fd: int, /) -> Token:
        """Promise a duplicate of *fd* to the other side and return its token.

        The giver keeps *fd* and may close it as soon as the crossing has been
        made (the launch has returned, the message has been sent). Each call makes
        a token of its own, also for a descriptor that was given before.
        """

    def lend(self, fd: int, keeper: object, /) -> Token:
        """As `give`, for an *fd* that stays open at least as long as there is *keeper*.

        That saves a duplicate where *keeper* can be kept until the crossing has been made.
        """
        return self.give(fd)


class Takeover(ABC):
    """The taking side of one crossing."""

    __slots__ = ()

    @abstractmethod
    def take(self, token: Token, /) -> int:
        """Return the descriptor behind *token*, which the caller now owns.

        A token is taken once. The descriptor is not inheritable. Raises `OSError`
        (or a `procession.errors` subclass of it) when the giver has gone before
        the descriptor could be fetched.
        """


class Exportable(ABC):
    """Something made of descriptors that can cross into another process.

    Instances may be arguments of a process, on every start method, and may be sent
    through a running connection or queue of the same host.
    """

    __slots__ = ()

    #: What to do for a process that cannot have one, as a part of a sentence, or nothing.
    advice: ClassVar[str] = ""

    @abstractmethod
    def export(self, handoff: Handoff, /) -> Recipe:
        """Return the recipe from which `attach` builds this object elsewhere.

        The object stays usable here. Must not block and must not change anything
        that other users of the same kernel objects could notice.
        """

    @classmethod
    @abstractmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """Build the object from *recipe*; it owns every descriptor taken for it."""

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        """Pickle as `__reduce__` does, but tell first whom it concerns.

        A pickler with a callback for buffers is shown a `Mark` before anything is done, and
        may take another way then; to all others this is a handful of bytes.
        """
        if protocol < PROTOCOL:
            return self.__reduce__()
        mark = Mark(_MARK)
        mark.exportable = self
        mark.crossing = crossing = [_Itself(self)]
        return _behind_mark, (PickleBuffer(mark), crossing)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for a message to a running process of this host, through the broker.

        Or for a process that the standard package is starting in this thread.
        """
        if _standard.is_loaded():
            from procession._standard.descriptors import give, is_spawning

            if is_spawning():
                return give(self)
        from procession._messages.broker import offer

        return offer(self)


class _Itself:
    """Pickles as an exportable does by its own `__reduce__`."""

    __slots__ = ("_exportable",)

    def __init__(self, exportable: Exportable) -> None:
        self._exportable = exportable

    def __reduce__(self) -> tuple[Any, ...]:
        return self._exportable.__reduce__()


def _behind_mark(mark: Any, crossing: list[Any]) -> Exportable:
    """Return what was pickled behind a mark: itself, or its kind and recipe.

    There is luggage in the place of the mark then, see `procession._messages.luggage`.
    """
    if len(crossing) == 1:
        exportable: Exportable = crossing[0]
        return exportable
    attached: Exportable = mark.attach(*crossing)
    return attached


class LaunchHandoff(Handoff):
    """Collects the descriptors that travel with a parcel; a token is their position."""

    __slots__ = ("descriptors",)

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def give(self, fd: int, /) -> Token:
        """See `Handoff.give`."""
        self.descriptors.append(fd)
        return len(self.descriptors) - 1


class LaunchTakeover(Takeover):
    """Hands out the descriptors that came with a parcel."""

    __slots__ = ("_descriptors",)

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = list(descriptors)

    def take(self, token: Token, /) -> int:
        """See `Takeover.take`."""
        fd = self._descriptors[token]
        if fd < 0:
            raise ValueError(f"descriptor {token} of this parcel was taken already")
        self._descriptors[token] = -1
        return fd

    def rest(self) -> list[int]:
        """Return what nobody took, in its order; it is the caller's then."""
        descriptors, self._descriptors = self._descriptors, []
        return [fd for fd in descriptors if fd >= 0]

    def close(self) -> None:
        """Close every descriptor that nobody took."""
        for token, fd in enumerate(self._descriptors):
            if fd >= 0:
                self._descriptors[token] = -1
                os.close(fd)


def _attach(kind: type[Exportable], recipe: Recipe) -> Exportable:
    """Stand in a parcel for `LaunchTakeover` of the child that opens it.

    `ParcelUnpickler` replaces this function by one that knows its takeover; a
    parcel opened in any other way ends here.
    """
    raise TypeError(f"{kind.__qualname__} can only be taken from a parcel by the child it is for")


class ParcelPickler(Pickler):
    """Pickles what a child needs, with its descriptors given to one `Handoff`.

    `reducer_override` (Python 3.8) is asked only for objects that are not of a basic
    built-in type, unlike `persistent_id`, which is asked for every integer too.
    *reducers* are further exact-type reducers, tried before an object's own.
    """

    def __init__(
        self,
        file: io.BytesIO,
        handoff: Handoff,
        reducers: dict[type, Callable[[Any], Any]] | None = None,
    ) -> None:
        super().__init__(file, PROTOCOL)
        self._handoff = handoff
        self._reducers = reducers or {}
        #: The modules of procession and its plugins that the child will import.
        self.modules: set[str] = set()
        # That of the pickler which this one was derived from, see `parcel_pickler`.
        self._otherwise = getattr(super(), "reducer_override", None)

    def reducer_override(self, obj: Any, /) -> Any:
        """Return how *obj* is pickled, or NotImplemented for the usual way."""
        if isinstance(obj, type):
            if obj.__module__.startswith("procession"):
                self.modules.add(obj.__module__)
        elif isinstance(obj, Exportable):
            self.modules.add(type(obj).__module__)
            return _attach, (type(obj), obj.export(self._handoff))
        reducer = self._reducers.get(type(obj)) or self._otherwise
        return NotImplemented if reducer is None else reducer(obj)


def parcel_pickler(base: type[Pickler]) -> type[ParcelPickler]:
    """Return a `ParcelPickler` that pickles all else as *base* does."""
    return type("ParcelPickler", (ParcelPickler, base), {})


class ParcelUnpickler(Unpickler):
    """Opens what `ParcelPickler` packed, in the child that it is for."""

    def __init__(self, file: Any, takeover: Takeover) -> None:
        super().__init__(file)
        self._takeover = takeover

    def find_class(self, module: str, name: str, /) -> Any:
        """Resolve a global, with `_attach` bound to this child's takeover."""
        if name == "_attach" and module == __name__:
            return self._attach_here
        return super().find_class(module, name)

    def _attach_here(self, kind: type[Exportable], recipe: Recipe) -> Exportable:
        return kind.attach(recipe, self._takeover)
