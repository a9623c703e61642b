"""The fixture that is shipped, as users get it."""

from __future__ import annotations

import pytest

from procession._starting.lifeline import lifeline
from procession.testing.faults.fixture import faults as faults


@pytest.fixture(scope="session", autouse=True)
def _lifeline_of_this_process() -> None:
    """A process keeps its lifeline from its first child on: it is there before the tests."""
    lifeline.reading_end()
