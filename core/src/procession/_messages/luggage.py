"""Luggage: the descriptors that travel with a message, and pickling for such a message.

Objects made of descriptors are pickled as their recipe, with positions in the luggage as
tokens. Where a message has no luggage, as in a queue, they go through `_messages.broker`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from itertools import repeat

import procession._ground.pickle_accelerator  # noqa: F401 - makes the next import a cheap one
from procession._ground.companion import MOST_DESCRIPTORS, close_all
from procession._ground.handoff import Exportable, Handoff, LaunchTakeover
from procession._ground.passed_descriptor import PassedDescriptor
from procession._messages.pickling import dumps
from procession.errors import DescriptorLostError

try:
    from _pickle import PickleBuffer, loads
except ImportError:  # an interpreter without the C accelerator
    from pickle import PickleBuffer, loads

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from procession._channels.twin import Twin
    from procession._contracts.channel import Buffer, Channel
    from procession._ground.handoff import Mark, Recipe, Token


class Departure(Handoff):
    """The descriptors that one message takes along, until `close`.

    Duplicates of most, as what they are of may be closed at any time. Closed also when it is
    collected.
    """

    __slots__ = ("_duplicates", "_keepers", "descriptors")

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        self._duplicates: list[int] = []
        self._keepers: list[object] = []

    def give(self, fd: int, /) -> Token:
        """See `Handoff.give`."""
        duplicate = os.dup(fd)
        self._duplicates.append(duplicate)
        self.descriptors.append(duplicate)
        return len(self.descriptors) - 1

    def lend(self, fd: int, keeper: object, /) -> Token:
        """See `Handoff.lend`."""
        self._keepers.append(keeper)
        self.descriptors.append(fd)
        return len(self.descriptors) - 1

    def pack(self, mark: Mark) -> bool:
        """Have the object behind *mark* pickled for this message.

        Returns False, and it is pickled as anywhere else, for one that has a way of its own to
        running processes, as to those of other hosts, for one without descriptors, and for one
        that has more than the message can take along beside the others.
        """
        exportable = mark.exportable
        kind = type(exportable)
        if kind.__reduce__ is not Exportable.__reduce__:
            return False
        before, duplicates = len(self.descriptors), len(self._duplicates)
        recipe = exportable.export(self)
        if not before < len(self.descriptors) <= MOST_DESCRIPTORS:
            del self.descriptors[before:]
            close_all(self._duplicates[duplicates:])
            del self._duplicates[duplicates:]
            return False
        mark.crossing[:] = _named(kind), recipe
        return True

    def send(self, body: bytes, buffers: Sequence[Buffer], carrier: Channel | Twin) -> None:
        """Send a message with them through *carrier*, and close them.

        Where there is no way for descriptors now, they are fetched from this process. Raises
        what `Channel.send` raises.
        """
        try:
            if not any(map(len, buffers)):
                buffers = ()
            if not carrier.send_carrying(body, buffers, self.descriptors):
                carrier.send(*dumps(_Forwarded(body, buffers, self._offered(), "")))
        finally:
            self.close()

    def _offered(self) -> list[PassedDescriptor]:
        return [PassedDescriptor(fd) for fd in self.descriptors]

    def close(self) -> None:
        """Close the duplicates: the message was sent, and the kernel keeps its own."""
        duplicates, self._duplicates = self._duplicates, []
        close_all(duplicates)
        self._keepers.clear()

    def __del__(self) -> None:
        self.close()


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

    def attach(self, kind: type[Exportable] | tuple[str, str], recipe: Recipe) -> Exportable:
        """Build an object of *kind* out of its recipe and what has come."""
        if isinstance(kind, tuple):
            kind = _found(kind)
        if self._lost:
            raise DescriptorLostError(f"cannot have this {kind.__name__}: {self._lost}")
        return kind.attach(recipe, self._takeover)

    def join(self, body: Buffer) -> Any:
        """Return what pickles as the object, once, with all that came: see `_pickling.join`.

        The descriptors are on offer in this process then, as if it had sent them itself.
        """
        passed = [PassedDescriptor(fd, owned=True) for fd in self._takeover.rest()]
        return _Forwarded(bytes(body), self, passed, self._lost)

    def __del__(self) -> None:
        self._takeover.close()


class _Forwarded:
    """Pickles as the object of a message with luggage, whose descriptors are on offer here."""

    __slots__ = ("_parts",)

    def __init__(
        self, body: bytes, buffers: Sequence[Buffer], passed: list[PassedDescriptor], lost: str
    ) -> None:
        self._parts = body, [PickleBuffer(each) for each in buffers], passed, lost

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_forwarded, self._parts


def _unpickle_forwarded(
    body: bytes, buffers: Sequence[Buffer], passed: list[PassedDescriptor], lost: str
) -> Any:
    return Luggage(buffers, [each.detach() for each in passed], lost).unpickle(body)


# Classes by module and name. For an unpickler, each global takes as long as all else here.
_kinds: dict[tuple[str, str], type[Exportable]] = {}


def _named(kind: type[Exportable]) -> type[Exportable] | tuple[str, str]:
    """Return the name of *kind* if it is found by that; what is not, pickle complains about."""
    name = (kind.__module__, kind.__qualname__)
    if _kinds.get(name) is kind:
        return name
    found: Any = sys.modules.get(name[0])
    if getattr(found, name[1], None) is not kind:
        return kind
    _kinds[name] = kind
    return name


def _found(name: tuple[str, str]) -> type[Exportable]:
    """Return the class of that name."""
    kind = _kinds.get(name)
    if kind is None:
        kind = _kinds[name] = getattr(import_module(name[0]), name[1])
    return kind
