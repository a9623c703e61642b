"""Plugins that break one promise each: how they say which tests of the kit have to fail for it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession._choosing import selection
from procession._choosing.registry import Registry
from procession.plugin import (
    Serializer,
    StartMethod,
    Transport,
)
from procession.testing import (
    PrimitiveSuite,
    SerializerSuite,
    StartMethodSuite,
    TransportSuite,
)

#: The tests that have to fail, by the name of the class of the broken plugin, and its file before.
HAS_TO_FAIL: dict[tuple[str, str], tuple[str, ...]] = {}


def _suite(kind: str, base: type, fixture: str, broken: type[Any], *tests: str) -> None:
    """Make the class of tests of *broken*, which pytest collects beside it."""
    module = sys.modules[broken.__module__]
    assert module.__file__ is not None
    HAS_TO_FAIL[module.__file__, broken.__name__] = tests

    @pytest.fixture
    def plugin(self: object, monkeypatch: pytest.MonkeyPatch) -> type[Any]:
        registry = Registry()
        place = f"{broken.__module__}:{broken.__qualname__}"
        roster: Any = {(kind, broken.name): place}
        registry.adopt(roster)
        monkeypatch.setattr(selection._selector, "registry", registry)
        return broken

    name = f"Test{broken.__name__}"
    setattr(module, name, type(name, (base,), {fixture: plugin, "__module__": module.__name__}))


def breaks(*tests: str) -> Any:
    """Decorate a broken plugin with the tests that have to fail."""

    def decorate(broken: Any) -> Any:
        if issubclass(broken, Transport):
            broken.name = broken.__name__.lower()
            _suite("transport", TransportSuite, "transport", broken, *tests)
        elif issubclass(broken, StartMethod):
            broken.name = broken.__name__.lower()
            _suite("start_method", StartMethodSuite, "start_method", broken, *tests)
        elif issubclass(broken, Serializer):
            broken.name = broken.__name__.lower()
            _suite("serializer", SerializerSuite, "serializer", broken, *tests)
        else:
            _suite("primitive", PrimitiveSuite, "primitive", broken, *tests)
        return broken

    return decorate
