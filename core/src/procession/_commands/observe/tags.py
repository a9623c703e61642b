"""Reading name tags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from procession._processes.report_file import position_of
from procession._starting.name_tag import PREFIX, RENAMED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from procession._commands.observe.descriptors import Descriptor

__all__ = ["Tag", "find"]


@attrs.frozen
class Tag:
    """What a process says about itself. The pids are those of its own namespace."""

    pid: int
    parent: int
    method: str
    name: str


def find(descriptors: Iterable[Descriptor], pid: int) -> Tag | None:
    """Return the tag that belongs to *pid*, not one that was inherited; the newer of two."""
    found: Tag | None = None
    for descriptor in descriptors:
        prefix, _, rest = descriptor.label.partition(":")
        if prefix not in (PREFIX, RENAMED) or descriptor.field("pos") != str(position_of(pid)):
            continue
        parent, method, name = rest.split(":", 2)
        tag = Tag(pid, int(parent), method, name)
        if prefix == RENAMED:
            return tag
        found = tag
    return found
