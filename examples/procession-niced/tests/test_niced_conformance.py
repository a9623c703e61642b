"""What every start method promises, checked on `niced`."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit needs Linux", allow_module_level=True)

from procession.testing import StartMethodSuite
from procession_niced._start_method import Niced


class TestNiced(StartMethodSuite):
    """The contract of a start method."""

    @pytest.fixture
    def start_method(self) -> type[Niced]:
        """The class under test."""
        return Niced
