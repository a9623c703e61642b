"""What procession learns about this plugin: the class to use for the name `ring`."""

from __future__ import annotations

from procession.plugin import Transport, hookimpl

from ._transport import Ring


@hookimpl
def procession_transport() -> type[Transport]:
    """Give procession the transport `ring`."""
    return Ring
