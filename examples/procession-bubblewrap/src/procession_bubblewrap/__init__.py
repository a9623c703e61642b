"""Start method for procession: fresh interpreters in a bubblewrap sandbox."""

from __future__ import annotations

__version__ = "1.0.0"
