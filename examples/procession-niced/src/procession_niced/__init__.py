"""Start method for procession: fresh interpreters that run at a lower priority."""

from __future__ import annotations

__version__ = "1.0.0"
