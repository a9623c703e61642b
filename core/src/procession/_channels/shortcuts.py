"""Connections whose common case is one step of compiled code.

What a connection does around its channel, pickling included, costs as much as a quick channel
itself. So a channel may bring a class of such steps (`Channel.shortcuts`), which becomes the first
base of the class of connections around it. Each step does the same as the method of `Connection`
that it hides, or leaves it to that.
"""

from __future__ import annotations

from procession._messages import pickling as _pickling

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

    from procession.connection import Connection

_made: dict[type[Any], type[Connection]] = {}


def with_shortcuts(kind: type[Connection], shortcuts: type[Any]) -> type[Connection]:
    """Return a class derived from *kind* whose common cases are those of *shortcuts*."""
    made = _made.get(shortcuts)
    if made is None:
        shortcuts.prepare(vars(_pickling))
        members = {
            "__slots__": (),
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__doc__": kind.__doc__,
            "_kind": kind,
            "_choose_ways": _choose_ways,
        }
        meta: Any = type(kind)
        made = _made[shortcuts] = meta(kind.__name__, (shortcuts, kind), members)
    return made


def _choose_ways(self: Any) -> None:
    """Take the shortcuts of the channel where nothing is to be looked at on the way."""
    channel, send, receive = self._channel, self._send, self._receive
    channel.shorten(
        self,
        send is not None and send == channel.send,
        receive is not None and receive == channel.receive and self._recv_limit is None,
        self._encoder is None,
    )
