"""All checks, in the order in which they are made."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import procession
from procession._choosing.selection import registry
from procession._commands.doctor import (
    cpus,
    kernel,
    limits,
    memory,
    plugins,
    python,
    temporary,
)
from procession._commands.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from procession._commands.doctor.machine import Machine

__all__ = ["checks", "examine"]


def checks(machine: Machine, *, start: bool = True) -> dict[str, Callable[[], Iterable[Finding]]]:
    """Return the checks of *machine* by name; without *start*, no child is started."""
    found: dict[str, Callable[[], Iterable[Finding]]] = {
        # Before anything here could have started one.
        "threads at start": partial(python.threads, machine.path("/proc/self/task")),
        "kernel": partial(kernel.kernel, machine, kernel.PROBES),
        "transparent huge pages": partial(kernel.huge_pages, machine),
        "tracing": partial(kernel.tracing, machine),
        "shared memory": partial(memory.shared_memory, machine.path("/dev/shm")),
        "memory of the control group": partial(memory.group_memory, machine),
        "CPUs": partial(cpus.cpus, machine),
        "open files": partial(limits.descriptors, machine),
        "processes": partial(limits.processes, machine),
        "pipe quota": partial(limits.pipes, machine),
        "temporary directory": partial(temporary.temporary_directory, os.environ.get("TMPDIR")),
        "Python build": python.build,
        "bytecode": python.bytecode,
        "SIGCHLD": python.child_signal,
        "plugins": lambda: plugins.installed(registry()),
        "selection": plugins.selection,
    }
    if start:
        found["children"] = lambda: plugins.working(
            procession.get_all_start_methods(), procession.get_all_transports()
        )
    return found


def examine(checks: dict[str, Callable[[], Iterable[Finding]]]) -> Iterator[Finding]:
    """Make all *checks*. One that fails is a finding itself, and the others are made."""
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # what it was to find out may be the very reason
            yield Finding(
                Level.PROBLEM,
                name,
                f"could not be looked at: {type(error).__name__}: {error}",
                "see the other findings",
            )
