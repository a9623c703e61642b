"""Pools and forks: no pool's thread runs while this process is forked.

A forked child has no use for the pools of its parent, and must not keep their channels open.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock
from _weakrefset import WeakSet  # `weakref` would bring more

from procession._ground.after_fork import in_forked_children

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import Protocol

    class Pausing(Protocol):
        """What a pool does around forks."""

        def pause(self) -> None:
            """Have no thread for a moment."""

        def resume(self) -> None:
            """Have a thread again."""

        def abandon(self) -> None:
            """Close, in a forked child, what it must not keep open."""

        def terminate(self) -> None:
            """End."""


_starting = RLock()
_pools: WeakSet[Pausing] = WeakSet()
_watches = False
#: How many forks there are between this process and the first one with a pool.
generation = 0


class Excursion:
    """Entered by a pool's thread where a fork does not wait for it.

    That is in code of the program, which may take any time, and where it is about to fork.
    """

    __slots__ = ("is_under_way",)

    def __init__(self) -> None:
        self.is_under_way = False

    def __enter__(self) -> None:
        self.is_under_way = True

    def __exit__(self, *exc_info: object) -> None:
        self.is_under_way = False


def starting() -> RLock:
    """Return what lets nobody else fork while it is held."""
    return _starting


def add(pool: Pausing) -> None:
    """Pause *pool* around every fork, and end it with this process."""
    watch()
    _pools.add(pool)


def watch() -> None:
    """Count forks, and have pools paused around them."""
    global _watches
    if not _watches and sys.platform != "win32":
        _watches = True
        os.register_at_fork(before=_before, after_in_parent=_after_in_parent)
        in_forked_children(_after_in_child)


def discard(pool: Pausing) -> None:
    """Forget *pool*, which has ended."""
    _pools.discard(pool)


def end_all() -> None:
    """Terminate every pool of this process, which ends."""
    for pool in list(_pools):
        pool.terminate()


def _before() -> None:
    _starting.acquire()
    for pool in list(_pools):
        pool.pause()


def _after_in_parent() -> None:
    for pool in list(_pools):
        pool.resume()
    _starting.release()


def _after_in_child() -> None:
    global _starting, generation
    generation += 1
    _starting = RLock()
    for pool in list(_pools):
        pool.abandon()
    _pools.clear()
