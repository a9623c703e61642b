"""Luggage: the descriptors that travel with a message, and pickling for such a message.

Objects made of descriptors are pickled as their recipe, with positions in the luggage as
tokens. Where a message has no luggage, as in a queue, they go through `procession._broker`.
"""

from __future__ import annotations

import copyreg
import os
import sys
from importlib import import_module
from io import BytesIO
from itertools import repeat

import procession._pickle_accelerator  # noqa: F401 - makes the next import a cheap one
from procession import _reducers
from procession._companion import MOST_DESCRIPTORS, close_all
from procession._handoff import MARK, PROTOCOL, Exportable, Handoff, LaunchTakeover
from procession._passed_descriptor import PassedDescriptor
from procession.errors import DescriptorLostError

try:
    from _pickle import PickleBuffer, Pickler, loads
except ImportError:  # an interpreter without the C accelerator
    from pickle import PickleBuffer, Pickler, loads

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from procession._channel import Buffer
    from procession._encoder import Encoder
    from procession._handoff import Recipe, Token
    from procession._pickling import Buffers as _Buffers


class Departure(Handoff):
    """Duplicates of the descriptors that one message takes along, until `close`."""

    __slots__ = ("descriptors", "objects")

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        #: How many objects were packed for it.
        self.objects = 0

    def give(self, fd: int, /) -> Token:
        """See `Handoff.give`."""
        self.descriptors.append(os.dup(fd))
        return len(self.descriptors) - 1

    def fits(self) -> bool:
        """Return whether one message can take along what was packed.

        That is not more than some descriptors, and not an object that has none.
        """
        count = len(self.descriptors)
        return count <= MOST_DESCRIPTORS and (count > 0 or not self.objects)

    def close(self) -> None:
        """Close the duplicates: the message was sent, and the kernel keeps its own."""
        descriptors, self.descriptors = self.descriptors, []
        close_all(descriptors)


class Luggage(tuple["Buffer", ...]):
    """The buffers of a message, and the descriptors that came with it, which it owns.

    It is true also without buffers. What nobody takes is closed when it is collected.
    """

    def __new__(cls, buffers: Sequence[Buffer], descriptors: list[int], lost: str) -> Luggage:
        """Take over *descriptors*. If there are none, *lost* says why."""
        self = super().__new__(cls, buffers)
        self._takeover = LaunchTakeover(descriptors)
        self._lost = lost
        return self

    _takeover: LaunchTakeover
    _lost: str

    def __bool__(self) -> bool:
        """Return True: there is something beside the body."""
        return True

    def beside(self, buffers: Sequence[Buffer]) -> Luggage:
        """Return the same luggage beside *buffers*; this one is empty then."""
        return Luggage(buffers, self._takeover.rest(), self._lost)

    def unpickle(self, body: Buffer) -> Any:
        """Return the object. Raises `DescriptorLostError` if descriptors of it are not here."""
        try:
            if not len(self):
                return loads(body, buffers=repeat(self))
            return loads(body, buffers=[each if len(each) else self for each in self])
        finally:
            self._takeover.close()

    def attach(self, kind: type[Exportable], recipe: Recipe) -> Exportable:
        """Build an object of *kind* out of its recipe and what has come."""
        if self._lost:
            raise DescriptorLostError(f"cannot have this {kind.__name__}: {self._lost}")
        return kind.attach(recipe, self._takeover)

    def join(self, body: Buffer) -> Any:
        """Return what pickles as the object, once, with all that came: see `_pickling.join`.

        The descriptors are on offer in this process then, as if it had sent them itself.
        """
        passed = [PassedDescriptor(fd, owned=True) for fd in self._takeover.rest()]
        parts = [bytearray(buffer) for buffer in self]
        return _Forwarded(bytes(body), parts, passed, self._lost)

    def __del__(self) -> None:
        self._takeover.close()


