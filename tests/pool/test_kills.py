"""Workers killed at random: each task has exactly one outcome, and the pool goes on.

``PROCESSION_KILLS`` says how many kills, on every pair then; ``PROCESSION_SEED`` repeats the same
decisions.
"""

from __future__ import annotations

import contextlib
import os
import random
import struct
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from procession.errors import WorkerDiedError
from procession.testing import pooled

pytestmark = pytest.mark.once

KILLS = int(os.environ.get("PROCESSION_KILLS", "12"))
SEED = int(os.environ.get("PROCESSION_SEED", "0")) or random.randrange(1, 1 << 30)
# Fewer where workers are replaced all the time anyway, which takes its time.
_TASKS_PER_KILL = {None: 60, 7: 14}
SIGKILL = 9
if "PROCESSION_KILLS" not in os.environ:
    pytestmark = pytest.mark.one_pair_per("transport")


@pytest.mark.beyond("multiprocessing's pools hang instead")
@pytest.mark.timeout(60 + 3 * KILLS)
@pytest.mark.parametrize("recycled", list(_TASKS_PER_KILL))
def test_one_outcome_each(make: Callable[..., Any], tmp_path: Any, recycled: int | None) -> None:
    """No task is lost, none is done twice, and none that was not begun fails."""
    chance = random.Random(SEED)
    journal = tmp_path / "journal"
    journal.touch()
    pool = make(3, maxtasksperchild=recycled)
    told: Counter[int] = Counter()
    count = KILLS * _TASKS_PER_KILL[recycled]
    done = threading.Event()

    def tell(number: int) -> Callable[[object], None]:
        return lambda _: told.update([number])

    results = []
    for number in range(count):
        call: Any = (pooled.record, (str(journal), number))
        if number % 50 == 0:
            call = (pooled.sleep_and_record, (str(journal), 0.005, number))
        results.append(pool.apply_async(*call, callback=tell(number), error_callback=tell(number)))
    for _ in range(KILLS):
        done.wait(chance.random() * 0.05)
        members = list(pool._crew.members)
        if not any(each.ready for each in members):
            continue  # a pool stops when too many in a row die before they are ready
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(members).pid, SIGKILL)
    died = set()
    for number, result in enumerate(results):
        try:
            assert number == result.get(50), f"seed {SEED}"
        except WorkerDiedError:
            died.add(number)
    recorded = [number for (number,) in struct.iter_unpack("<Q", journal.read_bytes())]

    assert len(died) <= KILLS, f"seed {SEED}"
    assert set(range(count)) == set(recorded) | died, f"seed {SEED}"
    assert len(set(recorded)) == len(recorded), f"seed {SEED}"
    assert [1, 2, 3] == pool.map(pooled.same, [1, 2, 3])
    pool.close()
    pool.join()
    assert dict.fromkeys(range(count), 1) == told
