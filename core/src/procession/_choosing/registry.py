"""Plugins by name: which there are, and their classes, checked.

Listing reads metadata and imports nothing. A plugin is imported when its name is
first used, alone: whatever is wrong with another one does not matter then. pluggy's
own entry-point loader is not used, because it imports everything that is installed,
stops at the first plugin that is broken and keeps the first of two that claim one name.

In a child, which must not pay for scanning, `Registry.adopt` takes over what the parent
has found: this module imports the standard library's cheapest modules only, and the
rest inside the functions that need it.
"""

from __future__ import annotations

import sys

from procession.errors import (
    DuplicatePluginError,
    NoPluginError,
    PluginContractError,
    PluginError,
    PluginLoadError,
    PluginUnavailableError,
    UnknownPluginError,
)

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType
    from typing import Any, Final, Literal, TypeAlias, overload

    from pluggy import PluginManager

    from procession._choosing.installed import Claimant, InstalledPlugin, Inventory
    from procession._contracts.primitives import Primitive
    from procession._contracts.serializer import Serializer
    from procession._contracts.start_method import StartMethod
    from procession._contracts.transport import Transport

    # The kinds of plugin, as they are called in Python names.
    Kind: TypeAlias = Literal["start_method", "transport", "serializer", "primitive", "plugin"]
    # Loaded plugins for another process: kind and name to "module:qualified.name".
    Roster: TypeAlias = dict[tuple[Kind, str], str]

__all__ = ["KINDS", "NOUNS", "OURS", "Registry"]

KINDS: Final[tuple[Kind, ...]] = ("start_method", "transport", "serializer")
"""The kinds that users select one of, per program or per context."""

NOUNS: Final[dict[Kind, str]] = {
    "start_method": "start method",
    "transport": "transport",
    "serializer": "serializer",
    "primitive": "primitive",
    "plugin": "plugin",
}
"""The kinds, as they are called in sentences."""

OURS: Final[dict[Kind, tuple[str, ...]]] = {
    "start_method": ("forkserver", "spawn", "fork"),
    "transport": ("pipe", "socketpair", "ring", "tcp"),
    "serializer": ("cloudpickle",),
    "primitive": ("ring",),
    "plugin": ("seeds", "logging", "coverage"),
}
"""The names for which there is a distribution ``procession-<name>`` to suggest."""


#: What core has itself, without a distribution of its own.
_BUILT_IN: Final[Roster] = {("serializer", "pickle"): "procession._contracts.plain_pickle:Pickle"}


