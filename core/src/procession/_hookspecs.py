"""The hooks through which a plugin offers what it has.

pluggy checks every implementation against these signatures, and refuses a hook
whose name is not here. Imported when a plugin is loaded, never in a child.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    from procession._primitives import Primitive
    from procession._start_method import StartMethod
    from procession._transport import Transport

__all__ = [
    "PROJECT",
    "hookimpl",
    "hookspec",
    "procession_primitive",
    "procession_start_method",
    "procession_transport",
]

PROJECT: Final = "procession"
"""The name under which pluggy knows hooks of ours from those of others."""

hookspec: Final = pluggy.HookspecMarker(PROJECT)

hookimpl: Final = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's function as the implementation of the hook it is named after."""


@hookspec
def procession_start_method() -> type[StartMethod]:
    """Return the start method that this plugin provides.

    Called once in a process, when the name of an entry point in the group
    ``procession.start_methods`` is first used; implementations of other plugins are
    not called with it. Expensive imports belong into this function or into the module
    of the class, since listing plugins imports nothing at all.

    Returns a concrete subclass of `StartMethod` which children can import by its module
    and qualified name, and whose ``name`` is the name of the entry point. An exception
    is reported as `PluginLoadError` and harms no other plugin.
    """
    raise NotImplementedError


@hookspec
def procession_transport() -> type[Transport]:
    """Return the transport that this plugin provides.

    As `procession_start_method`, for the group ``procession.transports`` and a concrete
    subclass of `Transport`.
    """
    raise NotImplementedError


@hookspec
def procession_primitive() -> type[Primitive]:
    """Return the implementation of locks and semaphores that this plugin provides.

    As `procession_start_method`, for the group ``procession.primitives`` and a concrete
    subclass of `Primitive`.
    """
    raise NotImplementedError
