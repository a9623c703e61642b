"""What every transport promises, and every primitive, checked on both implementations of `ring`."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession.testing import PrimitiveSuite, TransportSuite
from procession_ring import Ring
from procession_ring._implementation import NATIVE
from procession_ring._primitive import RingPrimitive


class TestRing(TransportSuite):
    """The contract of a transport."""

    @pytest.fixture
    def transport(self) -> type[Ring]:
        """The class under test."""
        return Ring


class TestRingPrimitive(PrimitiveSuite):
    """The contract of a primitive."""

    @pytest.fixture
    def primitive(self, implementation: str) -> type[RingPrimitive]:
        """The class under test."""
        if implementation != NATIVE:
            pytest.skip("only the compiled half has it")
        return RingPrimitive
