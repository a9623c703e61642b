"""The key by which related processes know each other."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any


class AuthenticationString(bytes):
    """A secret that goes to children and nowhere else."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse: only the parcel of a child may carry the key."""
        raise TypeError(
            "Pickling an AuthenticationString object is disallowed for security reasons: "
            "the key would leave the family of processes that it protects"
        )


def reduce_for_child(key: AuthenticationString) -> tuple[Any, ...]:
    """Pickle *key* for the parcel of a child."""
    return AuthenticationString, (bytes(key),)


class FamilyKey:
    """A key, or None, that goes to children and is left out of every other pickle."""

    __slots__ = ("key",)

    def __init__(self, key: bytes | None = None) -> None:
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the key: whoever gets this has to know it already."""
        return FamilyKey, ()


def reduce_family_key(key: FamilyKey) -> tuple[Any, ...]:
    """Pickle *key* for the parcel of a child."""
    return FamilyKey, (None if key.key is None else bytes(key.key),)
