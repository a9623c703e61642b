"""loky, which starts its workers in its own way."""

from __future__ import annotations

from importlib import import_module

from peers import get_all_start_methods
from peers.executors import ExecutorPool, PoolContext

__all__ = ["get_all_start_methods", "get_context"]


def _pool(processes: int) -> ExecutorPool:
    return ExecutorPool(import_module("loky").ProcessPoolExecutor(processes))


def get_context(method: str | None) -> PoolContext:
    """Return the context."""
    return PoolContext(_pool)
