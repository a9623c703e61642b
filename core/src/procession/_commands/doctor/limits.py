"""How many descriptors, processes and pipes there may be, and how many there are."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from procession._commands.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from procession._commands.doctor.machine import Machine

__all__ = ["descriptors", "pipes", "processes"]

# A child is a descriptor in its parent, a queue is five, a connection up to two.
_FEW_DESCRIPTORS = 1024
_TOO_FEW_DESCRIPTORS = 64
_FEW_PROCESSES = 128
_TOO_FEW_PROCESSES = 8
# A pipe has sixteen pages unless its user's quota is exhausted.
_PAGES_OF_A_PIPE = 16
_FEW_PIPES = 256


def descriptors(machine: Machine) -> Iterator[Finding]:
    """Look at the limit of open files of this process."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = len(os.listdir(machine.path("/proc/self/fd")))
    except OSError:
        used = 0
    found = f"{_number(soft)} (hard limit {_number(hard)}), {used} in use"
    left = soft - used
    advice = "raise it with ulimit -n (containers: --ulimit nofile=65536)"
    if 0 <= soft and left < _TOO_FEW_DESCRIPTORS:
        yield Finding(Level.PROBLEM, "open files", f"{found}: too few to start processes", advice)
    elif 0 <= soft < _FEW_DESCRIPTORS:
        yield Finding(Level.WARNING, "open files", found, advice)
    elif soft == _FEW_DESCRIPTORS != hard:
        yield Finding(
            Level.NOTE,
            "open files",
            found,
            "with more than a hundred queues, or several hundred children, raise it with ulimit -n",
        )
    else:
        yield Finding(Level.OK, "open files", found)


def processes(machine: Machine) -> Iterator[Finding]:
    """Look at what limits the number of processes and threads."""
    limits: list[tuple[int, str]] = []
    running = _running(machine)
    if sys.platform != "win32":
        import resource

        soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        # The kernel does not hold root to it.
        if soft != resource.RLIM_INFINITY and os.geteuid() != 0:
            limits.append((soft - _of_user(machine), f"RLIMIT_NPROC {soft}"))
    for _, folder in machine.groups("pids"):
        limit = machine.number(f"{folder}/pids.max")
        if limit is not None:
            used = machine.number(f"{folder}/pids.current") or 0
            limits.append((limit - used, f"pids.max {limit} of {folder}"))
    for name in ("pid_max", "threads-max"):
        limit = machine.number(f"/proc/sys/kernel/{name}")
        if limit is not None:
            limits.append((limit - running, f"kernel.{name} {limit}"))
    if not limits:
        yield Finding(Level.NOTE, "processes", "nothing tells how many there may be")
        return
    left, tightest = min(limits)
    others = ", ".join(text for _, text in limits if text != tightest)
    found = f"room for {max(0, left)} more, threads included: {tightest}"
    found += f" (also {others})" if others else ""
    advice = "raise the limit (containers: --pids-limit; users: ulimit -u), or start fewer"
    if left < _TOO_FEW_PROCESSES:
        yield Finding(Level.PROBLEM, "processes", found, advice)
    elif left < _FEW_PROCESSES:
        yield Finding(Level.WARNING, "processes", found, advice)
    else:
        yield Finding(Level.OK, "processes", found)


def pipes(machine: Machine) -> Iterator[Finding]:
    """Look at the quota of memory in pipes, after which new ones hold one page only."""
    quota = machine.number("/proc/sys/fs/pipe-user-pages-soft")
    if quota is None:
        yield Finding(Level.NOTE, "pipe quota", "nothing tells it")
    elif 0 < quota < _FEW_PIPES * _PAGES_OF_A_PIPE:
        yield Finding(
            Level.WARNING,
            "pipe quota",
            f"{quota} pages, enough for {quota // _PAGES_OF_A_PIPE} pipes of full size",
            "sysctl fs.pipe-user-pages-soft=16384; later pipes of this user hold 4 to 8 KiB, and "
            "queues over them are slow",
        )
    else:
        enough = f"enough for {quota // _PAGES_OF_A_PIPE} pipes of full size" if quota else "none"
        yield Finding(Level.OK, "pipe quota", f"{quota} pages, {enough}" if quota else enough)


def _running(machine: Machine) -> int:
    """Return how many threads the system has."""
    load = (machine.text("/proc/loadavg") or "").split()
    counts = load[3].partition("/")[2] if len(load) > 3 else ""
    return int(counts) if counts.isdecimal() else 0


def _of_user(machine: Machine) -> int:
    """Return how many threads the processes of this user have."""
    if sys.platform == "win32":
        return 0
    count = 0
    for status in machine.path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(
                line.split(":", 1) for line in status.read_text().splitlines() if ":" in line
            )
        except OSError:
            continue  # it ended meanwhile
        if int(lines.get("Uid", "-1").split()[0]) == os.getuid():
            count += int(lines.get("Threads", "1"))
    return count


def _number(limit: int) -> str:
    return "unlimited" if limit < 0 else str(limit)
