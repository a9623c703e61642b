"""tqdm: a map with a progress bar, whose workers share a lock of the standard package."""

from __future__ import annotations

import io
import multiprocessing
from typing import Any

import pytest
from tqdm import tqdm
from tqdm.contrib.concurrent import process_map

from procession.testing import clients

pytestmark = [
    pytest.mark.beyond("it takes the standard package's own contexts"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
    pytest.mark.filterwarnings("ignore:process .* forks while"),
]


@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_it_maps(ctx: Any, pair: Any, whose: str) -> None:
    """With a lock of the standard package, or with one of ours."""
    theirs = multiprocessing.get_context("fork" if pair.method == "fork" else "spawn")
    before = tqdm.get_lock()
    tqdm.set_lock((theirs if whose == "theirs" else ctx).RLock())
    bar = io.StringIO()
    try:
        found = process_map(
            clients.with_lock, range(6), max_workers=2, mp_context=ctx, file=bar, mininterval=0
        )
    finally:
        tqdm.set_lock(before)
    assert [True] * 6 == found
    assert "6/6" in bar.getvalue()
