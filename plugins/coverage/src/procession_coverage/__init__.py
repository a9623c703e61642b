"""Plugin for procession: coverage.py measures every child.

There is nothing to call: switch the plugin on, and run the program under ``coverage run``.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
