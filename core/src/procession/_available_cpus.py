"""How many CPUs this process may use, and what limits them."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Self

__all__ = ["AvailableCpus", "CpuLimit", "available_cpus"]


@attrs.frozen
class CpuLimit:
    """Something that says how many CPUs there are, or are to be used."""

    source: str
    """``machine``, ``affinity``, ``cgroup`` or ``setting``."""

    cpus: float
    """How many it allows; a quota need not be whole."""

    detail: str
    """Where it was found."""

    def __str__(self) -> str:
        return f"{self.source}: {self.cpus:g} ({self.detail})"


class AvailableCpus(int):
    """A number of CPUs that knows where it comes from; an ``int`` in every other respect."""

    limits: tuple[CpuLimit, ...]
    """Everything that was found, the one that decided first."""

    def __new__(cls, count: int, limits: tuple[CpuLimit, ...]) -> Self:
        """Return the number *count* with the *limits* that it comes from."""
        self = super().__new__(cls, count)
        self.limits = limits
        return self

    @property
    def count(self) -> int:
        """The number itself."""
        return int(self)

    @property
    def reason(self) -> str:
        """What limits the number, and what else there is, on one line."""
        return "; ".join(map(str, self.limits))

    def __repr__(self) -> str:
        """Return the number and its reason."""
        return f"<{int(self)} CPUs; {self.reason}>"

    def __str__(self) -> str:
        """Return the number."""
        return int.__repr__(self)

    def __getnewargs__(self) -> tuple[int, tuple[CpuLimit, ...]]:  # type: ignore[override]
        """Pickle and copy with the limits."""
        return int(self), self.limits


def available_cpus() -> AvailableCpus:
    """Return how many CPUs this process may use at once: 1 or more, an ``int``.

    The smallest of what the machine has, what the affinity of the process allows, and what
    the CPU quotas of its control groups and of all those above them (version 1 and 2) allow;
    a part of a CPU counts as a whole one. ``-X cpu_count`` and ``PYTHON_CPU_COUNT`` outrank
    all of these. The answer is looked up anew each time; its `reason` says what decided.
    """
    environ = {} if sys.flags.ignore_environment else os.environ
    return AvailableCpus(*_decide(_limits(Path("/"), environ, sys._xoptions)))


def _decide(limits: list[CpuLimit]) -> tuple[int, tuple[CpuLimit, ...]]:
    ordered = sorted(limits, key=lambda limit: (limit.source != "setting", math.ceil(limit.cpus)))
    return max(1, math.ceil(ordered[0].cpus)), tuple(ordered)


def _limits(root: Path, environ: Mapping[str, str], options: Mapping[str, Any]) -> list[CpuLimit]:
    """Return all limits; *root* is where ``proc`` and the mount points are found."""
    found = [CpuLimit("machine", _machine(), "processors online")]
    if sys.platform == "linux":
        affinity = len(os.sched_getaffinity(0))
        found.append(CpuLimit("affinity", affinity, "sched_getaffinity"))
    found += _quotas(root)
    setting = _setting(environ, options)
    return found if setting is None else [*found, setting]


def _machine() -> int:
    # From Python 3.13 os.cpu_count answers what -X cpu_count says.
    if sys.platform != "win32" and "SC_NPROCESSORS_ONLN" in os.sysconf_names:
        return max(1, os.sysconf("SC_NPROCESSORS_ONLN"))
    return os.cpu_count() or 1


def _setting(environ: Mapping[str, str], options: Mapping[str, Any]) -> CpuLimit | None:
    for where, value in (
        ("-X cpu_count", options.get("cpu_count")),
        (
            "PYTHON_CPU_COUNT",
            None if sys.flags.ignore_environment else environ.get("PYTHON_CPU_COUNT"),
        ),
    ):
        # "default" is how an option takes the variable back.
        if value == "default":
            return None
        # Python 3.13 refuses to start with other values; older ones know none of this.
        if isinstance(value, str) and value.isdecimal() and int(value) > 0:
            return CpuLimit("setting", int(value), where)
    return None


def _quotas(root: Path) -> Iterator[CpuLimit]:
    """Yield the quotas of the control groups of this process, from the innermost out."""
    try:
        memberships = (root / "proc/self/cgroup").read_text()
        mounts = (root / "proc/self/mountinfo").read_text()
    except OSError:
        return  # not Linux, or no /proc
    groups = dict(_groups(memberships))
    for version, top, point in _mounts(mounts):
        if version not in groups:
            continue
        for group in _upwards(groups[version], top):
            folder = root / point.relative_to("/") / group
            cpus = _quota(folder, version)
            if cpus is not None:
                yield CpuLimit("cgroup", cpus, f"quota of {PurePosixPath('/', point, group)}")


def _groups(memberships: str) -> Iterator[tuple[int, PurePosixPath]]:
    """Yield the version and the path of the groups that can have a CPU quota."""
    for line in memberships.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield 2, PurePosixPath(path)
        elif "cpu" in controllers.split(","):
            yield 1, PurePosixPath(path)


def _mounts(text: str) -> Iterator[tuple[int, PurePosixPath, PurePosixPath]]:
    """Yield version, topmost group and mount point of the hierarchies with CPU quotas."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, *options) = before.split(), after.split()
        top, point = (PurePosixPath(_unescape(each)) for each in fields[3:5])
        if kind == "cgroup2":
            yield 2, top, point
        elif kind == "cgroup" and options and "cpu" in options[0].split(","):
            yield 1, top, point


def _unescape(path: str) -> str:
    """Return what mountinfo writes in octal, such as spaces."""
    for code in ("040", "011", "012", "134"):
        path = path.replace(f"\\{code}", chr(int(code, 8)))
    return path


def _upwards(group: PurePosixPath, top: PurePosixPath) -> Iterator[PurePosixPath]:
    """Yield *group* and all above it, relative to the mount whose root is *top*.

    A group outside of what is mounted is not visible; the mount itself is looked at then,
    which is this process's own group in a container with a view of its own.
    """
    inside = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
    if ".." in inside.parts:
        inside = PurePosixPath()
    yield inside
    if inside.parts:
        yield from inside.parents


def _quota(folder: Path, version: int) -> float | None:
    """Return the CPUs that the quota of one group allows, None without one."""
    try:
        if version == 2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        if quota == "max" or int(quota) <= 0 or int(period) <= 0:
            return None
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None  # a group without the controller, or one that is gone
