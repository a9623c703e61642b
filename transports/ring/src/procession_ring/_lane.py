"""A lane in shared memory."""

from __future__ import annotations

import os

from procession.plugin import Lane

from ._implementation import NATIVE, copier, implementation
from ._layout import LANE_COUNTERS
from ._memory import new_bell, new_lane_memory

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from procession.plugin import Handoff, Recipe, Takeover

    from ._native import Lane as NativeLane
    from ._twin_lane import TwinLane


class RingLane(Lane):
    """Packets in a ring that all processes share: no system call to put or to take one.

    Writers have a lock, and readers another, which the kernel passes on when the holder
    is killed. All that a killed process can leave behind is memory that was written to
    and not committed, which the next one overwrites.
    """

    __slots__ = (
        "_lane",
        "copy",
        "limit",
        "pending",
        "receive",
        "receive_many",
        "receive_padded",
        "send",
        "send_many",
    )

    if TYPE_CHECKING:

        def send(self, packet: bytes, kind: int = 0, /) -> bool:
            """See `Lane.send`."""
            ...

        def receive(self) -> tuple[bytes, int] | None:
            """See `Lane.receive`."""
            ...

        def receive_padded(self) -> bytes | None:
            """See `Lane.receive_padded`."""
            ...

        def send_many(self, packets: Sequence[bytes], /) -> int:
            """See `Lane.send_many`."""
            ...

        def receive_many(self, most: int, /) -> list[bytes]:
            """See `Lane.receive_many`."""
            ...

        def pending(self) -> int:
            """See `Lane.pending`."""
            ...

    def __init__(self, memory: int, bell: int, *, new: bool = False) -> None:
        """Take over both descriptors, unless this fails; a *new* one is made ready."""
        self._lane: NativeLane | TwinLane
        self._lane = lane = _lane_type()(memory, bell, new)
        self.limit = lane.limit
        self.copy = copier()
        self.send = lane.send  # type: ignore[method-assign]
        self.receive = lane.receive  # type: ignore[method-assign]
        self.receive_padded = lane.receive_padded  # type: ignore[method-assign]
        self.send_many = lane.send_many  # type: ignore[method-assign]
        self.receive_many = lane.receive_many  # type: ignore[method-assign]
        self.pending = lane.pending  # type: ignore[method-assign]

    @classmethod
    def create(cls, size: int) -> Self:
        """Make a new one of *size* bytes. Raises `OSError` when something has run out."""
        memory = new_lane_memory(size)
        bell = -1
        try:
            bell = new_bell()
            return cls(memory, bell, new=True)
        except BaseException:
            os.close(memory)
            if bell >= 0:
                os.close(bell)
            raise

    def counters(self) -> tuple[int, int, int]:
        """See `Lane.counters`."""
        memory, _ = self._lane.descriptors()
        return memory, *LANE_COUNTERS

    def fileno(self) -> int:
        """See `Lane.fileno`."""
        return self._lane.fileno()

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        memory, bell = self._lane.descriptors()
        return handoff.give(memory), handoff.give(bell)

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        memory = takeover.take(recipe[0])
        bell = -1
        try:
            bell = takeover.take(recipe[1])
            return cls(memory, bell)
        except BaseException:
            os.close(memory)
            if bell >= 0:
                os.close(bell)
            raise

    def close(self) -> None:
        """See `Lane.close`."""
        self._lane.close()


def _lane_type() -> Callable[[int, int, bool], NativeLane | TwinLane]:
    if implementation() == NATIVE:
        from ._native import Lane as NativeLane

        return NativeLane
    from ._twin_lane import TwinLane

    return TwinLane
