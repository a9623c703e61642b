"""What every transport promises, checked on the one in memory."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession.testing import TransportSuite
from procession.testing.faults import Faults, Memory


class TestMemory(TransportSuite):
    """The contract of a transport, but for what happens between processes."""

    between_processes = False

    @pytest.fixture
    def transport(self, faults: Faults) -> type[Memory]:
        """The class under test."""
        return Memory
