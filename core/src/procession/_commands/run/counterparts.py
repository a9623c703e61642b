"""What procession has for a name of multiprocessing, and what to say where it has nothing."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["check_import", "find", "names"]

# The modules that are called the same, the package itself first.
_SAME = (
    *("", "connection", "context", "managers", "pool", "process", "queues"),
    *("shared_memory", "sharedctypes", "synchronize"),
)
# The modules of which there are some names in other places.
_SCATTERED = ("forkserver", "spawn", "util")
# Threads: there is nothing about them to be replaced.
_THREADS = ("dummy", "dummy.connection")
_MODULES = (*_SAME, *_SCATTERED, *_THREADS)


def find(module: str, name: str) -> Any:
    """Return the counterpart of *name* in *module*, which is without ``multiprocessing.``.

    Raises AttributeError, which says what to use instead.
    """
    path = f"{module}.{name}" if module else name
    if path in _MODULES:
        return _import(f"multiprocessing.{path}")
    if module in _THREADS:
        return _find_thread(module, name)
    if module in _SAME and (name == "__all__" or not name.startswith("_")):
        found = _import(f"procession.{module}" if module else "procession")
        try:
            return getattr(found, name)
        except AttributeError:
            pass  # it may have moved
    from procession._commands.port.moved import MOVED

    if path in MOVED:
        home, _, ours = MOVED[path].rpartition(".")
        return getattr(_import(home), ours)
    raise AttributeError(explain(path))


def check_import(path: str, *, exists: bool) -> None:
    """Raise ImportError, which says what to use, for a module or name that there is not.

    *exists*: whether the standard package has a module *path*.
    """
    if not exists or path not in _MODULES:
        _refuse(path)


def names(module: str) -> list[str]:
    """Return the names that `find` finds in *module*."""
    from procession._commands.port.moved import MOVED

    before = f"{module}." if module else ""
    found = [path.removeprefix(before) for path in MOVED if path.rpartition(".")[0] == module]
    if module in _SAME:
        found += _import(f"procession.{module}" if module else "procession").__all__
    if module in _THREADS:
        found += dir(_threads(module))
    return found


def explain(path: str) -> str:
    """Return that there is nothing for *path*, and what to use instead as far as that is known."""
    from procession._commands.port.names import NAMES, WHOLE_MODULE

    known = NAMES.get(path) or NAMES.get(path + WHOLE_MODULE)
    if known is None:
        known = NAMES.get(path.rpartition(".")[0] + WHOLE_MODULE)
    advice = f". What to do: {known.note.replace('`', '')}" if known is not None else ""
    return f"procession has no counterpart of multiprocessing.{path}{advice}"


def _refuse(path: str) -> NoReturn:
    raise ImportError(explain(path), name=f"multiprocessing.{path}")


def _find_thread(module: str, name: str) -> Any:
    if (module, name) == ("dummy", "Pool"):
        return _import("procession.pool").ThreadPool  # its exceptions are those of the program
    return getattr(_threads(module), name)


def _threads(module: str) -> Any:
    from procession._commands.run.redirect import standard_module

    return standard_module(f"multiprocessing.{module}")


def _import(name: str) -> Any:
    __import__(name)
    return sys.modules[name]
