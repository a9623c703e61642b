"""A program: a process, those that it started, and their queues, at one moment."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import psutil

from procession._commands.observe import descriptors, queues, sleeps, tags
from procession._commands.observe.waits import Objects, Wait

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from procession._commands.observe.descriptors import Descriptor
    from procession._commands.observe.queues import QueueView
    from procession._commands.observe.tags import Tag

__all__ = ["Ended", "Foreign", "Observer", "ProcessView", "ProgramView", "inner_pid", "programs"]


class Ended(Exception):
    """The process that was to be looked at is not there (any more)."""


class Foreign(Exception):
    """The process belongs to somebody else, or has nothing of procession."""


@attrs.define(kw_only=True)
class ProcessView:
    """One process of a program."""

    pid: int
    #: The pid of the process that started it through procession, else the kernel's parent.
    parent: int
    name: str
    #: The start method; "" for the first process and for helpers.
    method: str
    #: As psutil has it: "running", "sleeping", "stopped", "zombie" and so on.
    state: str
    #: Percent of one CPU since the last look; None at the first.
    cpu: float | None
    #: Resident memory, in bytes.
    memory: int
    #: Seconds since it was started.
    age: float
    #: The names of its queues.
    queues: list[str] = attrs.Factory(list)
    #: What its threads do, by thread id; the main thread first.
    threads: dict[int, Wait] = attrs.Factory(dict)
    #: Why not everything could be seen; "" when it could.
    hidden: str = ""


@attrs.define
class ProgramView:
    """A program at one moment."""

    processes: list[ProcessView]
    queues: list[QueueView]


class Observer:
    """Looks at one program, as often as it is asked to.

    *pid* is its first process. Raises `Ended` and `Foreign`. Nothing that it does is seen by
    the program; it holds no descriptor between two looks. One thread at a time.
    """

    def __init__(self, pid: int) -> None:
        try:
            self._root = psutil.Process(pid)
        except psutil.NoSuchProcess:
            raise Ended(f"there is no process {pid}") from None
        # Kept, as the use of CPU is counted from one look to the next.
        self._known: dict[int, psutil.Process] = {}
        self._counted: set[int] = set()
        # A program may be one between two of its children, too.
        self._recognised = False

    def look(self) -> ProgramView:
        """Return the program as it is now."""
        members = self._members()
        held: dict[int, dict[int, Descriptor]] = {}
        hidden: dict[int, str] = {}
        for pid in members:
            held[pid] = {}
            try:
                held[pid] = descriptors.look(pid)
            except PermissionError:
                hidden[pid] = "looking at it is not allowed; root may"
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended; what was noted of it is left out below
        worn = {pid: tags.find(held[pid].values(), inner_pid(pid)) for pid in members}
        found = _queues(held)
        # A process that was ending just now had nothing any more.
        self._check_alive()
        if self._root.pid in hidden:
            raise Foreign(_refused(self._root))
        self._recognised = self._recognised or bool(found) or any(worn.values())
        if not self._recognised:
            raise Foreign(
                f"process {self._root.pid} ({_command(self._root)}) has no queue and no child of "
                f"procession: there is nothing to show"
            )
        outer = {inner_pid(pid): pid for pid in members}
        views = [
            view
            for pid, process in members.items()
            if (view := self._view(process, worn[pid], outer)) is not None
        ]
        objects = Objects(held, found, descriptors.peers(), {each.pid: each.name for each in views})
        for view in views:
            view.hidden = hidden.get(view.pid, "")
            view.queues = [each.name for each in found.values() if view.pid in each.holders]
            asleep = sleeps.look(view.pid)
            view.threads = {each.thread: objects.explain(view.pid, each) for each in asleep}
            if not view.hidden and any(not each.call and each.where for each in asleep):
                view.hidden = (
                    "what it waits for is told to root only (kernel.yama.ptrace_scope is not 0)"
                )
        return ProgramView(views, list(found.values()))

    def _check_alive(self) -> None:
        """Raise `Ended` when the first process has ended, collected by its parent or not."""
        try:
            if self._root.is_running() and self._root.status() != psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            pass  # in this very moment
        raise Ended(f"process {self._root.pid} has ended")

    def _members(self) -> dict[int, psutil.Process]:
        """Return the first process, its descendants, and their children that lost a parent."""
        self._check_alive()
        members = {self._root.pid: self._root}
        with suppress(psutil.NoSuchProcess):
            for process in self._root.children(recursive=True):
                members[process.pid] = process
        # When a fork server dies, its children go to an ancestor of all, and still belong here.
        inner = {inner_pid(pid) for pid in members}
        for process in _adopted(self._root):
            if process.pid not in members:
                tag = _tag(process.pid)
                if tag is not None and tag.parent in inner:
                    members[process.pid] = process
        # The object of the last look knows how much CPU had been used then.
        kept = {}
        for pid, process in members.items():
            before = self._known.get(pid)
            if before is not None and before == process:
                kept[pid] = before
            else:
                kept[pid] = process
                self._counted.discard(pid)
        self._known = kept
        return kept

    def _view(
        self, process: psutil.Process, tag: Tag | None, outer: Mapping[int, int]
    ) -> ProcessView | None:
        new = process.pid not in self._counted
        try:
            with process.oneshot():
                parent = process.ppid()
                view = ProcessView(
                    pid=process.pid,
                    parent=outer.get(tag.parent, parent) if tag else parent,
                    name=tag.name if tag else self._name(process),
                    method=tag.method if tag else "",
                    state=str(process.status()),
                    cpu=process.cpu_percent(),
                    memory=process.memory_info().rss,
                    age=max(0.0, time.time() - process.create_time()),
                )
        except psutil.NoSuchProcess:
            return None
        except psutil.AccessDenied:
            return None
        if new:
            view.cpu = None
            self._counted.add(process.pid)
        # A process id may be somebody else's by now.
        return view if process.is_running() else None

    def _name(self, process: psutil.Process) -> str:
        if process.pid == self._root.pid:
            return "MainProcess"
        command = _command(process)
        return "(fork server)" if "procession_forkserver" in command else f"({process.name()})"


def programs() -> list[int]:
    """Return the first process of each program of this system that can be seen."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for process in psutil.process_iter():
        try:
            held = descriptors.look(process.pid)
            parents[process.pid] = process.ppid()
        except (OSError, psutil.Error):
            continue  # another user's, or gone
        tag = tags.find(held.values(), inner_pid(process.pid))
        if tag is not None:
            parents[process.pid] = tag.parent
            found.update((process.pid, tag.parent))
        elif any(each.label == queues.LABEL for each in held.values()):
            found.add(process.pid)
    return sorted(pid for pid in found if pid in parents and not _above(pid, parents) & found)


