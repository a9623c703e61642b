"""What procession learns about this plugin: the class to use for the name `tcp`."""

from __future__ import annotations

from procession.plugin import Transport, hookimpl

from ._transport import Tcp


@hookimpl
def procession_transport() -> type[Transport]:
    """Give procession the transport `tcp`."""
    return Tcp
