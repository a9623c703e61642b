"""What could not be pickled: where it is in what was to be pickled, and what would do it.

Imported when something has failed. The object is taken apart, and its parts are pickled one by one,
to nowhere, until a part fails of which all parts can be pickled.
"""

from __future__ import annotations

import copyreg
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from reprlib import Repr
from time import monotonic
from types import FunctionType, MethodType

from procession._ground import standard as _standard
from procession._ground.handoff import Exportable, Handoff, ParcelPickler, parcel_pickler

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeAlias

    from procession._ground.encoder import Encoder

    #: A part of an object: how it is got from it, and the part.
    Part: TypeAlias = "tuple[str, Any]"

__all__ = ["explain"]

#: How long the search may take. What is large enough to need longer is said where it is so far.
SECONDS = 2.0
_SHORT = Repr()
_SHORT.maxother = _SHORT.maxstring = 100
_WITH_BY_VALUE = "cloudpickle"


def explain(
    error: Exception,
    parts: Sequence[Part],
    encoder: Encoder | None,
    reducers: Mapping[type, Callable[[Any], Any]] | None = None,
) -> None:
    """Add notes to *error*, which pickling these *parts* has raised. Raises nothing.

    *encoder* and *reducers* are those that were used. What the objects do when they are pickled,
    they do again.
    """
    if isinstance(error, (OSError, MemoryError, RecursionError)):
        return  # that is not about what was pickled
    try:
        search = _Search(encoder, reducers)
        with _nothing_given():
            search.go(parts)
    except Exception:
        return  # an object that cannot be asked: the error itself is all there is to say
    if search.path:
        error.add_note(f"what cannot be pickled is {search.path}: {_text(search.culprit)}")
        if encoder is None and isinstance(search.culprit, (FunctionType, type)):
            error.add_note(_suggestion())


def _nothing_given() -> AbstractContextManager[None]:
    """Keep objects of the standard package from offering descriptors that nobody would fetch."""
    if not _standard.is_loaded():
        return nullcontext()
    from procession._standard.descriptors import Spawning

    return Spawning()


def _suggestion() -> str:
    from procession._choosing import selection

    select = f"procession.set_serializer({_WITH_BY_VALUE!r})"
    if _WITH_BY_VALUE not in selection.registry().names("serializer"):
        select = f"pip install procession-{_WITH_BY_VALUE}, and {select}"
    return (
        f"functions and classes that cannot be imported are pickled by the serializer "
        f"{_WITH_BY_VALUE!r}: {select}"
    )


class _Search:
    """The search for one culprit."""

    def __init__(
        self,
        encoder: Encoder | None,
        reducers: Mapping[type, Callable[[Any], Any]] | None,
    ) -> None:
        self._by_value = encoder is not None and encoder.serializer.features.by_value
        base = ParcelPickler if encoder is None else parcel_pickler(encoder.serializer.pickler())
        self._probe = type("_Probe", (_Sparing, base), {})
        self._reducers = dict(reducers or {})
        # The objects that were taken apart: they are in the way where parts refer to them.
        self._passed: dict[int, Any] = {}
        self._deadline = monotonic() + SECONDS
        #: How to get to the culprit, as far as it was found; empty if it was not.
        self.path = ""
        self.culprit: Any = None

    def go(self, parts: Sequence[Part]) -> None:
        """Find the culprit in *parts*."""
        try:
            while (failing := self._first_failing(parts)) is not None:
                name, self.culprit = failing
                self.path += name
                self._passed[id(self.culprit)] = self.culprit
                parts = _parts(self.culprit, by_value=self._by_value)
        except _TooLongError:
            return  # it is somewhere in what was found

    def _first_failing(self, parts: Sequence[Part]) -> Part | None:
        if not self._fails(parts):
            return None
        # Halving: a long list takes about as long as pickling it once more.
        while len(parts) > 1:
            half = parts[: len(parts) // 2]
            parts = half if self._fails(half) else parts[len(half) :]
        return parts[0]

    def _fails(self, parts: Sequence[Part]) -> bool:
        if monotonic() > self._deadline:
            raise _TooLongError
        probe = self._probe(_Nowhere(), _NoHandoff(), self._reducers)
        probe.spared = self._passed
        try:
            probe.dump([part for _, part in parts])
        except Exception:
            return True
        return False


class _TooLongError(Exception):
    """The search has taken long enough."""


class _Sparing:
    """Part of a pickler that leaves out some objects."""

    spared: Mapping[int, Any]

    def persistent_id(self, obj: Any) -> int | None:
        """Return a number for what is left out."""
        return 0 if id(obj) in self.spared else None


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


class _NoHandoff(Handoff):
    """Promises nothing: the other side does not exist."""

    def give(self, fd: int, /) -> Any:
        """Return some token."""
        return 0


def _parts(obj: Any, *, by_value: bool) -> list[Part]:
    """Return what *obj* is made of, as far as pickling it goes; nothing for what has no parts."""
    if isinstance(obj, (type, Exportable)):
        return []
    if isinstance(obj, FunctionType):
        return _function_parts(obj) if by_value else []
    if isinstance(obj, MethodType):
        return [(".__self__", obj.__self__), (".__func__", obj.__func__)]
    if isinstance(obj, partial):
        return [(".func", obj.func), (".args", obj.args), (".keywords", obj.keywords)]
    kind = type(obj)
    if kind is dict:
        keys = [(f".keys(){_index(key)}", key) for key in obj]
        return [*keys, *((_index(key), value) for key, value in obj.items())]
    if kind is list or isinstance(obj, tuple):
        return [(f"[{index}]", item) for index, item in enumerate(obj)]
    if kind in (set, frozenset):
        return [(_index(item), item) for item in obj]
    try:
        return _reduced_parts(obj)
    except Exception:
        return []  # it cannot be taken apart, which is what is wrong with it


def _reduced_parts(obj: Any) -> list[Part]:
    registered = copyreg.dispatch_table.get(type(obj))
    reduced: Any = obj.__reduce_ex__(5) if registered is None else registered(obj)
    if isinstance(reduced, str):
        return []
    filled: tuple[Any, ...] = (*reduced, None, None, None)
    arguments, state, items, mapping = filled[1:5]
    parts: list[Part] = []
    for each in state if isinstance(state, tuple) else (state,):
        if isinstance(each, dict):
            parts += [(f".{name}", value) for name, value in each.items()]
        elif each is not None:
            parts.append((".__getstate__()", each))
    parts += [(f"[{index}]", item) for index, item in enumerate(items or ())]
    parts += [(_index(key), value) for key, value in mapping or ()]
    # Last: what is in the state, too, is better known by its name.
    name = ".args" if isinstance(obj, BaseException) else ".__reduce__()[1]"
    return [*parts, *((f"{name}[{index}]", each) for index, each in enumerate(arguments))]


def _function_parts(function: FunctionType) -> list[Part]:
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    parts = [(f".<locals>.{name}", cell.cell_contents) for name, cell in cells]
    names = function.__globals__
    parts += [(f".<globals>.{name}", names[name]) for name in code.co_names if name in names]
    return [*parts, (".__defaults__", function.__defaults__), (".__dict__", vars(function))]


def _index(key: Any) -> str:
    return f"[{_text(key)}]"


def _text(obj: Any) -> str:
    return _SHORT.repr(obj)  # which survives a repr that raises
