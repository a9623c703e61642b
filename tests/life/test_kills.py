"""SIGKILL at any instruction: whoever is killed, the others go on, and nothing is left behind.

``PROCESSION_KILLS`` sets how often somebody is killed in each case, and ``PROCESSION_SEED``
replays a case; a failure prints its seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from procession.testing.killing import Scenario, chosen_seed, run
from procession.testing.killing_scenarios import ConnectionUse, HandingOver, QueueUse, Starts

_KILLS = int(os.environ.get("PROCESSION_KILLS", "8"))

# A whole run takes longer when more is killed.
pytestmark = pytest.mark.timeout(60 + _KILLS)


def _kill(make: Callable[[Any], Scenario], pair: Any, directory: Path) -> None:
    run(make(pair.spec), _KILLS, chosen_seed(), directory)


@pytest.mark.one_pair_per("transport")
@pytest.mark.parametrize(
    "options",
    [{}, {"maxsize": 3}, {"joinable": True}, {"joinable": True, "maxsize": 2}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_users_of_a_queue_are_killed(
    pair: Any, options: dict[str, Any], temporary_directory: Path
) -> None:
    """Items are delivered at most once, none that was accepted is lost, and join comes back."""
    _kill(partial(QueueUse, **options), pair, temporary_directory)


def test_ends_of_connections_are_killed(pair: Any, temporary_directory: Path) -> None:
    """Who talks to a killed process is told who it was; nothing is half received."""
    _kill(ConnectionUse, pair, temporary_directory)


@pytest.mark.one_pair_per("method")
def test_starts_are_killed(pair: Any, temporary_directory: Path) -> None:
    """A parent, its child and its helper may be killed anywhere in a start."""
    _kill(Starts, pair, temporary_directory)


@pytest.mark.one_pair_per("transport")
def test_givers_and_takers_of_descriptors_are_killed(pair: Any, temporary_directory: Path) -> None:
    """What was sent in a message arrives, or its receiver is told; nobody waits for ever."""
    _kill(HandingOver, pair, temporary_directory)
