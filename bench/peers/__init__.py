"""Libraries that do one part of what multiprocessing does, in the shape of its contexts.

Each module has `get_context(method)` and `get_all_start_methods()`, as multiprocessing has, and
what its library offers behind the methods that the benchmarks call. Processes are started by the
standard library, by fork. A library that needs something else to be quick (a buffer's size, a
protocol of pickle) gets it here: the best that its documentation says, not its defaults.

The libraries are in requirements-peers.txt.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any


class ForkContext:
    """A context that starts processes by fork, as the standard library does."""

    def Process(
        self, *, target: Callable[..., object], args: Sequence[object], daemon: bool
    ) -> Any:
        """Make a process."""
        context: Any = multiprocessing.get_context("fork")
        return context.Process(target=target, args=args, daemon=daemon)


def get_all_start_methods() -> list[str]:
    """Return the only method there is, for each of the modules."""
    return ["fork"]
