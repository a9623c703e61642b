"""Serializers that break one promise each, and which tests of the kit have to fail for it."""

from __future__ import annotations

import pickle
import sys
from types import FunctionType
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from tests.kit.breaking import breaks

from procession._contracts.plain_pickle import Pickle
from procession.plugin import (
    SerializerFeatures,
)


@breaks("test_functions_go_by_value_or_are_refused")
class ClaimsToPickleByValue(Pickle):
    features = SerializerFeatures(by_value=True)


class FunctionPickler(pickle.Pickler):
    def reducer_override(self, obj: Any, /) -> Any:
        if isinstance(obj, FunctionType) and obj.__name__ == "<lambda>":
            return str, (obj.__qualname__,)
        return NotImplemented


@breaks("test_functions_go_by_value_or_are_refused")
class DeniesToPickleByValue(Pickle):
    @classmethod
    def pickler(cls) -> type[pickle.Pickler]:
        return FunctionPickler


class InlinePickler(pickle.Pickler):
    def __init__(self, file: Any, protocol: int, **options: Any) -> None:
        super().__init__(file, protocol)


@breaks("test_buffers_stay_outside")
class CopiesBuffers(Pickle):
    @classmethod
    def pickler(cls) -> type[pickle.Pickler]:
        return InlinePickler


@breaks("test_the_other_side_needs_pickle_alone[list]")
class UsesAnOldProtocol(Pickle):
    @classmethod
    def dumps(cls, obj: Any, protocol: int, **options: Any) -> bytes:
        return pickle.dumps(obj, 2)
