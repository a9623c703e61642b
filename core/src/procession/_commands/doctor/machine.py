"""The files in which a system describes itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Machine", "size"]

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024
# What a line of mountinfo has at least before and behind its dash.
_FIELDS, _DESCRIBED = 5, 3


@attrs.frozen
class Machine:
    """A system, seen through the files below *root*, which is ``/`` but in tests."""

    root: Path = Path("/")

    def path(self, name: str) -> Path:
        """Return where the file *name*, such as ``/proc/meminfo``, is."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """Return what file *name* says, None if there is none or it cannot be read."""
        try:
            return self.path(name).read_text(errors="replace").strip()
        except OSError:
            return None

    def number(self, name: str) -> int | None:
        """Return the number in file *name*; None without one, as for "max"."""
        text = self.text(name)
        return int(text) if text is not None and text.lstrip("-").isdecimal() else None

    def groups(self, controller: str) -> Iterator[tuple[int, str]]:
        """Yield version and folder of this process's control groups for *controller*.

        The innermost first, then those above it, as far as they can be seen from here.
        """
        memberships = self.text("/proc/self/cgroup") or ""
        mounts = self.text("/proc/self/mountinfo") or ""
        for line in mounts.splitlines():
            before, _, after = line.partition(" - ")
            fields, described = before.split(), after.split()
            if len(fields) < _FIELDS or len(described) < _DESCRIBED:
                continue  # no line of the kernel's
            version = {"cgroup2": 2, "cgroup": 1}.get(described[0])
            if version is None or (version == 1 and controller not in described[2].split(",")):
                continue
            own = _membership(memberships, version, controller)
            if own is None:
                continue
            top, point = fields[3], fields[4]
            inside = Path(own).relative_to(top) if Path(own).is_relative_to(top) else Path()
            if ".." in inside.parts:
                inside = Path()
            for group in (inside, *inside.parents) if inside.parts else (inside,):
                yield version, str(Path(point) / group)


def _membership(text: str, version: int, controller: str) -> str | None:
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if version == 2 and number == "0" and not controllers:
            return path
        if version == 1 and controller in controllers.split(","):
            return path
    return None


def size(count: float) -> str:
    """Return a number of bytes as people write it."""
    for unit in _UNITS:
        if count < _STEP or unit == _UNITS[-1]:
            break
        count /= _STEP
    return (
        f"{count:.0f} {unit}" if count == int(count) or unit == "bytes" else f"{count:.1f} {unit}"
    )
