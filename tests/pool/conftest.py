"""A pool for a test, ended with it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def threads_at_forks() -> Iterator[None]:
    """Let a pool fork replacements from its thread, which the interpreter warns of from 3.12 on."""
    with warnings.catch_warnings():
        if sys.version_info >= (3, 12):
            warnings.filterwarnings("ignore", "This process .* is multi-threaded")
        yield


@pytest.fixture
def make(ctx: Any) -> Iterator[Callable[..., Any]]:
    """Make pools; they are terminated after the test."""
    with ExitStack() as stack:

        def make(processes: int = 2, *args: Any, **options: Any) -> Any:
            pool = ctx.Pool(processes, *args, **options)
            stack.callback(pool.join)
            stack.callback(pool.terminate)
            return pool

        yield make


@pytest.fixture
def pool(make: Callable[..., Any]) -> Any:
    """A pool of two."""
    return make()
