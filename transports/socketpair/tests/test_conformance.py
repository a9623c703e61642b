"""What every transport promises, checked on `socketpair`."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession.testing import TransportSuite
from procession_socketpair import SocketPair


class TestSocketPair(TransportSuite):
    """The contract of a transport."""

    @pytest.fixture
    def transport(self) -> type[SocketPair]:
        """The class under test."""
        return SocketPair
