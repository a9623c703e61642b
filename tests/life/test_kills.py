"""SIGKILL at any instruction: whoever is killed, the others go on, and nothing is left behind.

``PROCESSION_KILLS`` sets how often somebody is killed in each case, and ``PROCESSION_SEED``
replays a case; a failure prints its seed.
"""

from __future__ import annotations

import os
import pickle
import random
import select
import time
from typing import Any

import pytest

from procession.testing import failing
from procession.testing.forked import DEADLINE
from procession.testing.killing import chosen_seed

_KILLS = int(os.environ.get("PROCESSION_KILLS", "8"))

# A whole run takes longer when more is killed.
pytestmark = [pytest.mark.timeout(60 + _KILLS), pytest.mark.once]


@pytest.mark.one_pair_per("method")
def test_reporters_of_failures_are_killed(pair: Any) -> None:
    """A child killed while it reports its exception: the report is whole, or not there."""
    seed = chosen_seed()
    chance = random.Random(seed)
    try:
        took, code = _fail_and_kill(pair.ctx, None)
        assert 1 == code
        for _ in range(_KILLS):
            _fail_and_kill(pair.ctx, chance.random() * took * 1.2)
    except BaseException as error:
        error.add_note(f"replay with PROCESSION_SEED={seed} PROCESSION_KILLS={_KILLS}")
        raise


def _fail_and_kill(ctx: Any, delay: float | None) -> tuple[float, int]:
    """Kill a failing child *delay* seconds after it begins; return how long it took, and its code.

    Whatever its parent knows then must be right.
    """
    receiver, sender = ctx.Pipe(duplex=False)
    process = ctx.Process(target=failing.fail_at_leisure, args=(sender,), stderr="null")
    with receiver, sender:
        process.start()
        assert "begins" == receiver.recv()
    begun = time.monotonic()
    if delay is not None:
        select.select([], [], [], delay)
        process.kill()
    process.join(DEADLINE)
    took = time.monotonic() - begun
    failure, code = process.failure, process.exitcode
    process.close()

    assert code in ((1,) if delay is None else (1, -9))
    assert (failure.exitcode, failure.signal) == (code, "SIGKILL" if code == -9 else None)
    if code == 1 or failure.error is not None:
        _check_report(failure.error, complete=code == 1)
        assert failing.LONG_TEXT in failure.traceback
    return took, code


def _check_report(error: Any, *, complete: bool) -> None:
    """All three exceptions are there with their texts, and the objects, too, or not at all."""
    expected: list[type[Exception]] = [ArithmeticError, ValueError, KeyError]
    for kind in expected:
        assert kind.__name__ == error.type_name
        assert failing.LONG_TEXT in error.message
        assert failing.LONG_TEXT in error.traceback
        if complete or error.pickled is not None:
            assert kind is type(pickle.loads(error.pickled))
        error = error.cause
    assert None is error
