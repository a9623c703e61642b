"""What procession learns about this plugin: the class to use for the name `cloudpickle`."""

from __future__ import annotations

from procession.plugin import Serializer, hookimpl

from ._serializer import Cloudpickle


@hookimpl
def procession_serializer() -> type[Serializer]:
    """Give procession the serializer `cloudpickle`."""
    return Cloudpickle
