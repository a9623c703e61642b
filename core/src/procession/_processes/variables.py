"""Environment variables that are most often not set.

For each of them ``os.environ`` raises and catches a KeyError, in which a process that has just
been forked copies as many pages of memory as in creating a descriptor.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def variable(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the variable *name* of *environ* (None: this process's), or None. *name* is ASCII."""
    if environ is None:
        environ = os.environ
    data = getattr(environ, "_data", None)  # where os.environ keeps them, encoded
    if data is None or sys.platform == "win32" or name.encode() in data:
        return environ.get(name)
    return None


def variables(names: Sequence[str], environ: Mapping[str, str]) -> list[str | None]:
    """Return what `variable` does, for each of *names*."""
    data = getattr(environ, "_data", None)
    if data is None or sys.platform == "win32":
        return [environ.get(name) for name in names]
    # One look for all, as most often not one of them is set.
    if data.keys().isdisjoint(map(str.encode, names)):
        return [None] * len(names)
    return [environ.get(name) for name in names]
