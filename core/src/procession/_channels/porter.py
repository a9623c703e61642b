"""The porter of a channel: takes the luggage of its messages through a companion.

For channels whose messages keep their buffers apart and which have locks of their own around
each message. A message with luggage has an empty body, which no pickle is, and begins its
buffers with the tag of its descriptors and its own body.
"""

from __future__ import annotations

import errno
import os
import sys
from _thread import get_ident

from procession._contracts.channel import partial

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from procession._contracts.channel import Buffer, Message
    from procession._ground.companion import Inlet, Outlet

    class Send(Protocol):
        """Sends a message, unless what is called just before says False."""

        def __call__(
            self, body: Buffer, buffers: Sequence[Buffer], before: Callable[[], bool], /
        ) -> bool | None: ...


class Porter:
    """Takes luggage through *companion*, a socket that it takes over, until `close`.

    Descriptors are sent, and received, in the middle of the call that sends, or receives, their
    message, with the locks held that keep messages apart: so they come in the order of the
    messages, also where several processes send or receive through one end.

    Threads: any. Fork: both processes have it afterwards.
    """

    __slots__ = ("_inlet", "_outlet", "_sender", "companion")

    def __init__(self, companion: int) -> None:
        #: The socket, for who wants to export it; -1 when it is closed.
        self.companion = companion
        self._inlet: Inlet | None = None
        self._outlet: Outlet | None = None
        # The thread that is between the descriptors and their message.
        self._sender = 0

    def send(
        self, send: Send, body: Buffer, buffers: Sequence[Buffer], descriptors: Sequence[int]
    ) -> bool:
        """Send a message with *descriptors*; return False, having sent nothing, if it cannot.

        *send* is the channel's: it takes a function beside body and buffers, which it calls, with
        its locks held, when the message is the next one. Raises what it raises.
        """
        outlet = self._outlet
        if outlet is None:
            # Not before it is needed: most connections carry no descriptors.
            from procession._ground.companion import Outlet

            self._outlet = outlet = Outlet(self._open())
        ticket = outlet.new_ticket()
        tag = ticket + bytes((len(descriptors),))
        try:
            sent = send(
                b"", (tag, body, *buffers), partial(self._post, outlet, ticket, descriptors)
            )
        finally:
            if self._sender == get_ident():
                self._sender = 0
        return sent is not False

    def _post(self, outlet: Outlet, ticket: bytes, descriptors: Sequence[int]) -> bool:
        me = get_ident()
        if self._sender == me:
            # This is a signal handler, and what it has interrupted comes behind its message.
            return False
        self._sender = me
        return outlet.post(ticket, descriptors)

    def receive(self, buffers: Sequence[Buffer]) -> Message:
        """Return the message that is in *buffers*, with its luggage.

        The channel calls it for a message of no body, with its locks held. Raises `OSError` for
        one that nobody has sent in this way.
        """
        from procession._ground.companion import TICKET, Inlet
        from procession._messages.luggage import Luggage

        if len(buffers) < 2 or len(buffers[0]) != TICKET + 1:
            raise OSError("bad message: it has buffers and no body")
        tag, body, *rest = buffers
        if self._inlet is None:
            self._inlet = Inlet(self._open())
        found = self._inlet.collect(bytes(tag[:TICKET]), tag[TICKET])
        return body, Luggage(rest, *found)

    def _open(self) -> int:
        if self.companion < 0:
            raise OSError(errno.EBADF, "handle is closed")
        return self.companion

    def close(self) -> None:
        """Close the companion; what came through it and was not asked for is let go of."""
        for side in (self._inlet, self._outlet):
            if side is not None:
                side.close()
        closing = map(os.close, () if self.companion < 0 else (self.companion,))
        # As in `DescriptorChannel.close`: a signal handler that raises finds no gap here.
        self.companion = -1
        any(closing)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the modules are half gone, and the kernel closes everything anyway
        self.close()
