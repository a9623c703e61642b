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
# What version 1 calls some things, and the huge number that it has for "max".
_OLD_NAMES = {
    "memory.max": "memory.limit_in_bytes",
    "memory.current": "memory.usage_in_bytes",
}
_NO_LIMIT = 1 << 60
_MEMINFO = "/proc/meminfo"

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Iterator


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


def group_limit(name: str) -> int | None:
    """Return the smallest *name*, such as ``pids.max``, of this process's control groups."""
    found = (_number(folder, name) for folder in _groups(name.partition(".")[0]))
    return min((limit for limit in found if limit is not None), default=None)


def room_in(directory: str) -> str:
    """Return in words how much room the file system of *directory* has."""
    if sys.platform == "win32":
        return "unknown"
    try:
        file_system = os.statvfs(directory)
    except OSError:
        return "unknown"
    size = file_system.f_blocks * file_system.f_frsize
    free = file_system.f_bavail * file_system.f_frsize
    return f"its size is {size} bytes, {free} of them free, and {file_system.f_favail} more files"


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
    for folder in _groups("memory"):
        most, used = _number(folder, "memory.max"), _number(folder, "memory.current")
        if most is not None and used is not None:
            cached = _fields(_read(f"{folder}/memory.stat") or "")
            reclaimable = cached.get("inactive_file", 0) + cached.get("active_file", 0)
            free = max(0, most - used + reclaimable)
            limits.append((free, f"memory.max of the control group {folder} is {most}"))
    return min(limits, default=None)


def _groups(controller: str) -> Iterator[str]:
    """Yield the folders of this process's control groups, each before the one it is in.

    Both versions, where they usually are. In a container with a view of its own the mount
    itself is the group, and what seems to be inside is not there.
    """
    for line in (_read("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount = _CGROUP
        elif controller in controllers.split(","):
            mount = f"{_CGROUP}/{controller}"
        else:
            continue
        folder = f"{mount}{path}".rstrip("/")
        while folder.startswith(mount):
            yield folder
            folder = os.path.dirname(folder)


def _number(folder: str, name: str) -> int | None:
    """Return a limit or count of a control group; None without one."""
    text = _read(f"{folder}/{name}") or _read(f"{folder}/{_OLD_NAMES.get(name, name)}") or ""
    number = int(text) if text.isdigit() else None
    return number if number is None or number < _NO_LIMIT else None


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
