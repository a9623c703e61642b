"""Reading name tags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from procession._name_tag import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from procession._observe.descriptors import Descriptor

__all__ = ["Tag", "find"]


@attrs.frozen
class Tag:
    """What a process says about itself. The pids are those of its own namespace."""

    pid: int
    parent: int
    method: str
    name: str


def find(descriptors: Iterable[Descriptor], pid: int) -> Tag | None:
    """Return the tag that belongs to *pid*, not one that was inherited."""
    for descriptor in descriptors:
        if descriptor.label.startswith(PREFIX + ":"):
            _, own, parent, method, name = descriptor.label.split(":", 4)
            if int(own) == pid:
                return Tag(pid, int(parent), method, name)
    return None
