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
