"""Processes killed with SIGKILL at random points while they use what is made of primitives.

Of the primitives themselves the conformance kit has the same test. A failure says its seed;
``PROCESSION_SEED`` replays it, and ``PROCESSION_KILLS`` sets how many are killed in each case.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("these tests need fork and pidfds", allow_module_level=True)

from procession.synchronize import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock
from procession.testing.killing import Scenario, chosen_kills, chosen_seed, run
from procession.testing.killing_locks import BarrierUse, ConditionUse, EventUse, LockUse

pytestmark = pytest.mark.once

KILLS = chosen_kills(25)
UNITS = 2


def use_of(lock: Lock | RLock | BoundedSemaphore, units: int = 1) -> Scenario:
    """Return the scenario of a lock as users have it."""
    return LockUse(lock, lock._primitive, units)


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "lock": lambda: use_of(Lock()),
    "rlock": lambda: use_of(RLock()),
    "semaphore": lambda: use_of(BoundedSemaphore(UNITS), UNITS),
    "condition": lambda: ConditionUse(Condition()),
    "event": lambda: EventUse(Event()),
    "barrier": lambda: BarrierUse(Barrier(4)),
}


@pytest.mark.timeout(60 + KILLS)
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.usefixtures("primitive")
def test_killed_users(name: str, temporary_directory: Path) -> None:
    """Whoever is killed, and wherever: the others go on, and nothing stays held by the dead."""
    run(SCENARIOS[name](), KILLS, chosen_seed(), temporary_directory)
