"""What each thread of a process sleeps on, as the kernel says it.

``/proc/PID/task/TID/syscall`` names the system call and its arguments. It may be read by those
who may trace the process: root, its user where ``kernel.yama.ptrace_scope`` is 0, and its
parent. Others get the name of a kernel function (``wchan``), which says less.
"""

from __future__ import annotations

import os
import platform
import struct
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Sleep", "look"]

# System calls by machine and number. Each has a way in which its arguments are read.
_X86_64 = {
    0: "read", 1: "write", 7: "poll", 23: "select", 35: "nanosleep", 45: "recvfrom",
    44: "sendto", 46: "sendmsg", 47: "recvmsg", 61: "wait4", 72: "fcntl", 73: "flock",
    219: "restart_syscall",
    202: "futex", 230: "clock_nanosleep", 232: "epoll_wait", 247: "waitid", 270: "pselect6",
    271: "ppoll", 281: "epoll_pwait", 288: "accept4", 43: "accept", 441: "epoll_pwait2",
}  # fmt: skip
_GENERIC = {
    22: "epoll_pwait", 25: "fcntl", 32: "flock", 63: "read", 64: "write", 72: "pselect6",
    73: "ppoll", 95: "waitid", 98: "futex", 101: "nanosleep", 115: "clock_nanosleep",
    202: "accept", 206: "sendto", 207: "recvfrom", 211: "sendmsg", 212: "recvmsg",
    128: "restart_syscall", 242: "accept4", 260: "wait4", 441: "epoll_pwait2",
}  # fmt: skip
_CALLS = {"x86_64": _X86_64, "aarch64": _GENERIC, "riscv64": _GENERIC}

_POLL_ENTRY = struct.Struct("=ihh")
# What nobody polls for; an argument beyond it is no number of entries.
_MOST_POLLED = 4096
_P_PID = 1
_TELL_NOTHING = {"futex", "nanosleep", "clock_nanosleep", "running", "restart_syscall"}
_WAITING_LOCKS = {7, 38}  # F_SETLKW, F_OFD_SETLKW


@attrs.frozen
class Sleep:
    """One thread, and what it is doing as far as the kernel tells."""

    thread: int
    #: The system call, "running", or "" when the kernel does not tell it to us.
    call: str
    #: The descriptors that it waits for.
    descriptors: tuple[int, ...] = ()
    #: The process whose end it waits for with a call of the wait family; 0 for any or none.
    pid: int = 0
    #: The kernel function in which it sleeps; "" when it does not.
    where: str = ""


def look(pid: int) -> list[Sleep]:
    """Return what each thread of *pid* does, the main thread first."""
    found = []
    try:
        threads = sorted(map(int, os.listdir(f"/proc/{pid}/task")))
    except (FileNotFoundError, ProcessLookupError):
        return []
    for thread in sorted(threads, key=lambda thread: thread != pid):
        try:
            found.append(_look_at(pid, thread))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return found


def _look_at(pid: int, thread: int) -> Sleep:
    path = f"/proc/{pid}/task/{thread}"
    where = _read(f"{path}/wchan")
    where = "" if where == "0" else where
    try:
        line = _read(f"{path}/syscall")
        name, arguments = _parse(line)
        descriptors, waited_for = _arguments(pid, name, arguments)
        if _read(f"{path}/syscall") != line:
            return Sleep(thread, "running")  # awake meanwhile, and what was read is stale
    except (PermissionError, ProcessLookupError):
        return Sleep(thread, "", where=where)
    return Sleep(thread, name, descriptors, waited_for, where)


def _parse(line: str) -> tuple[str, list[int]]:
    """Return the name of a call and its arguments."""
    fields = line.split()
    if not fields or fields[0] in ("running", "-1"):
        return "running", []
    number = int(fields[0])
    name = _CALLS.get(platform.machine(), {}).get(number, f"system call {number}")
    return name, [int(each, 16) for each in fields[1:7]]


def _arguments(pid: int, name: str, arguments: list[int]) -> tuple[tuple[int, ...], int]:
    """Return the descriptors and the process that a call waits for."""
    if name in ("poll", "ppoll"):
        return tuple(_polled(pid, arguments[0], arguments[1])), 0
    if name in ("select", "pselect6"):
        return tuple(_selected(pid, arguments)), 0
    if name.startswith("epoll"):
        return tuple(_targets(pid, arguments[0])), 0
    if name == "fcntl":
        return ((arguments[0],) if arguments[1] in _WAITING_LOCKS else ()), 0
    if name == "wait4":
        return (), _signed(arguments[0])
    if name == "waitid":
        return (), arguments[1] if arguments[0] == _P_PID else 0
    if (
        name in ("futex", "nanosleep", "clock_nanosleep", "running", "restart_syscall")
        or " " in name
    ):
        return (), 0
    return (arguments[0],), 0


def _signed(argument: int) -> int:
    argument &= 0xFFFFFFFF
    return argument if argument < 1 << 31 else 0


def _polled(pid: int, address: int, count: int) -> Iterator[int]:
    if 0 < count <= _MOST_POLLED:
        data = _memory(pid, address, count * _POLL_ENTRY.size)
        for fd, _, _ in _POLL_ENTRY.iter_unpack(data):
            if fd >= 0:
                yield fd


def _selected(pid: int, arguments: list[int]) -> Iterator[int]:
    count = min(arguments[0], 1024)
    # A set is made of longs, all of which are there.
    length = (count + 63) // 64 * 8
    found: set[int] = set()
    for address in arguments[1:3]:
        if address and length:
            bits = int.from_bytes(_memory(pid, address, length), "little")
            found.update(fd for fd in range(count) if bits >> fd & 1)
    yield from sorted(found)


def _targets(pid: int, epoll: int) -> Iterator[int]:
    for line in _read(f"/proc/{pid}/fdinfo/{epoll}").splitlines():
        if line.startswith("tfd:"):
            yield int(line.split()[1])


def _memory(pid: int, address: int, length: int) -> bytes:
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
            file.seek(address)
            data = file.read(length)
    except OSError as error:
        if isinstance(error, (PermissionError, FileNotFoundError, ProcessLookupError)):
            raise
        return b""  # gone since the thread woke up
    return data if len(data) == length else b""


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()
