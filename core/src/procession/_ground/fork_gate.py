"""Moments at which no other thread can fork this process.

A child has a copy of every descriptor, also of one that nobody could tell it about yet. Where
such a copy would keep somebody waiting, it is made, given away or noted in one such moment.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock

from procession._ground.after_fork import in_forked_children

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Iterator

#: How long to wait until a fork under way is over, in seconds. It may wait in turn for somebody
#: who waits here: then there is no moment.
_PATIENCE = 1.0

# Re-entrant, for a signal handler may fork in the middle of a moment of the same thread.
_gate = RLock()
_watches_forks = False


def watch() -> None:
    """Have forks wait for moments from now on.

    The interpreter calls last what was registered first. So what registers later, to be done
    before a fork, may wait itself for somebody who needs a moment.
    """
    global _watches_forks
    if not _watches_forks:
        _watches_forks = True
        if sys.platform != "win32":
            os.register_at_fork(before=_before, after_in_parent=_after_in_parent)
        in_forked_children(_after_in_child)


def moments() -> Iterator[bool]:
    """Begin one moment, and yield whether it has: no fork has been under way for too long.

    If so, end it with `end_moment`, and soon, for forks wait for that. It is an iterator so that
    no signal handler can raise between the beginning and the first line of a ``for`` loop over
    it, which has ``try`` there and ends it in any case.
    """
    watch()
    return map(_gate.acquire, (True,), (_PATIENCE,))


def end_moment() -> None:
    """End what `moments` has begun."""
    _gate.release()


def _before() -> None:
    _gate.acquire()


def _after_in_parent() -> None:
    try:
        _gate.release()
    except RuntimeError:
        pass  # all this was registered in the middle of the fork


def _after_in_child() -> None:
    global _gate
    _gate = RLock()
