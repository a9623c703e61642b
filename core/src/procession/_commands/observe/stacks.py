"""The Python stacks of a process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from typing import TYPE_CHECKING

import attrs

from procession._commands.observe import descriptors
from procession._processes.stack_file import PREFIX

if TYPE_CHECKING:
    from procession._commands.observe.descriptors import Descriptor

__all__ = ["Stacks", "look"]

_ANSWER_SECONDS = 2.0
_QUIET_SECONDS = 0.05
_NAP = 0.005
_SPY_SECONDS = 20.0

_HOW = (
    "for Python stacks, install py-spy (pip install py-spy), or start the program with "
    "PROCESSION_DUMP_SIGNAL=USR1"
)


@attrs.frozen
class Stacks:
    """The stacks of the threads of one process, as lines of text."""

    #: Who told them: "signal", "py-spy" or "".
    source: str
    lines: list[str]
    #: Why there are none.
    missing: str = ""


def look(pid: int, inner: int) -> Stacks:
    """Return the stacks of process *pid*, whose number for itself is *inner*."""
    try:
        held = descriptors.look(pid)
    except OSError as error:
        return Stacks("", [], str(error.strerror))
    for descriptor in held.values():
        prefix, _, rest = descriptor.label.partition(":")
        own, _, number = rest.partition(":")
        if prefix == PREFIX and own == str(inner):
            return _by_signal(pid, descriptor, int(number))
    return _by_spy(pid)


def _by_signal(pid: int, file: Descriptor, number: int) -> Stacks:
    """Have a process that is prepared for it write its stacks, and read them."""
    if sys.platform != "linux":
        return Stacks("", [], _HOW)
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return Stacks("", [], "it has ended")
    try:
        fd = descriptors.open_again(pid, file.number)
    except OSError as error:
        os.close(pidfd)
        return Stacks("", [], str(error.strerror))
    try:
        # Without the handler the signal would end the process.
        if not _catches(pid, number):
            return Stacks("", [], f"it does not handle {signal.Signals(number).name} any more")
        before = os.fstat(fd).st_size
        signal.pidfd_send_signal(pidfd, number)
        size = _wait_for_quiet(fd, before)
        text = os.pread(fd, size - before, before).decode(errors="replace")
    except OSError as error:
        return Stacks("", [], str(error.strerror))
    finally:
        os.close(fd)
        os.close(pidfd)
    if not text:
        return Stacks("", [], f"it has not answered in {_ANSWER_SECONDS:g} seconds; is it stopped?")
    return Stacks("signal", text.splitlines())


def _catches(pid: int, number: int) -> bool:
    # A signal mask has bit 0 for signal 1.
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _wait_for_quiet(fd: int, before: int) -> int:
    """Return the size of the file once something, and then nothing more, was written."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    size, since = before, time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(_NAP)
        now = os.fstat(fd).st_size
        if now != size:
            size, since = now, time.monotonic()
        elif size > before and time.monotonic() - since > _QUIET_SECONDS:
            break
    return size


def _by_spy(pid: int) -> Stacks:
    """Have py-spy read the stacks out of the memory of the process."""
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=sysconfig.get_path("scripts"))
    if spy is None:
        return Stacks("", [], _HOW)
    try:
        result = subprocess.run(
            # Without --nonblocking it would stop the process, which changes what it sleeps on.
            [spy, "dump", "--nonblocking", "--json", "--pid", str(pid)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SPY_SECONDS,
        )
        if result.returncode:
            first = next(iter(result.stderr.strip().splitlines()), "no reason given")
            return Stacks("", [], f"py-spy cannot read them: {first}")
        return Stacks("py-spy", _lines(json.loads(result.stdout)))
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return Stacks("", [], f"py-spy cannot read them: {error}")


def _lines(threads: list[dict[str, object]]) -> list[str]:
    """Return what py-spy found in the form of faulthandler."""
    lines: list[str] = []
    for thread in threads:
        name = thread.get("thread_name") or "?"
        if lines:
            lines.append("")
        lines.append(f"Thread {thread.get('os_thread_id')} {name} (most recent call first):")
        frames = thread.get("frames")
        for frame in frames if isinstance(frames, list) else ():
            lines.append(f'  File "{frame["filename"]}", line {frame["line"]} in {frame["name"]}')
    return lines
