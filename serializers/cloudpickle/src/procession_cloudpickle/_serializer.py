"""Pickles by cloudpickle."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import cloudpickle  # type: ignore[import-untyped]

from procession.plugin import Serializer, SerializerFeatures

if TYPE_CHECKING:
    from pickle import Pickler


class Cloudpickle(Serializer):
    """Pickles functions and classes with their code where they cannot be imported.

    That is for lambdas, closures, what is defined in a function, and everything in the main
    module. The rest is pickled as `pickle` does it.
    """

    name: ClassVar[str] = "cloudpickle"
    features: ClassVar[SerializerFeatures] = SerializerFeatures(by_value=True)

    @classmethod
    def pickler(cls) -> type[Pickler]:
        """See `Serializer.pickler`."""
        pickler: type[Pickler] = cloudpickle.Pickler
        return pickler
