"""Where and with what a run was made."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def describe() -> Mapping[str, object]:
    """Return date, versions and machine as values that JSON knows."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "machine": {
            "system": platform.system(),
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            # High numbers here explain wide spreads.
            "load_average_at_begin": os.getloadavg(),
        },
    }


def _versions() -> Mapping[str, str | None]:
    """Return the versions of python, numpy, and procession with its plugins."""
    try:
        numpy: str | None = version("numpy")
    except PackageNotFoundError:
        numpy = None
    ours = {
        name: distribution.version
        for distribution in distributions()
        if (name := distribution.name or "").partition("-")[0] == "procession"
    }
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": numpy,
        "procession": None,
        **ours,
    }


def _processor() -> str:
    """Return the processor's name, as the kernel knows it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
