"""What every start method promises, checked on `fork`."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession.testing import StartMethodSuite
from procession_fork import Fork


class TestFork(StartMethodSuite):
    """The contract of a start method."""

    @pytest.fixture
    def start_method(self) -> type[Fork]:
        """The class under test."""
        return Fork
