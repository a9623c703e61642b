"""The serializer that is built in: `pickle` itself."""

from __future__ import annotations

import pickle
from typing import ClassVar

from procession._features import SerializerFeatures
from procession._serializer import Serializer


class Pickle(Serializer):
    """Pickles as the standard library makes them. Core uses it without asking this class."""

    name: ClassVar[str] = "pickle"
    features: ClassVar[SerializerFeatures] = SerializerFeatures()

    @classmethod
    def pickler(cls) -> type[pickle.Pickler]:
        """Return the standard library's own."""
        return pickle.Pickler
