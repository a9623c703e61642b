"""Plugin for procession: log records of children reach the handlers of their parent.

There is nothing to call: switch the plugin on, and configure `logging` in the parent only.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
