"""What a worker has said before it died counts, wherever the pool is when it dies."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from procession.connection import wait
from procession.errors import WorkerDiedError
from procession.testing import pooled

SIGKILL = 9
pytestmark = [
    pytest.mark.one_pair_per("transport"),
    pytest.mark.beyond("multiprocessing's pools hang instead"),
]


def _recorded(journal: Any) -> list[int]:
    return [number for (number,) in struct.iter_unpack("<Q", journal.read_bytes())]


def test_death_just_before_more_is_sent(
    make: Callable[..., Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool that learns of a death by sending has not read what the worker had answered."""
    journal = tmp_path / "journal"
    journal.touch()
    pool = make(1)
    crew = pool._crew
    pool.map(pooled.same, range(300), chunksize=1)  # known to be quick: given out ahead
    killed = threading.Event()
    deadline = time.monotonic() + 30

    def kill_who_has_answered() -> None:
        # In the pool's thread, after it has listened and before it sends.
        member = crew.members[0]
        look_at_the_clock()
        if killed.is_set() or not 1 < len(member.outstanding) <= crew._ahead() // 2:
            return
        given = {task.arguments[0][1] for task in member.outstanding}
        while not given.issubset(_recorded(journal)):
            assert time.monotonic() < deadline
        os.kill(member.pid, SIGKILL)
        assert wait([member.sentinel], 30)
        killed.set()

    look_at_the_clock = crew._look_at_the_clock
    monkeypatch.setattr(crew, "_look_at_the_clock", kill_who_has_answered)
    results = [pool.apply_async(pooled.record, (str(journal), number)) for number in range(1000)]
    died = 0
    for number, result in enumerate(results):
        try:
            assert number == result.get(30)
        except WorkerDiedError:
            died += 1  # killed between the last record and its answer

    assert killed.is_set()
    assert died <= 1
    assert list(range(1000)) == sorted(_recorded(journal))
