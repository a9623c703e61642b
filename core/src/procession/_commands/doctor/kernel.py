"""Whether the kernel can do what procession uses."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from typing import TYPE_CHECKING

from procession._commands.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from procession._commands.doctor.machine import Machine

__all__ = ["PROBES", "huge_pages", "kernel", "tracing"]

# Its place among the capabilities of a process.
_SYS_PTRACE = 19
_F_SETSIG = 10  # the fcntl module has no name for it


def kernel(
    machine: Machine, probes: dict[str, tuple[Callable[[], None], str]]
) -> Iterator[Finding]:
    """Try each of *probes*, by feature: a function that raises, and what is lost without it."""
    release = machine.text("/proc/sys/kernel/osrelease")
    if sys.platform != "linux" or release is None:
        yield Finding(
            Level.WARNING,
            "kernel",
            f"{sys.platform}, without what Linux has for processes",
            "use Linux, or expect start methods and transports to be unavailable",
        )
        return
    missing = False
    for feature, (probe, loss) in probes.items():
        try:
            probe()
        except (OSError, AttributeError) as error:
            missing = True
            yield Finding(
                Level.PROBLEM,
                feature,
                f"cannot be used: {error}; without it {loss}",
                "use a kernel of version 5.6 or newer; in a container, see whether its seccomp "
                "profile forbids the call",
            )
    if not missing:
        yield Finding(Level.OK, "kernel", f"Linux {release} has {', '.join(probes)}")


def huge_pages(machine: Machine) -> Iterator[Finding]:
    """Look at transparent huge pages, for memory that is shared."""
    setting = machine.text("/sys/kernel/mm/transparent_hugepage/enabled")
    chosen = "" if setting is None else setting.partition("[")[2].partition("]")[0]
    if chosen == "always":
        yield Finding(
            Level.NOTE,
            "transparent huge pages",
            "always: a forked child copies 2 MiB where it writes one byte",
            "if children take much memory: echo madvise > "
            "/sys/kernel/mm/transparent_hugepage/enabled",
        )
    elif chosen:
        yield Finding(Level.OK, "transparent huge pages", chosen)
    else:
        yield Finding(Level.NOTE, "transparent huge pages", "this kernel has none")


def tracing(machine: Machine) -> Iterator[Finding]:
    """Look whether `procession top` and `dump` may see what other processes wait for."""
    status = dict(
        line.split(":", 1)
        for line in (machine.text("/proc/self/status") or "").splitlines()
        if ":" in line
    )
    capabilities = int(status.get("CapEff", "0").strip() or "0", 16)
    scope = machine.number("/proc/sys/kernel/yama/ptrace_scope") or 0
    if capabilities >> _SYS_PTRACE & 1:
        yield Finding(Level.OK, "tracing", "everything (capability SYS_PTRACE)")
    elif scope == 0:
        yield Finding(Level.OK, "tracing", "programs of this user")
    else:
        yield Finding(
            Level.NOTE,
            "tracing",
            f"kernel.yama.ptrace_scope is {scope}: top and dump are not told what processes wait "
            f"for, nor their stacks",
            "run procession top and dump as root, or start programs with "
            "PROCESSION_DUMP_SIGNAL=USR1",
        )


def _pidfd() -> None:
    if sys.platform == "linux":
        os.close(os.pidfd_open(os.getpid()))


def _memfd() -> None:
    if sys.platform == "linux":
        os.close(os.memfd_create("procession-doctor"))


def _eventfd() -> None:
    if sys.platform == "linux":
        os.close(os.eventfd(0, os.EFD_CLOEXEC))


def _packet_pipe() -> None:
    if sys.platform == "linux":
        reader, writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(writer, b"one")
            os.write(writer, b"two")
            if os.read(reader, 100) != b"one":
                raise OSError("packets run together")
        finally:
            os.close(reader)
            os.close(writer)


def _file_description_lock() -> None:
    if sys.platform == "linux":
        import fcntl
        import struct

        with tempfile.TemporaryFile() as file:
            lock = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)


def _signal_of_descriptor() -> None:
    if sys.platform == "linux":
        import fcntl
        import signal

        reader, writer = os.pipe()
        try:
            fcntl.fcntl(reader, _F_SETSIG, signal.SIGIO)
        finally:
            os.close(reader)
            os.close(writer)


def _descriptor_passing() -> None:
    if sys.platform == "linux":
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with here, there:
            socket.send_fds(here, [b"x"], [here.fileno()])
            _, received, _, _ = socket.recv_fds(there, 1, 1)
            if len(received) != 1:
                raise OSError("the descriptor did not arrive")
            os.close(received[0])


#: What is tried, by name: how, and what is lost without it.
PROBES: dict[str, tuple[Callable[[], None], str]] = {
    "pidfd_open": (_pidfd, "the fork server does not work and trees cannot be ended safely"),
    "memfd_create": (_memfd, "queues and parcels do not work"),
    "eventfd": (_eventfd, "queues do not work"),
    "packet pipes (O_DIRECT)": (_packet_pipe, "queues of the transport 'pipe' do not work"),
    "locks of file descriptions (F_OFD_SETLK)": (_file_description_lock, "queues do not work"),
    "signals of descriptors (F_SETSIG)": (
        _signal_of_descriptor,
        "daemonic children may outlive a killed parent",
    ),
    "descriptor passing (SCM_RIGHTS)": (
        _descriptor_passing,
        "the fork server and sending of connections do not work",
    ),
}
