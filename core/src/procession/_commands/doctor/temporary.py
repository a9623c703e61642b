"""The directory for temporary files."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from procession._commands.doctor.finding import Finding, Level
from procession._commands.doctor.machine import size

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["temporary_directory"]

# A Unix socket's path has 107 bytes; what is put below the directory has some thirty.
_LONGEST_SOCKET = 107
_NAME_OF_A_SOCKET = 32
_LOW = 16 << 20


def temporary_directory(asked: str | None) -> Iterator[Finding]:
    """Look at the directory, and at *asked*, what ``TMPDIR`` says."""
    subject = "temporary directory"
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError as error:
        yield Finding(
            Level.PROBLEM, subject, str(error), "set TMPDIR to a directory that can be written to"
        )
        return
    if asked and os.path.abspath(asked) != os.path.abspath(folder):
        yield Finding(
            Level.WARNING,
            subject,
            f"TMPDIR is {asked!r}, which cannot be used; {folder} is used instead",
            "create it, make it writable, or set TMPDIR to another one",
        )
    length = len(os.fsencode(folder)) + _NAME_OF_A_SOCKET
    if length > _LONGEST_SOCKET:
        yield Finding(
            Level.WARNING,
            subject,
            f"{folder!r} is too long for the path of a Unix socket below it",
            f"set TMPDIR to a path of at most {_LONGEST_SOCKET - _NAME_OF_A_SOCKET} bytes",
        )
        return
    if hasattr(os, "statvfs"):
        status = os.statvfs(folder)
        free = status.f_bavail * status.f_frsize
        if free < _LOW:
            yield Finding(
                Level.WARNING,
                subject,
                f"{folder}, with {size(free)} free",
                "make room there, or set TMPDIR to a directory on another file system",
            )
            return
        yield Finding(Level.OK, subject, f"{folder}, with {size(free)} free")
        return
    yield Finding(Level.OK, subject, folder)
