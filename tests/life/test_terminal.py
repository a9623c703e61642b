"""Ctrl-C in a real terminal, and signal handlers in the middle of everything that blocks."""

from __future__ import annotations

import fcntl
import os
import random
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procession.plugin import wait_readable
from procession.testing import interrupted
from procession.testing.forked import sleeps, until

assert sys.platform == "linux"  # pidfds show that a process has ended

_SECONDS = 30
#: ``PROCESSION_SEED`` repeats the same decisions.
SEED = int(os.environ.get("PROCESSION_SEED", "0")) or random.randrange(1, 1 << 30)
_NEVER = "(?!)"
_chance = random.Random(SEED)

_PROGRAM = """
import sys
import procession
from procession.testing import payloads

def work(ready, queue, how):
    ready.send(procession.current_process().pid)
    if how == "get":
        queue.get()
    elif how == "compute":
        while True:
            pass
    else:
        payloads.hold_for_ever()

if __name__ == "__main__":
    method, policy, daemon = sys.argv[1:]
    ctx = procession.get_context(method)
    queue = ctx.Queue()
    receiver, sender = ctx.Pipe(duplex=False)
    children = [
        ctx.Process(target=work, args=(sender, queue, how), sigint=policy, daemon=bool(int(daemon)))
        for how in ("get", "compute", "hold")
    ]
    for child in children:
        child.start()
    print("pids", *(receiver.recv() for _ in children), flush=True)
    for child in children:
        child.join()
"""


def _read_until(fd: int, pattern: str) -> str:
    """Read from a terminal until *pattern* comes, or its other side is closed."""
    text = ""
    deadline = time.monotonic() + _SECONDS
    while not re.search(pattern, text):
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            pytest.fail(f"nothing more came:\n{text}")
        try:
            text += os.read(fd, 65536).decode()
        except OSError:  # that is how a terminal says that everybody has gone
            return text
    return text


@pytest.mark.parametrize(
    ("policy", "daemon", "tracebacks"),
    [("quiet", 0, 1), ("quiet", 1, 1), ("raise", 0, 4), ("ignore", 1, 1)],
)
def test_ctrl_c(method: str, policy: str, daemon: int, tracebacks: int, tmp_path: Path) -> None:
    """One traceback, from the parent, unless the children were asked for theirs; all end."""

    def wait(pid: int, children: list[int]) -> None:
        # The third child computes.
        until(lambda: sleeps(pid) and sum(map(sleeps, children)) >= 2)

    _press(method, policy, daemon, tracebacks, tmp_path, wait)


@pytest.mark.parametrize(("policy", "tracebacks"), [("quiet", 1), ("raise", 4)])
def test_ctrl_c_at_any_time(method: str, policy: str, tracebacks: int, tmp_path: Path) -> None:
    """The same when some are just importing, or about to wait, and the interpreter may lose it."""

    def wait(pid: int, children: list[int]) -> None:
        longest = _chance.choice((0.0, 0.003, 0.03))
        time.sleep(_chance.uniform(0.0, longest))

    try:
        _press(method, policy, 0, tracebacks, tmp_path, wait)
    except BaseException as error:
        error.add_note(f"seed {SEED}")
        raise


def _press(
    method: str,
    policy: str,
    daemon: int,
    tracebacks: int,
    tmp_path: Path,
    wait: Callable[[int, list[int]], None],
) -> None:
    """Press Ctrl-C in a program with children when *wait*, given their numbers, has returned."""
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    master, slave = os.openpty()
    process = subprocess.Popen(
        (sys.executable, str(program), method, policy, str(daemon)),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    children: list[int] = []
    try:
        line = _read_until(master, r"pids( \d+){3}\r\n")
        pids = [int(pid) for pid in re.findall(r"\d+", line)]
        children = [os.pidfd_open(pid) for pid in pids]
        wait(process.pid, pids)

        os.write(master, b"\x03")
        text = line + _read_until(master, _NEVER)

        assert process.wait(_SECONDS) in (1, -2, 130), text
        assert tracebacks == text.count("Traceback (most recent call last)"), text
        assert text.count("Process ") == tracebacks - 1, text
        assert "KeyboardInterrupt" in text
        for child in children:
            assert wait_readable(child, _SECONDS)
    finally:
        for child in children:
            os.close(child)
        process.kill()
        process.wait()
        os.close(master)


def test_interrupted_calls_go_on(ctx: Any, pair: Any) -> None:
    """Signal handlers run in the middle of join, recv, send, get, put and start: no error leaks."""
    receiver, sender = ctx.Pipe(duplex=False)
    process = ctx.Process(target=interrupted.work_under_alarms, args=(sender, pair.spec))
    process.start()
    sender.close()

    assert receiver.recv() >= 100

    process.join(_SECONDS)
    assert process.exitcode == 0
    process.close()
    receiver.close()