class Registry:
    """The plugins of this process.

    Threads may use one registry at the same time. There is no lock in it, which a fork
    could copy while it is held or which could deadlock with the import system: two
    threads that load the same plugin at once both go all the way, and then get the same
    class. A plugin that fails is not remembered, and is tried again when it is asked for
    again. Nothing in it needs closing, and a forked copy goes on working.
    """

    def __init__(self) -> None:
        self._classes: dict[tuple[Kind, str], type[Any]] = {}
        self._roster: Roster = dict(_BUILT_IN)
        self._bequeathed: Roster | None = None
        self._hooks: dict[str, PluginManager] = {}
        self._inventory: tuple[tuple[str, ...], Inventory] | None = None

    # -- listing -----------------------------------------------------------------------

    def installed(self, kind: Kind) -> list[InstalledPlugin]:
        """Return what is installed, by name, as the metadata says now. Imports nothing."""
        inventory = self._look(again=True)
        return [inventory.plugins[kind, name] for name in inventory.names(kind)]

    def names(self, kind: Kind) -> list[str]:
        """Return the names that are installed or were adopted, sorted. Imports nothing."""
        adopted = {name for a_kind, name in self._roster if a_kind == kind}
        return sorted(adopted.union(self._look().names(kind)))

    def check_name(self, kind: Kind, name: str, *, source: str = "") -> None:
        """Raise what `load` would raise for a name that cannot be used. Imports nothing.

        Raises `UnknownPluginError`, `DuplicatePluginError`, or TypeError for what is not
        a name at all.
        """
        self._check_type(kind, name, source)
        if (kind, name) not in self._classes and (kind, name) not in self._roster:
            self._claimant(kind, name, source)

    # -- loading -----------------------------------------------------------------------

    if TYPE_CHECKING:

        @overload
        def load(
            self, kind: Literal["start_method"], name: str, *, source: str = ""
        ) -> type[StartMethod]: ...
        @overload
        def load(
            self, kind: Literal["transport"], name: str, *, source: str = ""
        ) -> type[Transport]: ...
        @overload
        def load(
            self, kind: Literal["serializer"], name: str, *, source: str = ""
        ) -> type[Serializer]: ...
        @overload
        def load(
            self, kind: Literal["primitive"], name: str, *, source: str = ""
        ) -> type[Primitive]: ...
        @overload
        def load(self, kind: Kind, name: str, *, source: str = "") -> type[Any]: ...

    def load(self, kind: Kind, name: str, *, source: str = "") -> type[Any]:
        """Return the class of a plugin, importing it if this is its first use.

        *source* says who chose the name, for messages: a name that nobody has is most
        often a typing error in some file or variable, which should be named.

        Raises `UnknownPluginError`, `DuplicatePluginError`, `PluginLoadError`,
        `PluginContractError` or `PluginUnavailableError`; TypeError for what is not a
        name at all. Nothing is remembered then, but modules that were imported stay.
        """
        self._check_type(kind, name, source)
        loaded = self._classes.get((kind, name))
        if loaded is not None:
            return loaded
        adopted = self._roster.get((kind, name))
        if adopted is not None:
            found = _import_adopted(kind, name, adopted)
        else:
            found = _load_claimant(kind, name, self._claimant(kind, name, source), source)
        # One atomic step decides between threads that got here at the same time.
        found = self._classes.setdefault((kind, name), found)
        self._roster.setdefault((kind, name), f"{found.__module__}:{found.__qualname__}")
        return found

    def problem(self, kind: Kind, name: str) -> PluginError | None:
        """Return why a plugin cannot be used, or None if it can. Imports the plugin."""
        try:
            if kind == "plugin":
                self.load_hooks(name)
            else:
                self.load(kind, name)
        except PluginError as error:
            return error
        return None

    def load_hooks(self, name: str, *, source: str = "") -> PluginManager:
        """Return a manager with the hooks of the plugin *name*, which is imported for it.

        Raises what `load` raises.
        """
        self._check_type("plugin", name, source)
        loaded = self._hooks.get(name)
        if loaded is not None:
            return loaded
        claimant = self._claimant("plugin", name, source)
        subject = f"{_subject('plugin', name, source)} from {claimant}"
        hooks = _import_hooks("plugin", name, claimant, subject)
        manager = _manage("plugin", name, hooks, subject)
        if not manager.get_hookcallers(hooks):
            raise PluginContractError(
                f"{subject} breaks the contract: {hooks!r} implements no hook; mark its functions "
                f"with @procession.plugin.hookimpl",
                kind="plugin",
                plugin=name,
            )
        return self._hooks.setdefault(name, manager)

    # -- from parent to child ----------------------------------------------------------

    def roster(self) -> Roster:
        """Return what has been loaded (or adopted) and checked, ready to be pickled."""
        found = self._bequeathed
        # Nothing is ever taken out of the roster; what `adopt` changes in it, it says.
        if found is None or len(found) != len(self._roster) - len(_BUILT_IN):
            roster = dict(self._roster)
            found = {plugin: roster[plugin] for plugin in roster if plugin not in _BUILT_IN}
            self._bequeathed = found
        return found

    def adopt(self, roster: Mapping[tuple[Kind, str], str], /) -> None:
        """Take over the roster of another process.

        The names in it are imported without a look at the metadata, without pluggy, and
        without the checks that the other process has made. Names that it lacks are found
        in the ordinary way.
        """
        self._roster.update(roster)
        self._bequeathed = None

    # -- finding -----------------------------------------------------------------------

    def _look(self, *, again: bool = False) -> Inventory:
        path = tuple(sys.path)
        if again or self._inventory is None or self._inventory[0] != path:
            from procession._choosing.installed import take_inventory

            self._inventory = (path, take_inventory())
        return self._inventory[1]

    def _claimant(self, kind: Kind, name: str, source: str) -> Claimant:
        plugin = self._look().plugins.get((kind, name))
        if plugin is None:  # it may have been installed a moment ago
            plugin = self._look(again=True).plugins.get((kind, name))
        if plugin is None:
            raise self._unknown(kind, name, source)
        if len(plugin.claimants) > 1:
            claims = ", ".join(f"{who} ({who.module})" for who in plugin.claimants)
            raise DuplicatePluginError(
                f"{_subject(kind, name, source)} is claimed more than once: by {claims}; "
                "uninstall all but one",
                kind=kind,
                plugin=name,
            )
        return plugin.claimants[0]

    def _unknown(self, kind: Kind, name: str, source: str) -> UnknownPluginError:
        from difflib import get_close_matches

        noun = NOUNS[kind]
        names = self.names(kind)
        message = f"there is no {noun} {name!r}{_by(source)}"
        for other in KINDS:
            if other != kind and name in self.names(other):
                message += f" ({name!r} is a {NOUNS[other]})"
        if name in OURS[kind]:
            message += f"; install it with: {_pip(name)}"
        elif near := get_close_matches(name.lower(), [*names, *OURS[kind]], n=1):
            message += f"; did you mean {near[0]!r}?"
            if near[0] not in names:
                message += f" ({_pip(near[0])})"
        listing = ", ".join(map(repr, names)) if names else "none"
        message += f"; installed: {listing}"
        for trouble in self._look().unreadable:
            message += f"; the entry points of {trouble} cannot be read"
        error = UnknownPluginError if names else NoPluginError
        return error(message, kind=kind, plugin=name)

    @staticmethod
    def _check_type(kind: Kind, name: object, source: str) -> None:
        if not isinstance(name, str):
            hint = ""
            own_name = getattr(name, "name", None)
            if isinstance(own_name, str):
                hint = f"; pass its name, {own_name!r}"
            raise TypeError(
                f"a {NOUNS[kind]} is chosen by its name, a str, not by {name!r}{_by(source)}{hint}"
            )


