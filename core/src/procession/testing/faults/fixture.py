"""The pytest plugin: the fixture `faults`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from procession.testing.faults._stage import Faults


@pytest.fixture
def faults() -> Iterator[Faults]:
    """Children that are threads, messages that stay in memory, and what goes wrong with both.

    The program under test finds both selected; see `procession.testing.faults.Faults`.
    """
    with Faults() as stage:
        yield stage
