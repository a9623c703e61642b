"""Start method for procession: subinterpreters of this process (PEP 734)."""

from __future__ import annotations

__version__ = "1.0.0"