def _load_claimant(kind: Kind, name: str, claimant: Claimant, source: str) -> type[Any]:
    """Import one plugin inside an error boundary, call its hook and check what it gives."""
    subject = f"{_subject(kind, name, source)} from {claimant}"
    hooks = _import_hooks(kind, name, claimant, subject)
    offered = _check_class(kind, name, _call_hook(kind, name, hooks, subject), subject)
    try:
        reason = offered.unavailable()
    except Exception as error:
        raise PluginLoadError(
            f"{subject} failed when it was asked whether it can work here: {_describe(error)}",
            kind=kind,
            plugin=name,
        ) from error
    if reason is None:
        return offered
    if not isinstance(reason, str):
        raise PluginContractError(
            f"{subject} breaks the contract: unavailable() must return a reason or None, "
            f"not {reason!r}",
            kind=kind,
            plugin=name,
        )
    raise PluginUnavailableError(f"{subject} cannot work here: {reason}", kind=kind, plugin=name)


def _import_hooks(kind: Kind, name: str, claimant: Claimant, subject: str) -> Any:
    """Import what the entry point of a plugin names."""
    try:
        return _resolve(claimant.module)
    except (Exception, SystemExit) as error:
        raise PluginLoadError(
            f"{subject} cannot be imported ({claimant.module}): {_describe(error)}",
            kind=kind,
            plugin=name,
        ) from error


def _resolve(value: str) -> Any:
    """Import what an entry point's value names: ``module``, or ``module:attribute``."""
    module, _, attributes = value.partition(":")
    found: Any = _import_module(module.strip())
    for attribute in attributes.strip().split(".") if attributes.strip() else ():
        found = getattr(found, attribute)
    return found


def _call_hook(kind: Kind, name: str, hooks: ModuleType | Any, subject: str) -> Any:
    """Call the hook for this kind; pluggy checks the hooks of the plugin first if need be."""
    from procession._contracts.hookimpl import plain_hook

    hook_name = f"procession_{kind}"
    hook = plain_hook(hooks, hook_name) or _checked_hook(kind, name, hooks, hook_name, subject)
    try:
        return hook()
    except (Exception, SystemExit) as error:
        raise PluginLoadError(
            f"the hook {hook_name!r} of {subject} failed: {_describe(error)}",
            kind=kind,
            plugin=name,
        ) from error


