"""What every serializer promises, checked on `cloudpickle`."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession.testing import SerializerSuite
from procession_cloudpickle import Cloudpickle


class TestCloudpickle(SerializerSuite):
    """The contract of a serializer."""

    @pytest.fixture
    def serializer(self) -> type[Cloudpickle]:
        """The class under test."""
        return Cloudpickle
