"""Values with named fields, for what a program's first child needs.

What users set and read (options, the selection, reports) are attrs classes. attrs takes as long
to be imported as everything else until the first child runs, and each of its classes is compiled
when it is defined; what lies on that way is therefore made of this, which does less.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any, ClassVar, NoReturn, Self, dataclass_transform
else:

    def dataclass_transform(**_: object) -> object:
        """Tell type checkers, which read the other one, and nobody else."""
        return lambda cls: cls


__all__ = ["Value"]


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Value:
    """A base of classes whose instances are what their fields are, and stay so.

    Each annotation in the body of a subclass is a field, with what is assigned to it as the
    default; fields are given by keyword. TypeError for one that is unknown or missing.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _required: ClassVar[frozenset[str]] = frozenset()
    _known: ClassVar[frozenset[str]] = frozenset()
    #: The fields that `repr` leaves out.
    _hidden: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        own = cls.__annotations__
        cls._fields = tuple(dict.fromkeys((*cls._fields, *own)))
        cls._required = frozenset(name for name in cls._fields if not hasattr(cls, name))
        cls._known = frozenset(cls._fields)

    def __init__(self, **fields: Any) -> None:
        if not (self._required <= fields.keys() <= self._known):
            self._refuse(fields)
        self.__dict__.update(fields)  # defaults are the class's attributes
        self.check()

    def check(self) -> None:
        """Raise what is to be raised for the values of the fields; for subclasses."""

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values of some fields."""
        given = {name: self.__dict__[name] for name in self._fields if name in self.__dict__}
        return type(self)(**{**given, **changes})

    def as_dict(self) -> dict[str, Any]:
        """Return the values of all fields by name, defaults included."""
        return {name: getattr(self, name) for name in self._fields}

    def _refuse(self, fields: dict[str, Any]) -> NoReturn:
        missing = [name for name in self._fields if name in self._required - fields.keys()]
        unknown = [name for name in fields if name not in self._fields]
        complaints = []
        if missing:
            complaints.append(f"needs {', '.join(missing)}")
        if unknown:
            complaints.append(f"has no {', '.join(unknown)}; it has {', '.join(self._fields)}")
        raise TypeError(f"{type(self).__name__} {', and '.join(complaints)}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name!r} of a {type(self).__name__} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name!r} of a {type(self).__name__} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash((type(self), *self.as_dict().values()))

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={value!r}"
            for name, value in self.as_dict().items()
            if name not in self._hidden
        )
        return f"{type(self).__name__}({shown})"
