"""`collections.deque`, without the rest of `collections`.

That takes 2 ms to be imported with what it imports in turn, as long as ten modules of ours.
"""

from __future__ import annotations

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections import deque as deque
else:
    try:
        from _collections import deque
    except ImportError:  # an interpreter that has it elsewhere
        from collections import deque

__all__ = ["deque"]
