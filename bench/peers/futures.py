"""concurrent.futures of the standard library."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from peers import get_all_start_methods
from peers.executors import ExecutorPool, PoolContext

__all__ = ["get_all_start_methods", "get_context"]


def _pool(processes: int) -> ExecutorPool:
    context = multiprocessing.get_context("fork")
    return ExecutorPool(ProcessPoolExecutor(processes, mp_context=context))


def get_context(method: str | None) -> PoolContext:
    """Return the context."""
    return PoolContext(_pool)
