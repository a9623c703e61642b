"""The contract of a serializer: one way of making pickles."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable
    from pickle import PickleBuffer, Pickler
    from typing import Any, ClassVar

    from procession._contracts.features import SerializerFeatures


class Serializer(ABC):
    """One way of making pickles of what `pickle` itself may refuse.

    A plugin's hook returns the class; no instances are made. What it makes is a pickle of
    protocol 5: the other side opens it by `pickle` alone, and imports what the pickle names. So
    nothing is negotiated with start methods or transports, and who only receives need not have
    selected it.

    Threads: any number at once. Fork: a forked child goes on using it.
    """

    #: The name users select; equals the name of the entry point.
    name: ClassVar[str]
    #: What the serializer can do beyond `pickle`.
    features: ClassVar[SerializerFeatures]

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why this serializer cannot work here, as a noun phrase, or None."""
        return None

    @classmethod
    @abstractmethod
    def pickler(cls) -> type[Pickler]:
        """Return the class of picklers: `pickle.Pickler` or a subclass of it.

        It takes the arguments *file*, *protocol* and *buffer_callback*. Core derives from it a
        class with a ``reducer_override`` of its own, which sees to what has descriptors and calls
        that of this class, if it has one, for all else.
        """

    @classmethod
    def dumps(
        cls,
        obj: Any,
        protocol: int,
        *,
        buffer_callback: Callable[[PickleBuffer], Any] | None = None,
    ) -> bytes:
        """Return the pickle of *obj*, as `pickle.dumps`. Raises what pickling raises."""
        file = io.BytesIO()
        cls.pickler()(file, protocol, buffer_callback=buffer_callback).dump(obj)
        return file.getvalue()
