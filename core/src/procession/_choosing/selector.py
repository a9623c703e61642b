"""How a start method, a transport and a serializer are chosen.

In order of precedence: an argument, the innermost `use` scope, what was set, what the
parent process had selected, the environment, the configuration file, and the first
available one of a documented list. The last step takes, after the list, the only other
plugin that is installed, if there is exactly one: of several strangers none is better
than the others, and the choice is left to the user.

Reading never decides. Every question is answered from the sources as they are at that
moment, and asking for a default does not keep anybody from setting something else.

Used in children too, so that attrs, the configuration reader and the rest are imported
where they are needed: an inherited choice needs none of them.
"""

from __future__ import annotations

import os
import sys
from contextvars import ContextVar

from procession._choosing.registry import KINDS, NOUNS, Registry
from procession._ground.encoder import PICKLE, Encoder
from procession._processes.variables import variables
from procession.errors import NoPluginError, ProcessError, SelectionError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Final, TypeAlias, TypedDict

    from procession._choosing.choice import Selection
    from procession._choosing.configuration import ConfigurationReader, Settings
    from procession._choosing.registry import Kind, Roster
    from procession._contracts.start_method import StartMethod
    from procession._contracts.transport import Transport

    # A name, its source and the detail: what a `Choice` is made of.
    Reason: TypeAlias = tuple[str, str, str]
    # Reads the configuration.
    Read: TypeAlias = Callable[[], Settings | None]

    class Bequest(TypedDict):
        """What a child gets of its parent's selection; plain values, to be pickled."""

        #: None where nobody has chosen: the default, which the child finds if it needs it.
        names: dict[Kind, str | None]
        roster: Roster
        plugins: tuple[str, ...]


__all__ = ["DEFAULTS", "VARIABLES", "Scope", "Selector"]

DEFAULTS: Final[dict[Kind, tuple[str, ...]]] = {
    "start_method": ("forkserver", "spawn", "fork"),  # safety outranks speed
    "transport": ("pipe", "socketpair"),
    "serializer": (PICKLE,),
}
"""What is taken when nobody has chosen: the first that is available."""

VARIABLES: Final[dict[Kind, str]] = {
    "start_method": "PROCESSION_START_METHOD",
    "transport": "PROCESSION_TRANSPORT",
    "serializer": "PROCESSION_SERIALIZER",
}
"""The environment variables that choose. An empty one counts as not set."""

PLUGINS_VARIABLE: Final = "PROCESSION_PLUGINS"
"""Switches plugins on, by their names with commas in between."""

# All that the selection rests on.
_VARIABLES: Final = (*VARIABLES.values(), PLUGINS_VARIABLE, "PROCESSION_CONFIG")

_scope: ContextVar[Mapping[Kind, Reason]] = ContextVar("procession.selection", default={})  # noqa: B039
# Never changed in place: a scope replaces the mapping, so that contexts cannot mix.


class Scope:
    """A ``with`` block in which a start method, a transport or both are chosen.

    Scopes nest; an inner one that leaves a kind open leaves the outer choice in force.
    A scope belongs to the thread or asyncio task that enters it, and reaches the tasks
    that are created inside it; a thread started inside begins without it, except where
    the interpreter hands contexts on to threads (free-threaded builds do). One object can
    be used several times, but not while it is in use.
    """

    __slots__ = ("_names", "_outer", "_where")

    def __init__(self, names: Mapping[Kind, str]) -> None:
        self._names = names
        self._where = f"use() at {_caller()}"
        self._outer: Mapping[Kind, Reason] | None = None

    def __enter__(self) -> None:
        if self._outer is not None:
            raise SelectionError("this scope is in use already; call use() for each with block")
        self._outer = outer = _scope.get()
        inner: dict[Kind, Reason] = dict(outer)
        for kind, name in self._names.items():
            inner[kind] = (name, "scope", self._where)
        _scope.set(inner)

    def __exit__(self, *exception: object) -> None:
        if self._outer is not None:
            _scope.set(self._outer)
            self._outer = None


def no_scope() -> Callable[[], None]:
    """Leave every scope that this thread or task is in; return what enters them again."""
    outer = _scope.get()
    _scope.set({})

    def enter_again() -> None:
        _scope.set(outer)

    return enter_again


