"""Large arrays through connections: their bytes are not pickled and not copied in passing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from procession.testing import payloads

MIB = 2**20
Make = Callable[..., Any]
numpy = pytest.importorskip("numpy")


@pytest.mark.slow
@pytest.mark.beyond("multiprocessing copies an array into its pickle and out of it")
def test_array_of_256_mib_without_extra_copies(pipe: Make, start: Make) -> None:
    """Sending takes next to no memory beyond the array, receiving the array's own and no more."""
    size = 256 * MIB
    reports, reporter = pipe(False)
    receiver, sender = pipe(False)
    process = start(payloads.receive_measured, receiver, reporter)
    assert "ready" == reports.recv()
    array = numpy.ones(size, dtype="u1")
    array[-1] = 2
    memory = payloads.PeakMemory()
    sender.send(array)
    grown_here = memory.growth()
    first, last, nbytes, grown_there = reports.recv()
    process.join()

    assert (1, 2, size) == (first, last, nbytes)
    assert grown_here < size // 8
    assert grown_there < size + size // 8
