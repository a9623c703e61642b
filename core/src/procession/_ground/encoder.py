"""A serializer that was selected, as what pickles with it holds it: by name."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from procession._contracts.serializer import Serializer

#: The serializer that needs no encoder.
PICKLE = "pickle"


class Encoder:
    """Stands for `pickle.dumps` where another serializer was selected.

    A child that gets one, with a queue say, loads the serializer when it first pickles. Can be
    pickled. Threads: any. Fork: a forked child goes on using it.
    """

    __slots__ = ("_serializer", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._serializer: type[Serializer] | None = None

    @property
    def serializer(self) -> type[Serializer]:
        """The class. Raises what `Registry.load` raises."""
        if self._serializer is None:
            from procession._choosing import selection

            self._serializer = selection.registry().load("serializer", self.name)
        return self._serializer

    def __call__(
        self, obj: Any, protocol: int, *, buffer_callback: Callable[[Any], Any] | None = None
    ) -> bytes:
        """Return the pickle of *obj*."""
        return self.serializer.dumps(obj, protocol, buffer_callback=buffer_callback)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the name."""
        return Encoder, (self.name,)
