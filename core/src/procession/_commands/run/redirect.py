"""The import hook by which ``multiprocessing`` means procession in a program.

Who imports `multiprocessing` gets a *facade*: a module without contents, which looks each name up
when it is asked for, and looks at who asks. The program, and the standard library on its behalf
(logging asks for the name of the process), get procession's. Code that is made of the insides of
the standard package gets the standard package's: the package itself, `concurrent.futures`, and
installed libraries, which go on as without us.

The standard package is loaded when somebody gets something of it, under names in `sys.modules`
that nobody else uses; the modules themselves have their own names, and import each other through
the facades.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib import ModuleSpec, module_from_spec
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType, ModuleType
    from typing import Any
else:
    ModuleType = type(sys)

__all__ = ["bootstrap", "install", "kept_as", "standard_module"]

_PACKAGE = "multiprocessing"
_INSIDE = f"{_PACKAGE}."
#: Before the names under which the standard modules are kept. There is no dot in the whole name,
#: which would make it that of a submodule.
_STANDARD = "<standard library>:"
_STANDARD_LIBRARY = os.path.dirname(os.__file__)

#: Packages that mean the standard package wherever they are installed.
_KNOWING = frozenset({_PACKAGE, "procession"})
_EXECUTORS = "concurrent.futures"
#: Folders of installed libraries.
_LIBRARIES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
_IMPORT_SYSTEM = "<frozen importlib._bootstrap"

#: The one finder, once it is installed.
_finder: Finder | None = None


class Finder:
    """Finds the facades, for everybody, and the standard modules, for the facades.

    *own*: installed packages that are part of the program nevertheless. Threads: any; the import
    system's own locks see to it that each module is executed once. Fork: a forked child goes on.
    """

    def __init__(self, own: Sequence[str]) -> None:
        self.own = tuple(own)
        self._knows: dict[tuple[object, str], bool] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        """Return what `name` is imported by; None for what does not concern us.

        Raises ImportError when the program asks for what has no counterpart.
        """
        if name.startswith(_INSIDE):
            found = _find_standard(name)
            if not self.means_standard(sys._getframe(1)):
                from procession._commands.run.counterparts import check_import

                check_import(name.removeprefix(_INSIDE), exists=found is not None)
            return None if found is None else _facade_spec(name, found)
        if name == _PACKAGE:
            found = _find_standard(name)
            return None if found is None else _facade_spec(name, found)
        if name.startswith(_STANDARD):
            found = _find_standard(name.removeprefix(_STANDARD).replace(":", "."))
            if found is not None:
                loader: Any = _StandardLoader(found)
                return ModuleSpec(name, loader)
        return None

    def means_standard(self, frame: FrameType | None) -> bool:
        """Return whether the standard package is meant by the code in *frame*.

        Of the import system's, that of who imports.
        """
        while frame is not None and frame.f_code.co_filename.startswith(_IMPORT_SYSTEM):
            frame = frame.f_back
        if frame is None:  # C code that embeds the interpreter
            return False
        who = frame.f_globals.get("__name__"), frame.f_code.co_filename
        known = self._knows.get(who)
        if known is None:
            known = self._knows[who] = self._ask(str(who[0]), who[1])
        return known

    def _ask(self, module: str, file: str) -> bool:
        package = module.partition(".")[0]
        if package in self.own:
            return False
        if package in _KNOWING or module.startswith(_EXECUTORS):
            return True
        return any(folder in file for folder in _LIBRARIES)


class Facade(ModuleType):
    """What `sys.modules` has for multiprocessing, or for a module of it."""

    def __getattr__(self, name: str) -> Any:
        """Return what *name* means to who asks. Raises AttributeError, which says what to use."""
        assert _finder is not None
        if name.startswith("__") and name != "__all__":
            # What the import system, and others, ask every module for.
            raise AttributeError(f"module {self.__name__!r} of procession has no {name}")
        if _finder.means_standard(sys._getframe(1)):
            standard = standard_module(self.__name__)
            # Submodules that the standard one has imported meanwhile have been bound to this.
            return vars(self)[name] if name in vars(self) else getattr(standard, name)
        from procession._commands.run.counterparts import find

        return find(self.__name__.removeprefix(_PACKAGE).removeprefix("."), name)

    def __setattr__(self, name: str, value: object) -> None:
        """Change the standard module, for who means that; otherwise what the program finds."""
        frame = sys._getframe(1)
        binds_submodule = frame.f_code.co_filename.startswith(_IMPORT_SYSTEM)
        if binds_submodule or _finder is None or not _finder.means_standard(frame):
            super().__setattr__(name, value)
        else:
            setattr(standard_module(self.__name__), name, value)

    def __dir__(self) -> list[str]:
        """Return the names that the program finds."""
        from procession._commands.run.counterparts import names

        return sorted({*vars(self), *names(self.__name__.removeprefix(_PACKAGE).removeprefix("."))})


class _FacadeLoader:
    @staticmethod
    def create_module(spec: ModuleSpec) -> Facade:
        return Facade(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Do nothing: a facade has no contents."""


