"""The selection of this process: the one place with state at module level.

The functions of this module are what `procession` offers under the same names; how a
choice is made is `procession._choosing.selector`'s business.
"""

from __future__ import annotations

from procession._choosing.selector import Selector, no_scope
from procession._processes import inheritance

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Literal, overload

    from procession._choosing.choice import Selection
    from procession._choosing.configuration import Settings
    from procession._choosing.registry import Registry
    from procession._choosing.selector import Bequest, Scope
    from procession._contracts.start_method import StartMethod
    from procession._contracts.transport import Transport
    from procession._ground.encoder import Encoder

__all__ = [
    "bequest",
    "encoder",
    "get_all_serializers",
    "get_all_start_methods",
    "get_all_transports",
    "get_plugins",
    "get_serializer",
    "get_start_method",
    "get_transport",
    "inherit",
    "load_for_messages",
    "load_pair",
    "load_start_method",
    "load_transport",
    "negotiate",
    "plugins",
    "registry",
    "selection",
    "set_plugins",
    "set_serializer",
    "set_start_method",
    "set_transport",
    "settings",
    "use",
]

_selector = Selector()


# -- for users ---------------------------------------------------------------------------


def set_start_method(method: str | None, force: bool = False) -> None:
    """Choose the start method of this process.

    It stays in force until it is set again with *force*; *method* None takes it back,
    which needs *force* too. Only this function fixes it: no other one of procession, and
    no start of a process, does so as a side effect.

    Raises RuntimeError (`SelectionError`) if it has been set already, and ValueError
    (`UnknownPluginError`, `PluginUnavailableError`, ...) at once if there is no such
    start method or it cannot be used here; the choice is as before then.
    """
    _own().set("start_method", method, force=force)


def set_transport(transport: str | None, force: bool = False) -> None:
    """Choose the transport of this process; as `set_start_method` in every respect."""
    _own().set("transport", transport, force=force)


def set_serializer(serializer: str | None, force: bool = False) -> None:
    """Choose the serializer of this process; as `set_start_method` in every respect."""
    _own().set("serializer", serializer, force=force)


if TYPE_CHECKING:

    @overload
    def get_start_method(allow_none: Literal[False] = False) -> str: ...
    @overload
    def get_start_method(allow_none: bool) -> str | None: ...


def get_start_method(allow_none: bool = False) -> str | None:
    """Return the name of the start method that would be used now. Decides nothing.

    With *allow_none*, None if nobody has chosen one: no scope, no `set_start_method`, no
    parent process, no variable and no configuration file.

    Raises ValueError (`UnknownPluginError`, `ConfigurationError`, ...) if the environment
    or the configuration chooses what does not exist, or if nothing is installed.
    """
    if allow_none:
        chosen = _own().chosen("start_method")
        return None if chosen is None else chosen[0]
    return _own().resolve("start_method")[0]


if TYPE_CHECKING:

    @overload
    def get_transport(allow_none: Literal[False] = False) -> str: ...
    @overload
    def get_transport(allow_none: bool) -> str | None: ...


def get_transport(allow_none: bool = False) -> str | None:
    """Return the name of the transport that would be used now; as `get_start_method`."""
    if allow_none:
        chosen = _own().chosen("transport")
        return None if chosen is None else chosen[0]
    return _own().resolve("transport")[0]


if TYPE_CHECKING:

    @overload
    def get_serializer(allow_none: Literal[False] = False) -> str: ...
    @overload
    def get_serializer(allow_none: bool) -> str | None: ...


def get_serializer(allow_none: bool = False) -> str | None:
    """Return the name of the serializer that would be used now; as `get_start_method`."""
    if allow_none:
        chosen = _own().chosen("serializer")
        return None if chosen is None else chosen[0]
    return _own().resolve("serializer")[0]


def get_all_start_methods() -> list[str]:
    """Return the start methods that can be used here, the built-in default first.

    The order is that of the documented defaults (forkserver, spawn, fork), followed by
    others by name; what is set or configured does not change it. Every installed start
    method is imported to find out; those that cannot be used are left out.
    """
    return _own().available("start_method")


