"""What is selected, and why: the answer of `procession.selection()`."""

from __future__ import annotations

import attrs

__all__ = ["Choice", "Selection"]


@attrs.frozen
class Choice:
    """A name, and who has chosen it."""

    name: str
    """The name of the start method, transport or serializer."""

    source: str
    """One of ``argument``, ``scope``, ``set``, ``inherited``, ``environment``,
    ``configuration`` and ``default``, in order of precedence."""

    detail: str
    """Where exactly: a place in the program, a variable, a file, or the reasons why
    nothing earlier in the list of defaults was taken."""

    def __str__(self) -> str:
        return f"{self.name} ({self.source}: {self.detail})"


@attrs.frozen
class Selection:
    """The start method, transport and serializer that would be used now, each with its reason."""

    start_method: Choice
    transport: Choice
    serializer: Choice

    def __str__(self) -> str:
        return (
            f"start method {self.start_method}, transport {self.transport}, "
            f"serializer {self.serializer}"
        )
