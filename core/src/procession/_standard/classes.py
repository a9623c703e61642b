"""Objects of ours that pass for objects of the standard package, where somebody looks."""

from __future__ import annotations

from procession._ground import standard as _standard

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession._contracts.primitives import Primitive

_disguises: dict[tuple[type, type], type] = {}


def disguise(kind: type, module: str, name: str) -> type:
    """Return what an object of class *kind* says that its class is.

    That is a class derived from *kind* and from the class *name* of the standard package's
    *module*, so that ``isinstance`` is true for both; *kind* itself if nobody has loaded the
    module, and so cannot ask. The object has nothing of the standard class.
    """
    theirs = getattr(_standard.module(f"multiprocessing.{module}"), name, None)
    if not isinstance(theirs, type) or issubclass(kind, theirs):
        return kind
    found = _disguises.get((kind, theirs))
    if found is None:
        members = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
        found = _disguises.setdefault((kind, theirs), type(kind.__name__, (kind, theirs), members))
    return found


class SemLock:
    """What the standard package's queues ask of the kernel object in a lock of theirs."""

    def __init__(self, primitive: Primitive) -> None:
        self._primitive = primitive

    def _get_value(self) -> int:
        return self._primitive.value()

    def _is_zero(self) -> bool:
        return self._primitive.value() == 0
