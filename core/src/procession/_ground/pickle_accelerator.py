"""The C implementation of pickle, without the modules that it would drag in.

`_pickle` imports functools for one name, `functools.partial`, which is a C class of
`_functools`; functools itself brings collections, operator and reprlib. In a child that
needs none of them, importing them costs as much as everything of procession (3.6 ms of
8.6 ms, CPython 3.11). So `_pickle` is shown `_functools` in the place of functools for as
long as it is being imported.
"""

from __future__ import annotations

import sys

__all__: list[str] = []


def _load() -> None:
    """Import `_pickle`; it can then be imported from as usual.

    Does nothing where functools is there already, which is so in every process that has
    threads: the threading module needs it.
    """
    if "functools" in sys.modules or "_pickle" in sys.modules:
        return
    try:
        __import__("_functools")
    except ImportError:
        return  # an interpreter that makes do without
    sys.modules["functools"] = sys.modules["_functools"]
    try:
        __import__("_pickle")
    except ImportError:
        return  # an interpreter without it; whoever asked falls back on pickle
    finally:
        del sys.modules["functools"]


_load()
