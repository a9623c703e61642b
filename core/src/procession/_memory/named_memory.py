"""Shared memory with a name, as ``shm_open`` has it: files in ``/dev/shm``.

A new segment gets its name as the last step, so that a process which is killed while it
creates one leaves nothing, and nobody can attach a segment that is not finished. Who
removes the names of those who were killed: `procession._memory.abandoned_memory`.
"""

from __future__ import annotations

import os
import sys

from procession._memory import abandoned_memory
from procession._memory.abandoned_memory import Lease
from procession._memory.memory_errors import explain
from procession._memory.shared_map import reserve

_LONGEST_NAME = 255
_MODE = 0o600
_ENOENT, _EEXIST, _EINVAL = 2, 17, 22


def create(
    name: str, size: int, *, track: bool, mark: int | None = None
) -> tuple[int, Lease | None]:
    """Create segment *name* of *size* zero bytes; return its descriptor and its lease.

    Both are the caller's, to be closed and to be ended; there is no lease without *track*.
    *mark* takes the place of the family's mark.
    Raises `FileExistsError`, and `procession.errors.ResourceError` (an `OSError`) when
    there is no room.
    """
    path = _path(name)
    if track:
        abandoned_memory.begin()
    if os.path.lexists(path):
        raise _error(_EEXIST, name)
    fd, lease = -1, None
    try:
        fd = _open_nameless()
        reserve(fd, size)
        if track:
            lease = Lease(fd)
            abandoned_memory.mark(fd, mark)
        # A folder, which an absolute path makes no use of, is what lets os.link follow.
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
    except BaseException as error:
        if lease is not None:
            lease.end()
        if fd >= 0:
            os.close(fd)
        if isinstance(error, FileExistsError):
            raise _error(_EEXIST, name) from None
        if isinstance(error, OSError):
            doing = f"cannot have shared memory {name!r} of {size} bytes"
            raise explain(error, doing, abandoned_memory.DIRECTORY) from error
        raise
    return fd, lease


def attach(name: str, *, track: bool) -> tuple[int, Lease | None]:
    """Open segment *name*; return its descriptor and its lease, as `create` does.

    Raises `FileNotFoundError`.
    """
    path = _path(name)
    if sys.platform == "win32":
        raise OSError("shared memory with a name needs a POSIX system")
    if track:
        abandoned_memory.begin()
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        explanation = explain(error, f"cannot attach shared memory {name!r}")
        if explanation is not error:
            raise explanation from error
        raise _error(error.errno, name) from None
    lease = None
    try:
        if track:
            lease = Lease(fd)
            if not os.fstat(fd).st_nlink:
                # It was abandoned, and somebody has unlinked it before we had the lease.
                raise _error(_ENOENT, name)
    except BaseException:
        if lease is not None:
            lease.end()
        os.close(fd)
        raise
    return fd, lease


def unlink(name: str) -> None:
    """Remove the name. Raises `FileNotFoundError` if it is not there."""
    try:
        os.unlink(_path(name))
    except OSError as error:
        raise _error(error.errno, name) from None


def _path(name: str) -> str:
    if "\0" in name:
        raise ValueError("embedded null character in a name")
    file = name.lstrip("/")
    if "/" in file or file in ("", ".", "..") or len(os.fsencode(file)) > _LONGEST_NAME:
        raise _error(_EINVAL, name)
    return f"{abandoned_memory.DIRECTORY}/{file}"


def _error(number: int | None, name: str) -> OSError:
    """Return the error as the standard library has it, with the name that was asked for."""
    return OSError(number, os.strerror(number or 0), f"/{name}")


def _open_nameless() -> int:
    if sys.platform != "linux":
        raise OSError("this platform has no files that get their name last")
    return os.open(abandoned_memory.DIRECTORY, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, _MODE)
