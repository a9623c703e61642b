"""A descriptor alone, on its way to another process, for what is built around it there."""

from __future__ import annotations

import os

from procession._ground.handoff import Exportable, Handoff, Takeover

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Self

    from procession._ground.handoff import Recipe


class PassedDescriptor(Exportable):
    """A descriptor that is somebody else's here; the one that arrives is its own.

    Pickle it while its owner has it open.
    """

    __slots__ = ("_fd", "_owned")

    def __init__(self, fd: int, *, owned: bool = False) -> None:
        self._fd = fd
        self._owned = owned

    def detach(self) -> int:
        """Return the descriptor, which the caller owns from now on."""
        self._owned = False
        return self._fd

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        return (handoff.give(self._fd),)

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        return cls(takeover.take(recipe[0]), owned=True)

    def __del__(self) -> None:
        """Close what has arrived and nobody wanted."""
        if self._owned:
            os.close(self._fd)
