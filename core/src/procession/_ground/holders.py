"""Who else has a file open: what the kernel knows, and nobody who is killed can get wrong."""

from __future__ import annotations

import os
import sys

_ACCESS = 3  # O_RDONLY, O_WRONLY or O_RDWR


def identity(fd: int) -> tuple[int, int]:
    """Return what tells the file behind *fd* from all others that exist."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def other_holders(fd: int) -> tuple[set[int], set[int]]:
    """Return the other processes that have the file behind *fd* open, and those unknown.

    Of a pipe, only those that have the same end of it. The second set is of processes that
    may not be looked at, as they are another user's. A process is counted from the moment
    at which it is forked, and no longer when it has ended, zombie or not.

    Looks at every descriptor of every process: some milliseconds on a usual machine. Linux
    only, elsewhere `OSError`; `OSError`, too, when descriptors have run out.
    """
    if sys.platform != "linux":
        raise OSError("who holds a file can only be looked up in Linux's /proc")
    link = os.readlink(f"/proc/self/fd/{fd}")
    # The name of a pipe or socket has its number in it; files may share one.
    wanted = None if link.startswith(("pipe:", "socket:")) else identity(fd)
    access = _access("self", str(fd)) if link.startswith("pipe:") else None
    own = str(os.getpid())
    found: set[int] = set()
    unknown: set[int] = set()
    for pid in os.listdir("/proc"):
        if not pid.isdecimal() or pid == own:
            continue
        try:
            if _holds(pid, link, wanted, access):
                found.add(int(pid))
        except PermissionError:
            unknown.add(int(pid))
    return found, unknown


def _holds(pid: str, link: str, wanted: tuple[int, int] | None, access: int | None) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended meanwhile
    for number in numbers:
        path = f"{folder}/{number}"
        try:
            if os.readlink(path) != link:
                continue
            if wanted is not None:
                status = os.stat(path)
                if (status.st_dev, status.st_ino) != wanted:
                    continue
            if access is None or _access(pid, number) == access:
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue  # closed meanwhile
    return False


def _access(pid: str, number: str) -> int:
    """Return whether a descriptor is for reading, for writing or for both."""
    with open(f"/proc/{pid}/fdinfo/{number}", "rb") as file:
        for line in file:
            if line.startswith(b"flags:"):
                return int(line.split()[1], 8) & _ACCESS
    raise OSError(f"the kernel does not tell the mode of descriptor {number}")
