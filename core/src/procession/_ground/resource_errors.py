"""Turning the errno of something that failed into an error that names what has run out.

Load this module early: when descriptors have run out no module can be loaded any more.
"""

from __future__ import annotations

import errno
import os

from procession._ground.resource_limits import (
    group_limit,
    limit,
    open_files_of_all,
    room_in,
    system_limit,
    user,
)
from procession.errors import ResourceError, TooManyProcessesError

_TEMPORARY = ("TMPDIR", "TEMP", "TMP")


def explain(error: OSError, doing: str, path: str | None = None) -> ResourceError | None:
    """Return an error that says which resource *error* is about and what its limit is.

    *doing* is what failed, such as "cannot start Process-1", and *path* the file, if it was
    about one that *error* does not name. The answer has the errno of *error*; it is None if
    no resource has run out.
    """
    if isinstance(error, ResourceError) or error.errno is None:
        return None
    describe = _DESCRIPTIONS.get(error.errno)
    if describe is None:
        return None
    kind = TooManyProcessesError if error.errno == errno.EAGAIN else ResourceError
    if path is None and isinstance(error.filename, (str, bytes)):
        path = os.fsdecode(error.filename)
    text = _full(path) if path and error.errno == errno.ENOSPC else describe()
    return kind(error.errno, f"{doing}: {text}")


def raise_explained(error: OSError, doing: str) -> None:
    """Raise what `explain` answers, from *error*; return if no resource has run out."""
    explained = explain(error, doing)
    if explained is not None:
        try:
            raise explained from error
        finally:
            # Or it and this frame would keep each other, and all that was half made.
            del explained


def _open_files() -> str:
    return (
        f"too many open files (RLIMIT_NOFILE is {limit('RLIMIT_NOFILE')}); raise the limit with "
        f"ulimit -n, or close() processes and connections that are done with"
    )


def _processes() -> str:
    limits = [f"RLIMIT_NPROC is {limit('RLIMIT_NPROC')} for user {user()}"]
    for name, value in (
        ("pids.max of its control group", group_limit("pids.max")),
        ("kernel.pid_max", system_limit("kernel/pid_max")),
        ("kernel.threads-max", system_limit("kernel/threads-max")),
    ):
        if value is not None:
            limits.append(f"{name} is {value}")
    return f"too many processes ({', '.join(limits)}); a limit counts threads, too"


def _memory() -> str:
    limits = [f"RLIMIT_AS is {limit('RLIMIT_AS')}"]
    group = group_limit("memory.max")
    if group is not None:
        limits.append(f"memory.max of the control group is {group}")
    overcommit = system_limit("vm/overcommit_memory")
    if overcommit:
        limits.append(f"vm.overcommit_memory is {overcommit}")
    return (
        f"out of memory ({', '.join(limits)}); the start method 'spawn' needs no copy of this "
        f"process's memory"
    )


def _full(path: str) -> str:
    directory = os.path.dirname(path) or "."
    return f"no space left in {directory} for {path!r} ({room_in(directory)})"


def _space() -> str:
    return "no space left in memory files or the temporary directory"


def _file_size() -> str:
    return (
        f"a file would be too large (RLIMIT_FSIZE is {limit('RLIMIT_FSIZE')} bytes): what a queue "
        f"holds is kept in a file in memory, which this limit counts, too; raise it with ulimit -f"
    )


def _name() -> str:
    directories = [os.environ[name] for name in _TEMPORARY if name in os.environ]
    return (
        f"a file name is too long (the temporary directory is {', '.join(directories) or '/tmp'})"
    )


_DESCRIPTIONS = {
    errno.EMFILE: _open_files,
    errno.ENFILE: open_files_of_all,
    errno.EAGAIN: _processes,
    errno.ENOMEM: _memory,
    errno.ENOSPC: _space,
    errno.EFBIG: _file_size,
    errno.ENAMETOOLONG: _name,
}
