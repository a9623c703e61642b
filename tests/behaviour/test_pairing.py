"""What every pair promises, checked on all of them: the shipped suite, on this matrix."""

from __future__ import annotations

import sys
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession._choosing.selection import registry
from procession.testing import PairSuite


class TestPairs(PairSuite):
    """Each installed start method with each transport; on multiprocessing, its own."""

    @pytest.fixture
    def start_method(self, pair: Any) -> Any:
        """The class of the start method."""
        return registry().load("start_method", pair.method)

    @pytest.fixture
    def transport(self, pair: Any) -> Any:
        """The class of the transport."""
        return registry().load("transport", pair.transport)

    @pytest.fixture
    def spec(self, pair: Any) -> tuple[str, str, str]:
        """Library, start method and transport."""
        found: tuple[str, str, str] = pair.spec
        return found

    @pytest.fixture
    def beyond(self, subject: str) -> None:
        """Skip what only procession promises."""
        if subject != "procession":
            pytest.skip("promised by procession only")