def _manage(kind: Kind, name: str, hooks: ModuleType | Any, subject: str) -> PluginManager:
    """Return a plugin manager with the hooks of one plugin, checked.

    Each plugin gets one of its own, so that a broken one can neither be called together
    with the others nor have to be removed again.
    """
    import pluggy

    from procession._contracts import hookspecs
    from procession._contracts.hookimpl import PROJECT

    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(hooks, name)
        manager.check_pending()
    except Exception as error:  # PluginValidationError, or what odd objects make of getattr
        raise PluginContractError(
            f"{subject} breaks the contract: {_describe(error)}", kind=kind, plugin=name
        ) from error
    return manager


def _checked_hook(
    kind: Kind, name: str, hooks: ModuleType | Any, hook_name: str, subject: str
) -> Callable[[], Any]:
    """Have pluggy check the hooks of one plugin, and return what calls one of them."""
    manager = _manage(kind, name, hooks, subject)
    caller = getattr(manager.hook, hook_name)
    if not caller.get_hookimpls():
        message = f"{subject} breaks the contract: {hooks!r} implements no hook {hook_name!r}"
        if hasattr(hooks, hook_name):
            message += "; mark the function with @procession.plugin.hookimpl"
        raise PluginContractError(message, kind=kind, plugin=name)

    def call() -> Any:
        results = caller()
        return results[0] if results else None  # pluggy leaves out results that are None

    return call


def _check_class(kind: Kind, name: str, offered: Any, subject: str) -> type[Any]:
    """Return *offered* if it is a class as the contract asks for it.

    Raises `PluginContractError` otherwise.
    """
    from procession._contracts.features import SerializerFeatures, StartFeatures, TransportFeatures
    from procession._contracts.primitives import Primitive
    from procession._contracts.serializer import Serializer
    from procession._contracts.start_method import StartMethod
    from procession._contracts.transport import Transport

    contracts: dict[Kind, tuple[type, type | None]] = {
        "start_method": (StartMethod, StartFeatures),
        "transport": (Transport, TransportFeatures),
        "serializer": (Serializer, SerializerFeatures),
        "primitive": (Primitive, None),
    }
    contract, features = contracts[kind]
    complaint = ""
    if not isinstance(offered, type):
        complaint = f"its hook must return a class, not {offered!r}"
    elif not issubclass(offered, contract):
        complaint = f"{_path(offered)} is no subclass of {contract.__name__}"
    elif missing := sorted(getattr(offered, "__abstractmethods__", ())):
        complaint = f"{_path(offered)} lacks {', '.join(missing)}"
    elif getattr(offered, "name", None) != name:
        complaint = (
            f"{_path(offered)}.name must be the entry point's {name!r}, "
            f"not {getattr(offered, 'name', None)!r}"
        )
    elif features and not isinstance(getattr(offered, "features", None), features):
        complaint = f"{_path(offered)}.features must be a {features.__name__}"
    elif _find(offered.__module__, offered.__qualname__) is not offered:
        complaint = f"{_path(offered)} cannot be imported by that name, as children must"
    if complaint:
        raise PluginContractError(
            f"{subject} breaks the contract: {complaint}", kind=kind, plugin=name
        )
    checked: type[Any] = offered
    return checked


def _import_adopted(kind: Kind, name: str, location: str) -> type[Any]:
    """Import a class that another process has found and checked."""
    module, _, qualified_name = location.partition(":")
    try:
        _import_module(module)
        found = _find(module, qualified_name)
    except (Exception, SystemExit) as error:
        raise PluginLoadError(
            f"{NOUNS[kind]} {name!r}, which the parent process found at {location}, cannot be "
            f"imported here: {_describe(error)}",
            kind=kind,
            plugin=name,
        ) from error
    if not isinstance(found, type):
        raise PluginLoadError(
            f"{NOUNS[kind]} {name!r} is not at {location} here, where the parent process found it",
            kind=kind,
            plugin=name,
        )
    return found


def _import_module(name: str) -> ModuleType:
    """Import a module as `importlib.import_module` does, which would have to be imported."""
    __import__(name)
    return sys.modules[name]


def _find(module: str, qualified_name: str) -> object:
    """Return what an imported module has under a dotted name, None if it has nothing."""
    found: object = sys.modules.get(module)
    for part in qualified_name.split("."):
        found = getattr(found, part, None)
    return found


def _subject(kind: Kind, name: str, source: str) -> str:
    return f"{NOUNS[kind]} {name!r}{_by(source)}"


def _by(source: str) -> str:
    return f" (chosen by {source})" if source else ""


def _path(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _pip(name: str) -> str:
    return f"pip install procession-{name}"


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
