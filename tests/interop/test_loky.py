"""loky: an executor that makes its queues of our locks."""

from __future__ import annotations

from typing import Any

import pytest
from loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

from procession.testing import clients

pytestmark = [
    pytest.mark.beyond("it takes the standard package's own contexts"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
    pytest.mark.filterwarnings("ignore:process .* forks while"),
]

DEADLINE = 30.0


def test_it_maps(ctx: Any) -> None:
    """On every start method and transport."""
    with ProcessPoolExecutor(2, context=ctx) as executor:
        assert [0, 1, 4, 9] == list(executor.map(clients.square, range(4), timeout=DEADLINE))
        with pytest.raises(ArithmeticError, match="wrong"):
            executor.submit(clients.fail, "wrong").result(DEADLINE)


@pytest.mark.one_pair_per("method")
def test_a_killed_worker_breaks_it(ctx: Any) -> None:
    """It does not hang, and says what has happened."""
    executor = ProcessPoolExecutor(2, context=ctx)
    with pytest.raises(TerminatedWorkerError):
        executor.submit(clients.kill_me).result(DEADLINE)
    executor.shutdown(kill_workers=True)
