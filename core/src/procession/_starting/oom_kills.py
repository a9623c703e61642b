"""How many processes the kernel has killed for want of memory, in this control group."""

from __future__ import annotations

import os
import time

_MOUNT = "/sys/fs/cgroup"
# A start takes a count that is so old at most: to read it again for each of a hundred starts
# a second would cost each of them a hundredth.
_FRESH_SECONDS = 0.1


class OomKills:
    """The count of this process's control group; version 1 and 2, where they usually are.

    Holds nothing open. Threads: any. Fork: a copy of the process goes on with it.
    """

    def __init__(self) -> None:
        # The files of the count and of the limit; None: not looked for yet.
        self._files: tuple[str, str] | None = None
        self._count: int | None = None
        self._read_at = float("-inf")

    def recent(self) -> int | None:
        """Return the count of a moment ago; None where it cannot be known."""
        if time.monotonic() - self._read_at < _FRESH_SECONDS:
            return self._count
        return self.now()

    def now(self) -> int | None:
        """Return the count; None where it cannot be known."""
        if self._files is None:
            self._files = _find()
        try:
            with open(self._files[0], "rb", buffering=0) as file:
                words = file.read().split()
            self._count = int(words[words.index(b"oom_kill") + 1])
        except (OSError, ValueError):
            self._count = None  # the group is gone, or the kernel is older than 4.13
        self._read_at = time.monotonic()
        return self._count

    def limit(self) -> int | None:
        """Return how many bytes the group may use; None without a limit."""
        try:
            with open(self._files[1] if self._files else "", "rb") as file:
                limit = int(file.read())
        except (OSError, ValueError):
            return None  # no such file, or "max"
        return limit if limit < 1 << 60 else None  # version 1 has a huge number for none


def _find() -> tuple[str, str]:
    """Return the files of the count and of the limit; empty names where there are none."""
    for folder, events, limit in _places():
        if os.path.exists(f"{folder}/{events}"):
            return f"{folder}/{events}", f"{folder}/{limit}"
    return "", ""


def _places() -> list[tuple[str, str, str]]:
    """Return folders that may be this process's group, with the names of two files there."""
    found = []
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return []  # not Linux, or no /proc
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # The path is not there in a container with a view of its own: the mount is the group.
        if "memory" in controllers.split(","):
            mount = f"{_MOUNT}/memory"
            names = "memory.oom_control", "memory.limit_in_bytes"
        elif not controllers:
            mount, names = _MOUNT, ("memory.events", "memory.max")
        else:
            continue
        found += [(mount + path, *names), (mount, *names)]
    return found


#: This process's own.
oom_kills = OomKills()