class _StandardLoader:
    """Loads a module of the standard package, which *spec* describes, under another name."""

    def __init__(self, spec: ModuleSpec) -> None:
        self._spec = spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return module_from_spec(self._spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = spec = self._spec
        assert spec.loader is not None
        # By this, other threads that import the module see that it is not ready yet.
        spec._initializing = True  # type: ignore[attr-defined]
        try:
            spec.loader.exec_module(module)
        finally:
            spec._initializing = False  # type: ignore[attr-defined]
        if spec.name == "multiprocessing.spawn":
            _take_along(module)


def install(*own: str) -> None:
    """Let ``multiprocessing`` mean procession in this process, and in its children.

    *own*: top-level packages that are part of the program although they are installed like
    libraries. Idempotent.
    """
    global _finder
    if _finder is not None:
        return
    _finder = Finder(own)
    sys.meta_path.insert(0, _finder)
    # What was imported already goes behind facades: parents first, for the binding.
    for name in sorted(sys.modules):
        if name == _PACKAGE or name.startswith(_INSIDE):
            _hide(name)


def bootstrap() -> str:
    """Return the statement that installs this in a fresh interpreter; "" if it is not installed."""
    if _finder is None:
        return ""
    return f"from {__name__} import install; install{_finder.own!r}; "


def kept_as(name: str) -> str:
    """Return where in `sys.modules` the standard module *name* is, once it is loaded."""
    return name if _finder is None else _STANDARD + name.replace(".", ":")


def _hide(name: str) -> None:
    """Put a facade before a standard module that was imported before us."""
    standard = sys.modules[name]
    spec = standard.__spec__
    if spec is None:
        return
    sys.modules[kept_as(name)] = standard
    facade = module_from_spec(_facade_spec(name, spec))
    sys.modules[name] = facade
    parent, _, child = name.rpartition(".")
    if parent:
        ModuleType.__setattr__(sys.modules[parent], child, facade)


def _facade_spec(name: str, standard: ModuleSpec) -> ModuleSpec:
    loader: Any = _FacadeLoader
    spec = ModuleSpec(name, loader, origin="procession", is_package=True)
    # Also of those that are no packages: what cannot be imported *from* them is asked for as a
    # submodule, and that is where we can say why.
    spec.submodule_search_locations = list(standard.submodule_search_locations or ())
    return spec


def _find_standard(name: str) -> ModuleSpec | None:
    folder = os.path.join(_STANDARD_LIBRARY, *name.split(".")[:-1])
    return PathFinder.find_spec(name, [folder])


def standard_module(name: str) -> ModuleType:
    """Return the standard module *name*, imported by now."""
    return __import__(kept_as(name))


class _Passenger:
    """Pickled, this installs the redirect where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        assert _finder is not None
        return install, _finder.own


def _take_along(spawn: Any) -> None:
    """Have fresh interpreters that the standard package starts do the same.

    They unpickle a mapping before they import the main module, and look at the entries that they
    know.
    """
    plain = spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {**plain(name), "procession": _Passenger()}

    spawn.get_preparation_data = get_preparation_data