def get_all_transports() -> list[str]:
    """Return the transports that can be used here; as `get_all_start_methods`."""
    return _own().available("transport")


def get_all_serializers() -> list[str]:
    """Return the serializers that can be used here; as `get_all_start_methods`."""
    return _own().available("serializer")


def set_plugins(names: Iterable[str] | None) -> None:
    """Switch on the plugins *names*, and no others, for children of this process.

    Their own children have them, too. None takes it back, so that the parent process, the
    environment or the configuration decides again; an empty list switches all off.

    Raises ValueError (`UnknownPluginError`, ...) at once for a plugin that cannot be had.
    """
    _own().set_plugins(names)


def get_plugins() -> tuple[str, ...]:
    """Return the names of the plugins that are switched on.

    Raises ValueError (`ConfigurationError`) if the configuration file is wrong.
    """
    return _own().plugins()[0]


def use(
    *,
    start_method: str | None = None,
    transport: str | None = None,
    serializer: str | None = None,
) -> Scope:
    """Choose for a ``with`` block only, in this thread or asyncio task only.

    ::

        with use(start_method="spawn", transport="pipe"):
            ...

    Wins over what is set; scopes nest, and what is left out stays as it is outside.
    Raises ValueError (`UnknownPluginError`, ...) at once for a name that cannot be used.
    """
    return _own().use(
        {"start_method": start_method, "transport": transport, "serializer": serializer}
    )


def selection() -> Selection:
    """Return the start method, transport and serializer that would be used now, and why.

    Raises what `get_start_method` and `get_transport` raise.
    """
    return _own().selection()


# -- for the rest of core ----------------------------------------------------------------


def registry() -> Registry:
    """Return the registry of this process."""
    return _own().registry


def load_start_method(name: str | None = None) -> type[StartMethod]:
    """Return the class of a start method, or of the selected one."""
    return _own().load("start_method", name)


def load_transport(name: str | None = None) -> type[Transport]:
    """Return the class of a transport, or of the selected one."""
    return _own().load("transport", name)


def encoder(serializer: str | None = None) -> Encoder | None:
    """Return what pickles by a serializer, or by the selected one; None for `pickle` itself."""
    return _own().encoder(serializer)


def load_pair(
    start_method: str | None = None, transport: str | None = None
) -> tuple[type[StartMethod], type[Transport]]:
    """Return the classes of both; raise `IncompatiblePluginsError` if they cannot work."""
    return _own().load_pair(start_method, transport)


def load_for_messages() -> tuple[type[Transport], Encoder | None]:
    """Return what a pipe or queue made now uses: the transport, and what pickles."""
    return _own().load_for_messages()


def negotiate(start_method: type[StartMethod], transport: type[Transport], /) -> None:
    """Raise `IncompatiblePluginsError` if the two cannot work together."""
    _own().negotiate(start_method, transport)


def plugins() -> tuple[tuple[str, ...], str, str]:
    """Return the plugins that are switched on, the source of that, and the detail."""
    return _own().plugins()


def settings() -> Settings | None:
    """Return what the configuration file says, if there is one.

    Raises `ConfigurationError` if it is wrong.
    """
    return _own().read_configuration()


def bequest(*, to_copy: bool = False) -> Bequest:
    """Return what a child of this process inherits of its selection, ready to be pickled.

    *to_copy*: a child that is a copy of this process.
    """
    return _own().bequest(to_copy=to_copy)


def inherit(bequest: Bequest, /) -> None:
    """Begin this child's selection with its parent's; call it before any user code runs."""
    _own().inherit(bequest)


def begin_anew(bequest: Bequest, /) -> Callable[[], None]:
    """Have a selection that begins with *bequest*, as a child's does; for tests.

    Returns what brings back the one that there was. Neither is for several threads at once.
    """
    global _selector
    outer, leave = _own(), no_scope()
    _selector = Selector()
    _selector.inherit(bequest)

    def restore() -> None:
        global _selector
        _selector = outer
        leave()

    return restore


def _own() -> Selector:
    """Return the selector, begun anew if this process is a child that has not asked yet."""
    bequest = inheritance.bequest
    if bequest is not None:
        inheritance.bequest = None
        _selector.inherit(bequest)
    return _selector
