"""The hooks through which a plugin offers what it has.

pluggy checks every implementation against these signatures, and refuses a hook
whose name is not here. Imported when a plugin is loaded, never in a child.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pluggy

from procession._contracts.hookimpl import PROJECT

if TYPE_CHECKING:
    from typing import Any

    from procession._contracts.primitives import Primitive
    from procession._contracts.serializer import Serializer
    from procession._contracts.start_method import StartMethod
    from procession._contracts.transport import Transport
    from procession._starting.failure import FailureReport
    from procession.process import Process

__all__ = [
    "hookspec",
    "procession_child_ending",
    "procession_child_starting",
    "procession_ended",
    "procession_launching",
    "procession_primitive",
    "procession_serializer",
    "procession_start_method",
    "procession_started",
    "procession_transport",
]

hookspec: Final = pluggy.HookspecMarker(PROJECT)


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


@hookspec
def procession_serializer() -> type[Serializer]:
    """Return the serializer that this plugin provides.

    As `procession_start_method`, for the group ``procession.serializers`` and a concrete
    subclass of `Serializer`.
    """
    raise NotImplementedError


# -- the life of a process, for plugins in the group procession.plugins ------------------


@hookspec(firstresult=True)
def procession_launching(process: Process) -> Any:
    """Return the baggage of a child that is about to be started, or None.

    Called in the parent, in the thread that starts it; nothing has been started yet. The
    baggage is for the plugin's own hooks in the child. It is pickled with the child's
    arguments, so that queues and connections may be in it, but nothing that is defined in
    the main module. A forked child has the object itself.

    An exception keeps the child from being started: the start raises `PluginHookError`. If
    the start fails later, no other hook is called for it.
    """
    raise NotImplementedError


@hookspec
def procession_started(process: Process) -> None:
    """Note that a child was started. Called in the parent, right after the start.

    An exception goes to procession's logger, and no further.
    """


@hookspec
def procession_ended(process: Process, exitcode: int, failure: FailureReport | None) -> None:
    """Note that a child has ended. Called in the parent, once, when it notices.

    That is in `join`, `is_alive`, `stop`, `close`, `active_children` and the start of another
    process, in whatever thread, or at the parent's own end. An exception goes to
    procession's logger, and no further.
    """


@hookspec
def procession_child_starting(baggage: Any) -> None:
    """Prepare the child. Called in the child, before its main module is imported.

    The function is found there by its module and name: it belongs into a module that
    imports as little as possible, and into that of the hooks by
    ``procession_child_starting = hookimpl(_child.starting)``. In a forked child it is called
    before the target.

    An exception ends the child as one of the target would, as `PluginHookError`.
    """


@hookspec
def procession_child_ending(baggage: Any) -> None:
    """Clean up in the child. Called in the child, as `procession_child_starting`.

    It is the last that happens before the child's exit handlers, however the target has
    ended, but not when a signal ends the process. Only for plugins whose
    `procession_child_starting`, if any, was called. An exception is printed on stderr.
    """
