"""The sandbox: what a child finds in it, and whether there can be one here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import cache

#: Folders and files that children may write to; several with ``:`` in between.
WRITABLE = "PROCESSION_BUBBLEWRAP_WRITABLE"
#: Folders that are empty for children.
HIDDEN = "PROCESSION_BUBBLEWRAP_HIDDEN"
#: Whether children have the network; only "1" means yes.
NETWORK = "PROCESSION_BUBBLEWRAP_NETWORK"

# Process ids stay common: locks record who holds them by process id, so that a namespace of
# their own would have everybody believe that a holder in the sandbox is dead.
_NAMESPACES = ("--unshare-user", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
# Everything can be read and nothing written. `/dev` is a small one of the sandbox's own, with
# an empty memory file system in /dev/shm, which is the only place for temporary files.
_FILES = ("--ro-bind", "/", "/", "--dev", "/dev", "--setenv", "TMPDIR", "/dev/shm")
_PROBE_SECONDS = 10


def arguments(environ: Mapping[str, str], status: int) -> list[str]:
    """Return the command line of bubblewrap up to the program that it is to start.

    *environ* has the settings. *status* is where bubblewrap writes what it knows of the child.
    Raises `ValueError` for a setting that cannot be right.
    """
    found = [_program(), *_NAMESPACES, "--json-status-fd", str(status)]
    if environ.get(NETWORK) != "1":
        found.append("--unshare-net")
    found += _FILES
    for path in _paths(environ, HIDDEN):
        found += ["--tmpfs", path]
    # Last, so that what is writable may be in a folder that is hidden otherwise.
    for path in _paths(environ, WRITABLE):
        found += ["--bind", path, path]
    return [*found, "--"]


def _paths(environ: Mapping[str, str], variable: str) -> list[str]:
    paths = [path for path in environ.get(variable, "").split(os.pathsep) if path]
    for path in paths:
        if not os.path.isabs(path):
            raise ValueError(f"{variable} names {path!r}, which is not an absolute path")
        if not os.path.exists(path):
            raise ValueError(f"{variable} names {path!r}, which does not exist")
        if variable == HIDDEN and not os.path.isdir(path):
            raise ValueError(f"{variable} names {path!r}, which is not a folder")
    return paths


def _program() -> str:
    found = shutil.which("bwrap")
    if found is None:
        raise FileNotFoundError("no program 'bwrap' on the PATH; install bubblewrap")
    return os.path.abspath(found)


@cache
def obstacle() -> str | None:
    """Return why there can be no sandbox here, or None. Tries it out, once in a process."""
    import subprocess

    try:
        command = arguments({}, 1)
    except FileNotFoundError as error:
        return str(error)
    try:
        done = subprocess.run(
            [*command, "/bin/true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap cannot be run: {error}"
    if done.returncode == 0 and '"exit-code"' in done.stdout:
        return None
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return (
        f"bwrap cannot make a sandbox ({said[-1]}); it needs user namespaces, which a kernel or a "
        f"container may not allow"
    )
