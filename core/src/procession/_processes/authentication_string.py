"""The key by which related processes know each other."""

from __future__ import annotations

from procession._ground import standard as _standard

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any


class AuthenticationString(bytes):
    """A secret that goes to children and nowhere else."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse: only the parcel of a child may carry the key."""
        if _for_a_standard_child():
            return reduce_for_child(self)
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
        """Pickle without the key: whoever gets this has to know it already.

        A child that the standard package starts does not know it, and may.
        """
        if _for_a_standard_child():
            from procession.process import current_process

            return reduce_family_key(FamilyKey(self.key or current_process().authkey))
        return FamilyKey, ()


def _for_a_standard_child() -> bool:
    """Return whether the standard package starts a process in this thread."""
    if not _standard.is_loaded():
        return False
    from procession._standard.descriptors import is_spawning

    return is_spawning()


def reduce_family_key(key: FamilyKey) -> tuple[Any, ...]:
    """Pickle *key* for the parcel of a child."""
    return FamilyKey, (None if key.key is None else bytes(key.key),)
