"""The modules that a fork server imports before its first child."""

from __future__ import annotations

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Iterable

_modules: tuple[str, ...] = ("__main__",)


def set_forkserver_preload(module_names: Iterable[str]) -> None:
    """Let fork servers started from now on import *module_names* before they serve.

    Children then begin with these modules loaded. The default is ``["__main__"]``. A
    module that cannot be imported is reported on the server's stderr and left out.

    Raises `TypeError` when an element is not a string.
    """
    global _modules
    names = None if isinstance(module_names, str) else tuple(module_names)
    if names is None or not all(isinstance(name, str) for name in names):
        raise TypeError("module_names must be a list of strings")
    _modules = names


def get() -> tuple[str, ...]:
    """Return the modules to preload."""
    return _modules
