"""Whether the standard library's `multiprocessing` is loaded, and learning when it comes to be.

Nothing of it is imported here or anywhere else in procession. Where a program has loaded it,
or comes to load it, the modules of `_standard` keep the two packages in step; where it does
not, this module is all that there is, and costs a child some lines.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_PACKAGE = "multiprocessing"

#: Whether the standard package is loaded and kept in step with procession.
followed = False
#: What the parent of a fresh interpreter said of its own; see `state.bequest`.
bequest: Mapping[str, Any] | None = None
_watching = False


def module(name: str) -> Any:
    """Return the module *name* of the standard package if it was loaded, and None otherwise."""
    return sys.modules.get(_kept_as(name))


def _kept_as(name: str) -> str:
    # Under ``procession run``, what is under their own names stands for procession.
    redirect = sys.modules.get("procession._commands.run.redirect")
    found: str = name if redirect is None else redirect.kept_as(name)
    return found


def is_loaded() -> bool:
    """Return whether this process has loaded the standard package, as far as its contexts.

    Another module under its name does not count, nor one that is just being imported.
    """
    return hasattr(module("multiprocessing.context"), "set_spawning_popen")  # defined last


def reducers() -> Mapping[type, Callable[[Any], Any]]:
    """Return what is registered with the package's pickler; nothing where it is not loaded."""
    pickler = getattr(module("multiprocessing.reduction"), "ForkingPickler", None)
    found: Mapping[type, Callable[[Any], Any]] = getattr(pickler, "_extra_reducers", {})
    return found


def watch() -> None:
    """Keep the standard package in step from now on; if it is not loaded, once it is.

    Called when this process does the first thing that the package would have to know of:
    it starts a child, is one, or makes a connection or queue. Threads: any; twice is once.
    """
    global _watching
    if followed:
        return
    if is_loaded():
        _follow(fresh=False)
    elif not _watching:
        _watching = True
        _Finder.package = _kept_as(_PACKAGE)
        sys.meta_path.insert(0, _Finder)


def adopt(told: Mapping[str, Any] | None) -> None:
    """Begin, in a fresh interpreter, with what its parent has *told* it."""
    global bequest
    bequest = told
    if is_loaded():
        _follow(fresh=True)
    else:
        watch()


def _follow(*, fresh: bool) -> None:
    from procession._standard import state

    state.follow(fresh=fresh)


class _Finder:
    """Finds nothing, but has the standard package followed once it was imported."""

    package = _PACKAGE

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to load the standard package; None for everything else."""
        if name != cls.package:
            return None
        for finder in sys.meta_path:
            if finder is not cls:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    if spec.loader is not None:
                        loader: Any = _Loader(spec, spec.loader)
                        spec.loader = loader
                    return spec
        return None


class _Loader:
    """Loads one module as its own loader does, then leaves no trace of itself."""

    def __init__(self, spec: ModuleSpec, loader: Loader) -> None:
        self._spec = spec
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        """Return what else the loader has, for who looks at it only."""
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See `importlib.abc.Loader`."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """See `importlib.abc.Loader`."""
        self._spec.loader = module.__dict__["__loader__"] = self._loader
        self._loader.exec_module(module)
        if _Finder in sys.meta_path:
            sys.meta_path.remove(_Finder)
        if is_loaded():
            _follow(fresh=True)
