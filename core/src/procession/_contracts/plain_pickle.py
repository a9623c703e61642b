"""The serializer that is built in: `pickle` itself."""

from __future__ import annotations

import pickle

from procession._contracts.features import SerializerFeatures
from procession._contracts.serializer import Serializer

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import ClassVar


class Pickle(Serializer):
    """Pickles as the standard library makes them. Core uses it without asking this class."""

    name: ClassVar[str] = "pickle"
    features: ClassVar[SerializerFeatures] = SerializerFeatures()

    @classmethod
    def pickler(cls) -> type[pickle.Pickler]:
        """Return the standard library's own."""
        return pickle.Pickler
