"""Shared memory, and the memory that the control groups allow."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from procession._commands.doctor.finding import Finding, Level
from procession._commands.doctor.machine import size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from procession._commands.doctor.machine import Machine

__all__ = ["group_memory", "shared_memory"]

# What containers get when nobody asks for more.
_SMALL = 64 << 20
_LOW = 16 << 20
_SCARCE = 0.05
# What version 1 says for no limit is the largest number of pages.
_UNLIMITED = 1 << 60


def shared_memory(folder: Path, space: tuple[int, int] | None = None) -> Iterator[Finding]:
    """Look at ``/dev/shm``. *space*: its size and what is free of it, in bytes, for tests."""
    if sys.platform == "win32":
        return
    if space is None:
        try:
            status = os.statvfs(folder)
        except OSError as error:
            yield Finding(
                Level.WARNING,
                str(folder),
                f"cannot be used: {error.strerror}",
                "mount a tmpfs there (in Docker it is there by itself); named shared memory and "
                "multiprocessing's semaphores need it",
            )
            return
        space = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    total, free = space
    found = f"{size(total)}, {size(free)} of it free"
    advice = "run the container with --shm-size=1g (Compose: shm_size), or use --ipc=host"
    if not os.access(folder, os.W_OK):
        yield Finding(
            Level.PROBLEM, str(folder), f"{found}, but it cannot be written to", "chmod 1777 it"
        )
    elif free < _LOW:
        yield Finding(
            Level.WARNING, str(folder), found, f"remove what dead programs left there, or {advice}"
        )
    elif total <= _SMALL:
        yield Finding(Level.WARNING, str(folder), f"{found}: what containers get", advice)
    else:
        yield Finding(Level.OK, str(folder), found)


def group_memory(machine: Machine) -> Iterator[Finding]:
    """Look at the memory limits of the control groups."""
    tightest: tuple[int, int, str] | None = None
    for version, folder in machine.groups("memory"):
        limit_name, usage_name = {
            2: ("memory.max", "memory.current"),
            1: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        }[version]
        limit = machine.number(f"{folder}/{limit_name}")
        used = machine.number(f"{folder}/{usage_name}")
        if limit is None or limit >= _UNLIMITED or used is None:
            continue
        left = limit - used
        if tightest is None or left < tightest[0]:
            tightest = left, limit, folder
    if tightest is None:
        yield Finding(Level.OK, "memory of the control group", "no limit")
        return
    left, limit, folder = tightest
    found = f"{size(limit)}, of which {size(max(0, left))} are not used ({folder})"
    if left < limit * _SCARCE:
        yield Finding(
            Level.WARNING,
            "memory of the control group",
            found,
            "give the container more memory, or start fewer processes: at the limit the kernel "
            "kills one of them",
        )
    else:
        yield Finding(Level.OK, "memory of the control group", found)