class _Forwarded:
    """Pickles as the object of a message with luggage."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_forwarded, self._parts


def _unpickle_forwarded(
    body: bytes, buffers: list[bytearray], passed: list[PassedDescriptor], lost: str
) -> Any:
    return Luggage(buffers, [each.detach() for each in passed], lost).unpickle(body)


def pickle(
    obj: Any, departure: Departure, encoder: Encoder | None, buffers: _Buffers
) -> tuple[bytes, Sequence[memoryview]]:
    """Return the pickle of *obj* and its buffers; its descriptors are given to *departure*."""
    file = BytesIO()
    places = _Places(buffers)
    if encoder is None:
        made = Pickler(file, PROTOCOL, buffer_callback=places)
        made.dispatch_table = _Table(departure)
    else:
        base = encoder.serializer.pickler()
        kind = _picklers.get(base)
        if kind is None:
            kind = _picklers[base] = type("Pickler", (_Giving, _reducers.pickler(base)), {})
        made = kind(file, PROTOCOL, buffer_callback=places)
        made.departure = departure
    made.dump(obj)
    return file.getvalue(), places.buffers()


# Those of other serializers, by what they were derived from.
_picklers: dict[type[Pickler], type[_Giving]] = {}


class _Giving(Pickler):
    """Gives descriptors to its departure; all else is done by the other base."""

    departure: Departure

    def reducer_override(self, obj: Any, /) -> Any:
        """Return how *obj* is pickled, or NotImplemented for the usual way."""
        if isinstance(obj, Exportable):
            return _pack(obj, self.departure)
        otherwise = getattr(super(), "reducer_override", None)
        return NotImplemented if otherwise is None else otherwise(obj)


class _Places:
    """Decides about buffers as *collecting* does, and remembers where luggage is between them."""

    __slots__ = ("_collecting", "_has_luggage")

    def __init__(self, collecting: _Buffers) -> None:
        self._collecting = collecting
        self._has_luggage = False

    def __call__(self, buffer: PickleBuffer) -> bool:
        """Take *buffer*, or answer True to have it copied into the pickle."""
        if buffer.raw().obj is not MARK:
            return self._collecting(buffer)
        self._collecting.append(_LUGGAGE)
        return False

    def buffers(self) -> Sequence[memoryview]:
        """Return the buffers, with an empty one where luggage is, if there are others at all."""
        return self._collecting if any(self._collecting) else ()


class _Table(dict[type, "Callable[[Any], Any]"]):
    """How exportables are pickled for one departure, and what else there is a way for."""

    def __init__(self, departure: Departure) -> None:
        super().__init__()
        self._departure = departure

    def __missing__(self, kind: type) -> Callable[[Any], Any]:
        if issubclass(kind, Exportable):
            return self._give
        return _reducers.find(kind, copyreg.dispatch_table)

    def _give(self, obj: Exportable) -> tuple[Any, ...]:
        return _pack(obj, self._departure)


def _pack(obj: Exportable, departure: Departure) -> tuple[Any, ...]:
    """Return how *obj* is pickled, whose descriptors are given to *departure*."""
    kind = type(obj)
    if kind.__reduce__ is not Exportable.__reduce__:
        # It has a way of its own to running processes, as to those of other hosts.
        return obj.__reduce__()
    departure.objects += 1
    name = (kind.__module__, kind.__qualname__)
    named = name if _kinds.get(name) is kind or _is_found(kind, name) else kind
    return _attach, (named, obj.export(departure), PickleBuffer(MARK))


_LUGGAGE = memoryview(b"")


# Classes by module and name. For an unpickler, each global takes as long as all else here.
_kinds: dict[tuple[str, str], type[Exportable]] = {}


def _is_found(kind: type[Exportable], name: tuple[str, str]) -> bool:
    """Return whether *kind* is found by its *name*; what is not, pickle complains about."""
    found: Any = sys.modules.get(name[0])
    if getattr(found, name[1], None) is not kind:
        return False
    _kinds[name] = kind
    return True


def _attach(
    kind: type[Exportable] | tuple[str, str], recipe: Recipe, luggage: Luggage
) -> Exportable:
    """Build what `_Table` has packed; *luggage* stands where the pickle has a buffer."""
    if isinstance(kind, tuple):
        name = kind
        found = _kinds.get(name)
        if found is None:
            found = _kinds[name] = getattr(import_module(name[0]), name[1])
        kind = found
    return luggage.attach(kind, recipe)
