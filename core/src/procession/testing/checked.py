"""The suites of the conformance kit, on what `procession check` was told: see `checking`."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

from typing import Any

import pytest

from procession._choosing.selection import registry
from procession.testing import (
    PairSuite,
    PrimitiveSuite,
    SerializerSuite,
    StartMethodSuite,
    TransportSuite,
)

#: The name of the plugin under test.
NAME = pytest.StashKey[str]()


def _loaded(request: pytest.FixtureRequest, kind: Any) -> Any:
    return registry().load(kind, request.config.stash[NAME])


class TestStartMethod(StartMethodSuite):
    """The contract of a start method."""

    @pytest.fixture
    def start_method(self, request: pytest.FixtureRequest) -> Any:
        """The class under test."""
        return _loaded(request, "start_method")


class TestTransport(TransportSuite):
    """The contract of a transport."""

    @pytest.fixture
    def transport(self, request: pytest.FixtureRequest) -> Any:
        """The class under test."""
        return _loaded(request, "transport")


class TestPrimitive(PrimitiveSuite):
    """The contract of a primitive."""

    @pytest.fixture
    def primitive(self, request: pytest.FixtureRequest) -> Any:
        """The class under test."""
        return _loaded(request, "primitive")


class TestSerializer(SerializerSuite):
    """The contract of a serializer."""

    @pytest.fixture
    def serializer(self, request: pytest.FixtureRequest) -> Any:
        """The class under test."""
        return _loaded(request, "serializer")


@pytest.mark.usefixtures("both")  # which the suite asks for by name, unseen by what parametrizes
class TestPair(PairSuite):
    """The plugin together with one of the other kind."""

    @pytest.fixture
    def both(self, request: pytest.FixtureRequest) -> tuple[str, str]:
        """The names of a start method and a transport."""
        found: tuple[str, str] = request.param
        return found

    @pytest.fixture
    def start_method(self, both: tuple[str, str]) -> Any:
        """The class of the start method."""
        return registry().load("start_method", both[0])

    @pytest.fixture
    def transport(self, both: tuple[str, str]) -> Any:
        """The class of the transport."""
        return registry().load("transport", both[1])
