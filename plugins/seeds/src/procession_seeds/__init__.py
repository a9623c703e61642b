"""Plugin for procession: reproducible and distinct random numbers in every child.

A child imports this package for its seeds, so importing it costs next to nothing.
"""

from __future__ import annotations

from ._seed import root, set_root, spawn_key

__version__ = "0.1.0"

__all__ = ["__version__", "root", "set_root", "spawn_key"]
