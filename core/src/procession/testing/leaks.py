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

import _thread
import functools
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
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18
_LOOK_AGAIN = 0.05
#: How often children are listed anew, if some have just come or gone.
_LISTINGS = 3


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
    thread_count: int
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
            thread_count=_thread._count(),
            descriptors=descriptors(),
            files=frozenset(_files(watched)),
            directories=watched,
        )

    def leaks(self, timeout: float = 5.0) -> list[str]:
        """One line for each thing that is new; empty when nothing is.

        Processes and threads that are already on their way out get ``timeout`` seconds, together,
        to finish, and so do descriptors that a thread may be about to close.
        Garbage is collected before a descriptor is called a leak, since an object in a reference
        cycle closes its descriptor only then.
        """
        deadline = time.monotonic() + timeout
        lines = [f"child process still alive: {each}" for each in self.new_processes(deadline)]
        for thread in set(threading.enumerate()) - self.threads:
            _join(thread, deadline)
            if thread.is_alive():
                lines.append(f"thread still alive: {thread!r}")
        lines += [
            f"descriptor still open: {number} -> {what}"
            for number, what in sorted(self._new_descriptors(deadline).items())
        ]
        lines += [f"file left behind: {path}" for path in sorted(self._new_files(deadline))]
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

    def _new_descriptors(self, deadline: float) -> dict[int, str]:
        """Those that were not there, or were of something else.

        As long as there are more threads than there were, one of them may be about to close what
        is found; it may be one that cannot be joined, which has until ``deadline``.
        """
        while True:
            is_last_look = _thread._count() <= self.thread_count or time.monotonic() >= deadline
            found = self._other_descriptors()
            if found:
                gc.collect()
                found = self._other_descriptors()
            if not found or is_last_look:
                return found
            time.sleep(_LOOK_AGAIN)

    def _other_descriptors(self) -> dict[int, str]:
        now = descriptors()
        if len(now) <= len(self.descriptors):
            return {}  # at most something cached was replaced, as a restarted helper's socket is
        return {
            number: what for number, what in now.items() if self.descriptors.get(number) != what
        }

    def _new_files(self, deadline: float) -> list[str]:
        """Files that were not there, belong to no stranger, and exist past ``deadline``.

        Other programs of the machine use ``/dev/shm``, too, unless `mount_shared_memory` has
        made this one's own. What they make and unlink goes; what was leaked stays.
        """
        while True:
            new = {}
            for path in set(_files(self.directories)) - self.files:
                try:
                    new[path] = os.stat(path).st_ino
                except FileNotFoundError:  # it was on its way out
                    continue
            if any(path.startswith(str(_SHARED_MEMORY)) for path in new):
                strangers = _mapped_by_strangers()
                new = {path: inode for path, inode in new.items() if inode not in strangers}
            if not new or time.monotonic() >= deadline:
                return list(new)
            time.sleep(_LOOK_AGAIN)


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
    found = []
    for pid, parent in _family():
        state = _state(pid)
        if state is not None and state not in b"ZX":
            found.append(Descendant(pid, parent, _command(pid)))
    return found


def _family() -> list[tuple[int, int]]:
    """Every process below the calling one and its parent, zombies included.

    This is done before and after every test, and there may be a thousand processes: what the
    kernel says of whose children they are is asked first. While one ends another may be missing
    there, so only what is the same twice is believed.
    """
    children = _children_by_kernel if _has_children_files() else _children_by_scan
    previous = children()
    for _ in range(_LISTINGS):
        again = children()
        if again == previous:
            return again
        previous = again
    return _children_by_scan()


@functools.cache
def _has_children_files() -> bool:
    """Whether the kernel was built to have them."""
    return (_PROC / f"self/task/{_thread.get_native_id()}/children").exists()


def _children_by_kernel() -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    parents = [os.getpid()]
    while parents:
        parent = parents.pop()
        try:
            threads = os.listdir(f"/proc/{parent}/task")
        except OSError:  # it ended meanwhile, and its children are the reaper's
            continue
        for thread in threads:
            try:
                with open(f"/proc/{parent}/task/{thread}/children", "rb", buffering=0) as file:
                    pids = [int(pid) for pid in file.read().split()]
            except OSError:
                continue
            found += [(pid, parent) for pid in pids]
            parents += pids
    return sorted(found)


def _children_by_scan() -> list[tuple[int, int]]:
    children: dict[int, list[int]] = {}
    for pid in _processes():
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                parent = int(file.read().rpartition(b")")[2].split(None, 2)[1])
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(parent, []).append(pid)
    found = []
    parents = [os.getpid()]
    while parents:
        parent = parents.pop()
        pids = children.get(parent, ())
        found += [(pid, parent) for pid in pids]
        parents += pids
    return sorted(found)


def _state(pid: int) -> bytes | None:
    """Return the letter for the state of a process; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read().rpartition(b")")[2].split(None, 1)[0]
    except OSError:
        return None


def mount_shared_memory() -> bool:
    """Give this process and all that it starts a ``/dev/shm`` of their own, if that may be done.

    Then nothing that others do on the machine disturbs it, nor the other way round. Returns
    whether it was done; it takes the rights of an administrator, on Linux. Call it while
    nothing of this process is in ``/dev/shm``, and while it has one thread.
    """
    import ctypes

    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if library.unshare(_CLONE_NEWNS):
        return False
    private = _MS_REC | _MS_PRIVATE  # so that the mount stays in the new namespace
    if library.mount(None, b"/", None, private, None):
        return False
    return not library.mount(b"tmpfs", bytes(_SHARED_MEMORY), b"tmpfs", 0, b"mode=1777")


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants, so that `descendants` still finds them.

    Linux only, for the rest of the life of this process; elsewhere nothing happens and orphans
    are not seen.
    """
    import ctypes

    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _join(thread: threading.Thread, deadline: float) -> None:
    """Wait for the end of *thread*, which may be listed before it has begun."""
    while time.monotonic() < deadline:
        try:
            thread.join(max(0.0, deadline - time.monotonic()))
        except RuntimeError:  # whoever starts it has not done so yet
            time.sleep(0.001)
        else:
            return


def reap_orphans() -> None:
    """Collect every child that has ended, most of all those that `adopt_orphans` has brought.

    Only where nobody else waits for a child of this process.
    """
    if sys.platform == "win32":
        return
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


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


def _processes() -> list[int]:
    """All processes there are, zombies included."""
    try:
        return [int(name) for name in os.listdir(_PROC) if name.isdecimal()]
    except FileNotFoundError:
        return []


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
    for pid in _processes():
        if pid in ours:
            continue
        try:
            lines = (_PROC / str(pid) / "maps").read_text().splitlines()
        except OSError:  # it ended meanwhile, or is another user's
            continue
        found.update(int(line.split()[4]) for line in lines if str(_SHARED_MEMORY) in line)
    return found
