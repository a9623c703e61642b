"""How many CPUs there are, and how much of them the control groups allow."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from procession._commands.doctor.finding import Finding, Level
from procession._starting.available_cpus import AvailableCpus, _decide, _limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from procession._commands.doctor.machine import Machine

__all__ = ["cpus"]


def cpus(machine: Machine) -> Iterator[Finding]:
    """Compare the CPUs that may be used with those that programs count."""
    environ = {} if sys.flags.ignore_environment else os.environ
    available = AvailableCpus(*_decide(_limits(machine.root, environ, sys._xoptions)))
    found = f"{available.count} ({available.reason})"
    if available.limits[0].source != "setting" and available < (os.cpu_count() or 1):
        yield Finding(
            Level.NOTE,
            "CPUs",
            found,
            "size pools by procession.available_cpus(), not by os.cpu_count(), which says "
            f"{os.cpu_count()}",
        )
    else:
        yield Finding(Level.OK, "CPUs", found)
