"""What every transport promises, checked on `pipe`."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession.testing import TransportSuite
from procession_pipe import Pipe


class TestPipe(TransportSuite):
    """The contract of a transport."""

    @pytest.fixture
    def transport(self) -> type[Pipe]:
        """The class under test."""
        return Pipe
