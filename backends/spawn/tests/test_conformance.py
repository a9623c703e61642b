"""What every start method promises, checked on `spawn`."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession.testing import StartMethodSuite
from procession_spawn import Spawn


class TestSpawn(StartMethodSuite):
    """The contract of a start method."""

    @pytest.fixture
    def start_method(self) -> type[Spawn]:
        """The class under test."""
        return Spawn
