"""One end of a connection through shared memory."""

from __future__ import annotations

import os

from procession.plugin import Channel, Porter, blocks

from ._implementation import NATIVE, copier, implementation

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Self

    from procession.plugin import Buffer, Handoff, Message, Recipe, Takeover

    from ._native import End as NativeEnd
    from ._twin_end import TwinEnd


class RingChannel(Channel):
    """One end: memory for each direction, bells, and a socket by which it knows of the peer.

    What it does is done by an *end*, compiled or its pure-Python twin, whose methods are
    called without anything in between. Threads, forks, closing: as `Channel` says. Any
    number of processes may use one end at once; messages never interleave.
    """

    __slots__ = ("__weakref__", "_end", "_offsets", "_porter", "receive", "send")

    takes_companion = True

    if TYPE_CHECKING:

        def send(self, body: Buffer, buffers: Sequence[Buffer] = (), /) -> None:
            """See `Channel.send`."""

        def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Message:
            """See `Channel.receive`."""
            ...

    def __init__(
        self,
        descriptors: tuple[int, int, int, int],
        offsets: tuple[int, int],
        *,
        new: bool = False,
    ) -> None:
        """Take over memory, bell in, bell out (or -1) and peer, unless this fails.

        *offsets* say where the directions in and out begin in the memory, or -1; if they are
        *new*, they are made ready.
        """
        self._end: NativeEnd | TwinEnd = _end_type()(*descriptors, *offsets, blocks.take, new)
        self._offsets = offsets
        self._porter: Porter | None = None
        self.send = self._end.send  # type: ignore[assignment]
        self.receive = self._end.receive  # type: ignore[method-assign]

    @property
    def closed(self) -> bool:  # type: ignore[override]
        """See `Channel.closed`."""
        return self._end.closed

    @property
    def readable(self) -> bool:  # type: ignore[override]
        """See `Channel.readable`."""
        return self._end.readable

    @property
    def writable(self) -> bool:  # type: ignore[override]
        """See `Channel.writable`."""
        return self._end.writable

    @property
    def torn(self) -> bool:
        """See `Channel.torn`."""
        return self._end.torn

    @property
    def copy(self) -> Callable[[Buffer, Buffer], object] | None:  # type: ignore[override]
        """See `Channel.copy`: that of the compiled implementation."""
        return copier()

    @property
    def shortcuts(self) -> type[Any] | None:
        """See `Channel.shortcuts`: those of the compiled implementation."""
        if implementation() != NATIVE:
            return None
        from ._native import Shortcuts

        return Shortcuts

    def shorten(self, connection: Any, sends: bool, receives: bool, pickles: bool, /) -> None:
        """See `Channel.shorten`."""
        end = self._end
        ways = end if sends else None, end if receives else None
        connection._shorten(*ways, pickles, self.carries)

    def wait(self, timeout: float | None = None, /) -> bool:
        """See `Channel.wait`."""
        return self._end.wait(timeout)

    def wait_for_room(self, length: int, timeout: float | None = None, /) -> bool:
        """See `Channel.wait_for_room`."""
        return self._end.wait_for_room(length, timeout)

    def watch(self, receiving: Callable[[], object], sending: Callable[[], object], /) -> bool:
        """See `Channel.watch`."""
        return self._end.watch(receiving, sending)

    def fileno(self) -> int:
        """See `Channel.fileno`.

        It is made when it is first asked for, and from then on every message that
        finds the ring empty costs the peer a system call.
        """
        return self._end.fileno()

    def holding(self) -> int:
        """See `Channel.holding`: the socket, of which each end has one of its own."""
        return self._end.descriptors()[3]

    @property
    def carries(self) -> bool:
        """See `Channel.carries`."""
        return self._porter is not None

    def accompany(self, companion: int, /) -> None:
        """See `Channel.accompany`."""
        self._porter = Porter(companion)
        self._end.carry(self._porter.receive)

    def send_carrying(
        self, body: Buffer, buffers: Sequence[Buffer], descriptors: Sequence[int], /
    ) -> bool:
        """See `Channel.send_carrying`."""
        porter = self._porter
        return porter is not None and porter.send(self._end.send, body, buffers, descriptors)

    def close(self) -> None:
        """See `Channel.close`."""
        self._end.close()
        if self._porter is not None:
            self._porter.close()

    def export(self, handoff: Handoff, /) -> Recipe:
        """See `Exportable.export`."""
        descriptors: tuple[int, ...] = self._end.descriptors()
        if self._porter is not None:
            descriptors += (self._porter.companion,)
        tokens = tuple(None if fd < 0 else handoff.give(fd) for fd in descriptors)
        into, out = self._offsets
        return tokens, (into if self._end.readable else -1, out)

    @classmethod
    def attach(cls, recipe: Recipe, takeover: Takeover, /) -> Self:
        """See `Exportable.attach`."""
        tokens, offsets = recipe
        taken: list[int] = []
        try:
            for token in tokens:
                taken.append(-1 if token is None else takeover.take(token))
            memory, in_bell, out_bell, peer, *companion = taken
            self = cls((memory, in_bell, out_bell, peer), offsets)
            taken = companion
            if companion:
                self.accompany(companion[0])
            return self
        except BaseException:
            for fd in taken:
                if fd >= 0:
                    os.close(fd)
            raise


def _end_type() -> Callable[..., NativeEnd | TwinEnd]:
    if implementation() == NATIVE:
        from ._native import End

        return End
    from ._twin_end import TwinEnd

    return TwinEnd
