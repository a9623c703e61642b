"""joblib: its pool is the standard package's, made of our objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from joblib import Parallel, delayed

from procession.testing import clients

pytestmark = [
    pytest.mark.beyond("it takes the standard package's own contexts"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
    pytest.mark.filterwarnings("ignore:process .* forks while"),
]


def test_it_maps(ctx: Any) -> None:
    """On every start method and transport."""
    squares = Parallel(n_jobs=2, backend=ctx)(delayed(clients.square)(each) for each in range(9))
    assert [number**2 for number in range(9)] == squares


@pytest.mark.one_pair_per("method")
def test_an_error_comes_back(ctx: Any) -> None:
    """With its class and text."""
    with pytest.raises(ArithmeticError, match="wrong"):
        Parallel(n_jobs=2, backend=ctx)(delayed(clients.fail)("wrong") for _ in range(2))


@pytest.mark.one_pair_per("method")
def test_it_knows_its_workers(ctx: Any) -> None:
    """A worker is a daemon by the standard package, so that joblib computes in it alone."""
    assert [(True, [0, 1, 4])] * 2 == Parallel(n_jobs=2, backend=ctx)(
        delayed(clients.nested)(3) for _ in range(2)
    )


@pytest.mark.one_pair_per("method")
def test_large_arrays_are_mapped(ctx: Any) -> None:
    """They come as files in memory, as with the standard package."""
    array = np.ones(300_000)
    found = Parallel(n_jobs=2, backend=ctx, max_nbytes=1000)(
        delayed(clients.total)(array) for _ in range(2)
    )
    assert [(300_000.0, "memmap")] * 2 == found
