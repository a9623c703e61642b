"""What every serializer promises, checked on the one that is built in."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession._contracts.plain_pickle import Pickle
from procession.testing import SerializerSuite


class TestPickle(SerializerSuite):
    """The contract of a serializer."""

    @pytest.fixture
    def serializer(self) -> type[Pickle]:
        """The class under test."""
        return Pickle
