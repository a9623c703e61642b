"""What procession learns about this plugin: the class to use for the name `socketpair`."""

from __future__ import annotations

from procession.plugin import Transport, hookimpl

from ._transport import SocketPair


@hookimpl
def procession_transport() -> type[Transport]:
    """Give procession the transport `socketpair`."""
    return SocketPair
