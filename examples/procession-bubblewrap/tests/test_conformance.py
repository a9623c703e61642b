"""What every start method promises, checked on `bubblewrap`."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession.testing import StartMethodSuite
from procession_bubblewrap._start_method import Bubblewrap


class TestBubblewrap(StartMethodSuite):
    """The contract of a start method."""

    @pytest.fixture
    def start_method(self) -> type[Bubblewrap]:
        """The class under test."""
        return Bubblewrap
