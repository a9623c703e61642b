"""Where and with what a run was made."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def describe(libraries: Sequence[str]) -> Mapping[str, object]:
    """Return date, versions and machine as values that JSON knows.

    Of *libraries*, those that are distributions of that name have a version.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(libraries),
        "machine": {
            "system": platform.system(),
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "processor": _line("/proc/cpuinfo", "model name"),
            "cores": os.cpu_count(),
            "memory": _line("/proc/meminfo", "MemTotal"),
            # High numbers here explain wide spreads. Over 1, 5, and 15 minutes.
            "load_average_at_begin": Path("/proc/loadavg").read_text().split()[:3],
        },
    }


def _versions(libraries: Sequence[str]) -> Mapping[str, str | None]:
    """Return the versions of python, numpy, *libraries*, and procession with its plugins."""
    ours = {
        name: distribution.version
        for distribution in distributions()
        if (name := distribution.name or "").partition("-")[0] == "procession"
    }
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": _version("numpy"),
        "procession": None,
        **{name: found for name in libraries if (found := _version(name)) is not None},
        **ours,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _line(path: str, name: str) -> str | None:
    """Return what stands after *name* and a colon in the file at *path*; None if it is absent."""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
