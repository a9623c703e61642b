"""Tests whose signal handlers raise, and the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def none_collected() -> Iterator[None]:
    """Collect all garbage now, and none until the end of the block.

    What a signal handler raises in a finalizer is lost, and complained of. The finalizers of what
    earlier tests have left would be run at any instruction.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
