"""How many CPUs this process may use, and what limits them."""

from __future__ import annotations

import os
import sys

from procession._ground.value import Value

TYPE_CHECKING = False  # a pool asks, as a rule: every module is part of its first result
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Self

__all__ = ["AvailableCpus", "CpuLimit", "available_cpus"]


class CpuLimit(Value):
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
    return AvailableCpus(*_decide(_limits("/", environ, sys._xoptions)))


def _decide(limits: list[CpuLimit]) -> tuple[int, tuple[CpuLimit, ...]]:
    ordered = sorted(limits, key=lambda limit: (limit.source != "setting", _whole(limit.cpus)))
    return max(1, _whole(ordered[0].cpus)), tuple(ordered)


def _whole(cpus: float) -> int:
    """Return *cpus* with a part of one counted as one."""
    return -int(-cpus // 1)


def _limits(
    root: str | os.PathLike[str], environ: Mapping[str, str], options: Mapping[str, Any]
) -> list[CpuLimit]:
    """Return all limits; *root* is where ``proc`` and the mount points are found."""
    found = [CpuLimit(source="machine", cpus=_machine(), detail="processors online")]
    if sys.platform == "linux":
        affinity = len(os.sched_getaffinity(0))
        found.append(CpuLimit(source="affinity", cpus=affinity, detail="sched_getaffinity"))
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
            return CpuLimit(source="setting", cpus=int(value), detail=where)
    return None


def _quotas(root: str | os.PathLike[str]) -> Iterator[CpuLimit]:
    """Yield the quotas of the control groups of this process, from the innermost out."""
    try:
        memberships = _read(os.path.join(root, "proc/self/cgroup"))
        mounts = _read(os.path.join(root, "proc/self/mountinfo"))
    except OSError:
        return  # not Linux, or no /proc
    groups = dict(_groups(memberships))
    for version, top, point in _mounts(mounts):
        if version not in groups:
            continue
        for group in _upwards(groups[version], top):
            inside = [*_parts(point), *group]
            cpus = _quota(os.path.join(root, *inside), version)
            if cpus is not None:
                detail = f"quota of /{'/'.join(inside)}"
                yield CpuLimit(source="cgroup", cpus=cpus, detail=detail)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _groups(memberships: str) -> Iterator[tuple[int, str]]:
    """Yield the version and the path of the groups that can have a CPU quota."""
    for line in memberships.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield 2, path
        elif "cpu" in controllers.split(","):
            yield 1, path


def _mounts(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield version, topmost group and mount point of the hierarchies with CPU quotas."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, *options) = before.split(), after.split()
        top, point = map(_unescape, fields[3:5])
        if kind == "cgroup2":
            yield 2, top, point
        elif kind == "cgroup" and options and "cpu" in options[0].split(","):
            yield 1, top, point


def _unescape(path: str) -> str:
    """Return what mountinfo writes in octal, such as spaces."""
    for code in ("040", "011", "012", "134"):
        path = path.replace(f"\\{code}", chr(int(code, 8)))
    return path


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _upwards(group: str, top: str) -> Iterator[list[str]]:
    """Yield *group* and all above it, as the parts below the mount whose root is *top*.

    A group outside of what is mounted is not visible; the mount itself is looked at then,
    which is this process's own group in a container with a view of its own.
    """
    inside, above = _parts(group), _parts(top)
    inside = inside[len(above) :] if inside[: len(above)] == above else []
    if ".." in inside:
        inside = []
    for length in range(len(inside), -1, -1):
        yield inside[:length]


def _quota(folder: str, version: int) -> float | None:
    """Return the CPUs that the quota of one group allows, None without one."""
    try:
        if version == 2:
            quota, period = _read(os.path.join(folder, "cpu.max")).split()
        else:
            quota = _read(os.path.join(folder, "cpu.cfs_quota_us")).strip()
            period = _read(os.path.join(folder, "cpu.cfs_period_us")).strip()
        if quota == "max" or int(quota) <= 0 or int(period) <= 0:
            return None
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None  # a group without the controller, or one that is gone