def _above(pid: int, parents: Mapping[int, int]) -> set[int]:
    above: set[int] = set()
    while pid in parents and parents[pid] not in above:
        pid = parents[pid]
        above.add(pid)
    return above


def _queues(held: Mapping[int, Mapping[int, Descriptor]]) -> dict[str, QueueView]:
    found: dict[str, QueueView] = {}
    for pid, mine in held.items():
        for descriptor in mine.values():
            if descriptor.label != queues.LABEL:
                continue
            queue = found.get(descriptor.identity)
            if queue is None or queue.size is None:
                seen = queues.read(pid, descriptor, mine)
                if seen is None:
                    continue
                if queue is not None:
                    seen.holders = queue.holders
                queue = found[descriptor.identity] = seen
            if pid not in queue.holders:
                queue.holders.append(pid)
    ordered = dict(sorted(found.items(), key=lambda item: int(item[0])))
    for number, queue in enumerate(ordered.values(), 1):
        queue.name = f"queue {number}"
    return ordered


def _adopted(root: psutil.Process) -> Iterator[psutil.Process]:
    """Yield the children of those who may have got the orphans of *root*'s program."""
    with suppress(psutil.Error):
        ancestors = {each.pid for each in root.parents()}
        # One walk through all processes, not one for each ancestor.
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.ppid() in ancestors:
                    yield process


def _tag(pid: int) -> Tag | None:
    try:
        return tags.find(descriptors.look(pid).values(), inner_pid(pid))
    except OSError:
        return None


def inner_pid(pid: int) -> int:
    """Return the number that a process has for itself, in the innermost namespace."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return int(line.split()[-1])
    except OSError:
        return pid  # it has ended
    return pid


def _refused(process: psutil.Process) -> str:
    refused = f"process {process.pid} of {_user(process)} may not be looked at"
    if sys.platform != "win32" and os.geteuid() == 0:
        return f"{refused} by this root: in a container, add the capability SYS_PTRACE"
    if _is_own(process):
        return (
            f"{refused}, not even by that user: it has more rights than this command, or has "
            f"forbidden it (PR_SET_DUMPABLE, also after a change of user); run this as root"
        )
    return f"{refused}; run this command as that user, or as root"


def _is_own(process: psutil.Process) -> bool:
    if sys.platform == "win32":
        return False
    try:
        return process.uids().real == os.getuid()
    except psutil.Error:
        return False


def _user(process: psutil.Process) -> str:
    try:
        return f"user {process.username()}"
    except (psutil.Error, KeyError):
        return "another user"


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return "?"
