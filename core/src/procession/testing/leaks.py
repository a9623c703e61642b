"""Finds what a test leaves behind: processes, threads, descriptors, files.

`Snapshot.take` looks at the calling process; `Snapshot.leaks` looks again later and names what
is new. Everything is read from ``/proc``, so on a platform without it only threads and files are
compared. Nothing here kills or closes: the caller decides (see `kill`).

What is allowed to appear is what is cached on purpose, and it is cached before the first snapshot:
the caller warms up each start method and transport once, so that the fork server, its socket and
imported modules are already there. A helper process may be replaced by another with the same
command line (a test may kill it), but helpers may not multiply.
"""

from __future__ import annotations

import gc
import os
import re
import select
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_SHARED_MEMORY = Path("/dev/shm")
_SIGKILL = 9
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Descendant:
    """A live process that the calling process started, at whatever distance."""

    pid: int
    parent: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} (parent {self.parent}): {self.command}"


@dataclass(frozen=True)
class Snapshot:
    """What the calling process had at one moment. Compare with `leaks`."""

    processes: tuple[Descendant, ...]
    threads: frozenset[threading.Thread]
    descriptors: dict[int, str]
    files: frozenset[str]
    directories: tuple[Path, ...]

    @classmethod
    def take(cls, *directories: Path) -> Snapshot:
        """Remember the present state; ``directories`` are watched besides ``/dev/shm``."""
        watched = (_SHARED_MEMORY, *directories)
        return cls(
            processes=tuple(descendants()),
            threads=frozenset(threading.enumerate()),
            descriptors=descriptors(),
            files=frozenset(_files(watched)),
            directories=watched,
        )

    def leaks(self, timeout: float = 5.0) -> list[str]:
        """One line for each thing that is new; empty when nothing is.

        Processes and threads that are already on their way out get ``timeout`` seconds, together,
        to finish. Garbage is collected before a descriptor is called a leak, since an object in a
        reference cycle closes its descriptor only then.
        """
        deadline = time.monotonic() + timeout
        lines = [f"child process still alive: {each}" for each in self.new_processes(deadline)]
        for thread in set(threading.enumerate()) - self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                lines.append(f"thread still alive: {thread!r}")
        if self._new_descriptors():
            gc.collect()
        lines += [
            f"descriptor still open: {number} -> {what}"
            for number, what in sorted(self._new_descriptors().items())
        ]
        lines += [f"file left behind: {path}" for path in sorted(self._new_files())]
        return lines

    def new_processes(self, deadline: float) -> list[Descendant]:
        """Descendants that were not there, are no replaced helper, and live past ``deadline``."""
        while True:
            found = self._unexpected()
            if not found or not _await_end_of_any(found, deadline):
                return found

    def _unexpected(self) -> list[Descendant]:
        now = descendants()
        known = {each.pid for each in self.processes}
        present = {each.pid for each in now}
        # A helper that ended makes room for exactly one with the same command line.
        vacancies = [_shape(each) for each in self.processes if each.pid not in present]
        unexpected = []
        for each in now:
            if each.pid in known:
                continue
            if _shape(each) in vacancies:
                vacancies.remove(_shape(each))
            else:
                unexpected.append(each)
        return unexpected

    def _new_descriptors(self) -> dict[int, str]:
        now = descriptors()
        if len(now) <= len(self.descriptors):
            return {}  # at most something cached was replaced, as a restarted helper's socket is
        return {
            number: what for number, what in now.items() if self.descriptors.get(number) != what
        }

    def _new_files(self) -> list[str]:
        new = {}
        for path in set(_files(self.directories)) - self.files:
            try:
                new[path] = os.stat(path).st_ino
            except FileNotFoundError:  # it was on its way out
                continue
        if any(path.startswith(str(_SHARED_MEMORY)) for path in new):
            strangers = _mapped_by_strangers()
            new = {path: inode for path, inode in new.items() if inode not in strangers}
        # What a stranger makes and unlinks at once, as semaphores are, has gone by now.
        return [path for path in new if os.path.exists(path)]


def descriptors() -> dict[int, str]:
    """The open descriptors of the calling process and what each refers to."""
    found = {}
    try:
        numbers = os.listdir("/proc/self/fd")
    except FileNotFoundError:
        return {}
    for number in numbers:
        try:
            found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the descriptor that listed the directory
            continue
    return found


def descendants() -> list[Descendant]:
    """Live processes below the calling one, at any distance; zombies are not listed."""
    children: dict[int, list[int]] = {}
    states: dict[int, str] = {}
    for entry in _PROC.glob("[0-9]*/stat"):
        try:
            pid, rest = int(entry.parent.name), entry.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(int(rest[1]), []).append(pid)
        states[pid] = rest[0]
    found = []
    parents = [os.getpid()]
    while parents:
        parent = parents.pop()
        for pid in children.get(parent, ()):
            parents.append(pid)
            if states[pid] not in "ZX":
                found.append(Descendant(pid, parent, _command(pid)))
    return found


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants, so that `descendants` still finds them.

    Linux only, for the rest of the life of this process; elsewhere nothing happens and orphans
    are not seen.
    """
    import ctypes

    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill(process: Descendant) -> None:
    """Kill a leaked process and reap it if it is ours; no error when it has just ended."""
    try:
        os.kill(process.pid, _SIGKILL)
        os.waitpid(process.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def _await_end_of_any(processes: list[Descendant], deadline: float) -> bool:
    """Wait until one of them ends; false when the deadline passes first."""
    if sys.platform != "linux":
        return False  # no descendants are found there
    watched = []
    try:
        for each in processes:
            try:
                watched.append(os.pidfd_open(each.pid))
            except ProcessLookupError:
                return True
        remaining = max(0.0, deadline - time.monotonic())
        return bool(select.select(watched, [], [], remaining)[0])
    finally:
        for number in watched:
            os.close(number)


def _shape(process: Descendant) -> str:
    return re.sub(r"\d+", "N", process.command)


def _command(pid: int) -> str:
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return "?"
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()


def _files(directories: tuple[Path, ...]) -> list[str]:
    return [
        str(path)
        for directory in directories
        if directory.is_dir()
        for path in directory.iterdir()
        if not path.name.startswith("pytest-of-")  # pytest's own tmp_path
    ]


def _mapped_by_strangers() -> set[int]:
    """Files in ``/dev/shm`` that processes outside this tree use: not ours, whoever made them.

    By inode, since a semaphore is mapped under another name than the one it ends up with.
    """
    ours = {os.getpid(), *(each.pid for each in descendants())}
    found: set[int] = set()
    for entry in _PROC.glob("[0-9]*/maps"):
        if int(entry.parent.name) in ours:
            continue
        try:
            lines = entry.read_text().splitlines()
        except OSError:  # it ended meanwhile, or is another user's
            continue
        found.update(int(line.split()[4]) for line in lines if str(_SHARED_MEMORY) in line)
    return found
