"""What every transport promises, checked on `tcp`."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession.testing import TransportSuite
from procession_tcp import Tcp


class TestTcp(TransportSuite):
    """The contract of a transport."""

    @pytest.fixture
    def transport(self) -> type[Tcp]:
        """The class under test."""
        return Tcp
