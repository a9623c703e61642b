"""What the system's limits are: what the errors about resources that have run out say.

Load this module early: when descriptors have run out no module can be loaded any more. Every
function returns "unknown" or None for what cannot be found out, as then.
"""

from __future__ import annotations

import os
import sys

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_CGROUP = "/sys/fs/cgroup"
_MEMINFO = "/proc/meminfo"


def limit(name: str) -> str:
    """Return this process's limit *name*, such as ``RLIMIT_NOFILE``, as text."""
    if sys.platform == "win32":
        return "unknown"
    number = getattr(resource, name, None)
    if number is None:
        return "unknown"
    soft = resource.getrlimit(number)[0]
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)


def system_limit(name: str) -> str | None:
    """Return the setting *name* of the kernel, such as ``fs/file-max``."""
    return _read(f"/proc/sys/{name}")


def group_limit(name: str) -> str | None:
    """Return the setting *name* of this process's control group, such as ``pids.max``."""
    return _read(f"{_own_group()}/{name}")


def user() -> str:
    """Return the number of the user whose processes are counted."""
    if sys.platform == "win32":
        return "?"
    return str(os.getuid())


def open_files_of_all() -> str:
    """Return in words that the whole system has too many open files."""
    maximum = system_limit("fs/file-max") or "unknown"
    return f"too many open files in the whole system (fs.file-max is {maximum})"


def available_memory() -> tuple[int, str] | None:
    """Return how many bytes can be had, and what says so; None where nobody knows."""
    limits = []
    machine = _fields(_read(_MEMINFO) or "")
    if "MemAvailable:" in machine:
        free = (machine["MemAvailable:"] + machine.get("SwapFree:", 0)) << 10
        limits.append((free, "what the machine has free, with swap"))
    folder = _own_group()
    while folder.startswith(_CGROUP):
        most = _read(f"{folder}/memory.max") or ""
        used = _read(f"{folder}/memory.current") or ""
        if most.isdigit() and used.isdigit():
            cached = _fields(_read(f"{folder}/memory.stat") or "")
            reclaimable = cached.get("inactive_file", 0) + cached.get("active_file", 0)
            free = max(0, int(most) - int(used) + reclaimable)
            limits.append((free, f"memory.max of the control group {folder} is {most}"))
        folder = os.path.dirname(folder)
    return min(limits, default=None)


def _own_group() -> str:
    """Return the folder of this process's control group (version 2)."""
    group = (_read("/proc/self/cgroup") or "").rpartition("::")[2].strip("/")
    return f"{_CGROUP}/{group}" if group else _CGROUP


def _fields(text: str) -> dict[str, int]:
    """Return the numbers of lines such as ``MemFree: 123 kB``."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None  # another platform, no permission, or no descriptor left to read it with