class Selector:
    """The selection of a process: what was set, what was inherited, where else to look.

    A program has one, in `procession._choosing.selection`. Threads may share it: everything that
    changes is replaced in single steps. A forked copy keeps the parent's state until
    `inherit` makes it the child's.
    """

    def __init__(
        self, registry: Registry | None = None, *, environ: Mapping[str, str] | None = None
    ) -> None:
        self.registry = Registry() if registry is None else registry
        self._environ: Mapping[str, str] = os.environ if environ is None else environ
        self._set: dict[Kind, Reason] = {}
        self._inherited: dict[Kind, Reason] = {}
        # For which kinds the parent had the default, as long as nobody has asked here.
        self._left_open: frozenset[Kind] = frozenset()
        self._configuration: ConfigurationReader | None = None
        # The last default, with the installed names that it was found among: whether a
        # plugin can work here may be expensive to find out, and a queue asks every time.
        self._defaults: dict[Kind, tuple[list[str], Reason]] = {}
        # What was last bequeathed, with what it rested on.
        self._bequeathed: tuple[tuple[Any, ...], Bequest] | None = None
        # The plugins that are switched on here, and those that are in the parent.
        self._set_plugins: tuple[tuple[str, ...], str] | None = None
        self._inherited_plugins: tuple[str, ...] | None = None

    # -- choosing ----------------------------------------------------------------------

    def set(self, kind: Kind, name: str | None, *, force: bool = False) -> None:
        """Choose for the whole process; None, with *force*, takes the choice back.

        Raises `SelectionError`, a RuntimeError, if there is a choice already and no
        *force*, and whatever `Registry.load` raises for a name that cannot be used. The
        choice is as before then.
        """
        if name is None:
            if kind in self._set and not force:
                raise self._set_already(kind)
            self._set.pop(kind, None)
            return
        if kind in self._set and not force:
            raise self._set_already(kind)
        self.registry.load(kind, name)
        reason = (name, "set", f"set_{kind}() at {_caller()}")
        if force:
            self._set[kind] = reason
        elif self._set.setdefault(kind, reason) is not reason:  # another thread was faster
            raise self._set_already(kind)

    def use(self, names: Mapping[Kind, str | None]) -> Scope:
        """Return a scope with these choices; None leaves a kind open.

        Raises whatever `Registry.load` raises for a name that cannot be used: here, and
        not when the scope is entered.
        """
        chosen = {kind: name for kind, name in names.items() if name is not None}
        for kind, name in chosen.items():
            self.registry.load(kind, name)
        return Scope(chosen)

    def set_plugins(self, names: Iterable[str] | None) -> None:
        """Switch on these plugins and no others; None takes the choice back.

        Raises what `Registry.load_hooks` raises; what was switched on is as before then.
        """
        if names is None:
            self._set_plugins = None
            return
        if isinstance(names, str):
            raise TypeError(f"a list of names is needed, such as [{names!r}]")
        chosen = tuple(dict.fromkeys(names))
        for name in chosen:
            self.registry.load_hooks(name)
        self._set_plugins = chosen, f"set_plugins() at {_caller()}"

    def plugins(self) -> tuple[tuple[str, ...], str, str]:
        """Return the plugins that are switched on, the source of that, and the detail.

        Raises `ConfigurationError`. That they exist is not checked.
        """
        if self._set_plugins is not None:
            return self._set_plugins[0], "set", self._set_plugins[1]
        if self._inherited_plugins is not None:
            return self._inherited_plugins, "inherited", "from the parent process"
        given = self._environ.get(PLUGINS_VARIABLE)
        if given:
            names = (name.strip() for name in given.split(","))
            return tuple(name for name in names if name), "environment", PLUGINS_VARIABLE
        from procession._choosing.configuration import PLUGINS_KEY

        settings = self.read_configuration()
        if settings is not None and settings.plugins is not None:
            return settings.plugins, "configuration", f"{PLUGINS_KEY} in {settings.file}"
        return (), "default", "none is switched on unless somebody says so"

    # -- asking ------------------------------------------------------------------------

    def chosen(
        self, kind: Kind, argument: str | None = None, read: Read | None = None
    ) -> Reason | None:
        """Return what somebody has chosen, and who; None if nobody has.

        *read* reads the configuration; who asks several questions at once has it read once.

        Raises `UnknownPluginError` or `DuplicatePluginError` for a name that cannot be
        had, `ConfigurationError` for a file that is wrong. Imports no plugin.
        """
        if argument is not None:
            self.registry.check_name(kind, argument)
            return (argument, "argument", "given by the caller")
        reason = self._chosen_here(kind) or self._from_parent(kind)
        if reason is None:
            reason = self._from_environment(kind) or self._from_configuration(kind, read)
            if reason is not None:
                self.registry.check_name(kind, reason[0], source=reason[2])
        return reason

    def _chosen_here(self, kind: Kind) -> Reason | None:
        return _scope.get().get(kind) or self._set.get(kind)

    def resolve(self, kind: Kind, argument: str | None = None, read: Read | None = None) -> Reason:
        """Return what is to be used, and why. Decides nothing.

        As `chosen`; if nobody has chosen, plugins are loaded until one is available.
        Raises `NoPluginError` if none is, and `SelectionError` if several are that are
        not on the list of defaults.
        """
        return self.chosen(kind, argument, read) or self._default(kind)

    def available(self, kind: Kind) -> list[str]:
        """Return the names that can be used here: the documented list, then the others.

        Loads every plugin of the kind that is installed, and leaves out what cannot be
        loaded or cannot work here; `Registry.problem` has the reasons.
        """
        names = self.registry.names(kind)
        known = [name for name in DEFAULTS[kind] if name in names]
        others = [name for name in names if name not in DEFAULTS[kind]]
        return [name for name in known + others if self.registry.problem(kind, name) is None]

    def selection(self) -> Selection:
        """Return the choices with their reasons."""
        from procession._choosing.choice import Choice, Selection

        return Selection(
            start_method=Choice(*self.resolve("start_method")),
            transport=Choice(*self.resolve("transport")),
            serializer=Choice(*self.resolve("serializer")),
        )

    # -- loading -----------------------------------------------------------------------

    def load(self, kind: Kind, argument: str | None = None, read: Read | None = None) -> type[Any]:
        """Return the class of what is to be used.

        Raises what `resolve` and `Registry.load` raise; if the choice was not made in
        the program, the message says where.
        """
        if argument is not None:
            return self.registry.load(kind, argument)
        name, source, detail = self.resolve(kind, None, read)
        blame = detail if source in ("environment", "configuration") else ""
        return self.registry.load(kind, name, source=blame)

    def encoder(self, argument: str | None = None, read: Read | None = None) -> Encoder | None:
        """Return what pickles by the serializer that is to be used; None for `pickle` itself.

        Raises what `load` raises.
        """
        name = self.resolve("serializer", argument, read)[0]
        if name == PICKLE:
            return None
        self.load("serializer", argument, read)
        return Encoder(name)

    def load_pair(
        self,
        start_method: str | None = None,
        transport: str | None = None,
        read: Read | None = None,
    ) -> tuple[type[StartMethod], type[Transport]]:
        """Return the classes of both, after checking that they can work together.

        Raises what `load` raises, and `IncompatiblePluginsError`.
        """
        read = read or _once(self.read_configuration)
        pair = (
            self.load("start_method", start_method, read),
            self.load("transport", transport, read),
        )
        self.negotiate(*pair)
        return pair

    def load_for_messages(self) -> tuple[type[Transport], Encoder | None]:
        """Return what a pipe or queue made now uses: the transport, and what pickles.

        Raises what `load_pair` raises.
        """
        read = _once(self.read_configuration)
        _, transport = self.load_pair(read=read)
        return transport, self.encoder(read=read)

    def negotiate(self, start_method: type[StartMethod], transport: type[Transport]) -> None:
        """Raise `IncompatiblePluginsError` if the two cannot work together."""
        from procession._choosing.negotiation import negotiate

        negotiate(start_method, transport, registry=self.registry)

    # -- from parent to child ----------------------------------------------------------

    def bequest(self, *, to_copy: bool = False) -> Bequest:
        """Return what a child is to inherit: plain values that can be pickled.

        A kind for which the selection fails is left out. The child has the same
        environment and configuration, and meets the same error if it ever needs one.
        *to_copy*: to a copy of this process, which knows what is installed. Which default is
        available is left to it then: to find out, a plugin has to be imported, and most such
        children never need it.
        Raises `ConfigurationError` when the configuration that would say which plugins are
        switched on is wrong: none of them may be missing without a word.
        """
        basis = to_copy, self._basis()
        if self._bequeathed is not None and self._bequeathed[0] == basis:
            return self._bequeathed[1]
        plugins = self.plugins()[0]
        names: dict[Kind, str | None] = {}
        for kind in KINDS:
            try:
                names[kind] = self._name_for_copy(kind) if to_copy else self.resolve(kind)[0]
            except ProcessError:
                continue
        bequest: Bequest = {"names": names, "roster": self.registry.roster(), "plugins": plugins}
        self._bequeathed = (to_copy, self._basis()), bequest
        return bequest

    def _name_for_copy(self, kind: Kind) -> str | None:
        """Return the name that is to be used; None for a default that nobody has asked for."""
        if kind in self._left_open and self._chosen_here(kind) is None:
            return None
        reason = self.chosen(kind) or self._known_default(kind)
        return None if reason is None else reason[0]

    def _basis(self) -> tuple[Any, ...]:
        """Return what the selection rests on, but for the contents of files.

        A process starts many children on the same basis; to look for the configuration
        again each time would cost a fifth of a fork. A file that was edited meanwhile
        counts for the parent at once and for children when something else changes, too.
        """
        try:
            directory = os.getcwd()
        except FileNotFoundError:
            directory = ""
        return (
            directory,
            variables(_VARIABLES, self._environ),
            _scope.get(),
            # Copies, as they are changed in place. Most have made and inherited no choice.
            dict(self._set) if self._set else None,
            dict(self._inherited) if self._inherited else None,
            self._set_plugins,
            self._inherited_plugins,
            self.registry.roster(),
        )

    def inherit(self, bequest: Bequest) -> None:
        """Begin a child's selection with the parent's.

        What a forked child has copied of the parent's choices and scope is dropped, so
        that a child may set its own, whichever way it was started.
        """
        self.registry.adopt(bequest["roster"])
        names = bequest["names"]
        self._inherited = {
            kind: _inherited(name) for kind, name in names.items() if name is not None
        }
        self._left_open = frozenset(kind for kind, name in names.items() if name is None)
        self._set = {}
        self._set_plugins = None
        self._inherited_plugins = tuple(bequest["plugins"])
        _scope.set({})

    # -- the sources -------------------------------------------------------------------

    def _from_parent(self, kind: Kind) -> Reason | None:
        if kind in self._left_open:
            try:
                self._inherited[kind] = _inherited(self._default(kind)[0])
            except ProcessError:
                pass  # there is none, as in the parent: the rest of the sources are asked
            self._left_open -= {kind}
        return self._inherited.get(kind)

    def _from_environment(self, kind: Kind) -> Reason | None:
        variable = VARIABLES[kind]
        name = self._environ.get(variable)
        return (name, "environment", variable) if name else None

    def _from_configuration(self, kind: Kind, read: Read | None) -> Reason | None:
        from procession._choosing.configuration import KEYS

        settings = (read or self.read_configuration)()
        if settings is None or kind not in settings.names:
            return None
        return (settings.names[kind], "configuration", f"{KEYS[kind]} in {settings.file}")

    def read_configuration(self) -> Settings | None:
        """Return what the configuration file says now; see `ConfigurationReader.read`."""
        from procession._choosing.configuration import VARIABLE, ConfigurationReader

        if self._configuration is None:
            self._configuration = ConfigurationReader()
        return self._configuration.read(self._environ.get(VARIABLE))

    def _known_default(self, kind: Kind) -> Reason | None:
        """Return the default, if that needs no plugin to be imported."""
        if kind == "serializer":
            return PICKLE, "default", "built in"
        remembered = self._defaults.get(kind)
        if remembered is None or remembered[0] != self.registry.names(kind):
            return None
        return remembered[1]

    def _default(self, kind: Kind) -> Reason:
        known = self._known_default(kind)
        if known is not None:
            return known
        installed = self.registry.names(kind)
        defaults = DEFAULTS[kind]
        passed: list[str] = []
        for name in defaults:
            if name not in installed:
                passed.append(f"{name} is not installed")
            elif problem := self.registry.problem(kind, name):
                passed.append(str(problem))
            else:
                detail = f"first available of {', '.join(defaults)}"
                return self._remember(kind, installed, (name, "default", _with(detail, passed)))
        others = [name for name in installed if name not in defaults]
        usable = [name for name in others if self.registry.problem(kind, name) is None]
        if len(usable) == 1:
            detail = f"the only {NOUNS[kind]} available"
            return self._remember(kind, installed, (usable[0], "default", _with(detail, passed)))
        if usable:
            raise SelectionError(
                f"several {NOUNS[kind]}s are installed, and none of them is a default: choose "
                f"one of {', '.join(usable)} with set_{kind}() or {VARIABLES[kind]}"
            )
        passed.extend(str(self.registry.problem(kind, name)) for name in others)
        found = "none can be used" if installed else "none is installed"
        raise NoPluginError(
            f"there is no {NOUNS[kind]}: {found}; "
            f"install one with: pip install procession-{defaults[0]}"
            + (f" ({'; '.join(passed)})" if installed else ""),
            kind=kind,
        )

    def _remember(self, kind: Kind, installed: list[str], reason: Reason) -> Reason:
        self._defaults[kind] = (installed, reason)
        return reason

    def _set_already(self, kind: Kind) -> SelectionError:
        # The words before the colon are multiprocessing's.
        name, _, where = self._set[kind]
        return SelectionError(
            f"context has already been set: {NOUNS[kind]} {name!r}, by {where}; "
            "force=True replaces it"
        )


def _inherited(name: str) -> Reason:
    return name, "inherited", "from the parent process"


def _once(read: Read) -> Read:
    """Return what reads the first time it is called, and then remembers."""
    found: list[Settings | None] = []

    def remember() -> Settings | None:
        if not found:
            found.append(read())
        return found[0]

    return remember


def _with(detail: str, passed: list[str]) -> str:
    return f"{detail}; {'; '.join(passed)}" if passed else detail


def _caller() -> str:
    """Where, outside of procession, the call was made."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module = frame.f_globals.get("__name__", "")
        if module != "procession" and not module.startswith("procession."):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
