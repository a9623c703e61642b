"""What procession learns about this plugin: the classes to use for the name `ring`."""

from __future__ import annotations

from procession.plugin import Primitive, Transport, hookimpl

from ._transport import Ring


@hookimpl
def procession_transport() -> type[Transport]:
    """Give procession the transport `ring`."""
    return Ring


@hookimpl
def procession_primitive() -> type[Primitive]:
    """Give procession what its locks are made of."""
    from ._primitive import RingPrimitive

    return RingPrimitive
