"""What every transport promises, checked on the one in memory."""

from __future__ import annotations

import sys

import pytest

from procession.testing import TransportSuite
from procession.testing.faults import Faults, Memory

assert sys.platform == "linux", "the conformance kit looks into /proc"


class TestMemory(TransportSuite):
    """The contract of a transport, but for what happens between processes."""

    between_processes = False

    @pytest.fixture
    def transport(self, faults: Faults) -> type[Memory]:
        """The class under test."""
        return Memory
