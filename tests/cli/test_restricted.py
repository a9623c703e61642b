"""`procession top` and `dump` where the kernel does not let them look: they say so, of whom."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from procession import get_all_start_methods

if sys.platform != "linux":
    pytest.skip("top and dump need Linux", allow_module_level=True)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
    pytest.mark.skipif("fork" not in get_all_start_methods(), reason="the program forks"),
]
PATIENCE = 30.0
# Whoever changes its user without executing anything cannot be looked at by that user; the
# argument says whether this one allows it again. Its child forbids it in any case.
PROGRAM = """\
import ctypes, os, signal, sys
import procession
from procession.testing import payloads

PR_SET_DUMPABLE = 4

def hide(queue, report):
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    report.send(os.getpid())
    queue.get()

if __name__ == "__main__":
    ctx = procession.get_context("fork")
    queue, (receiver, sender) = ctx.Queue(), ctx.Pipe(duplex=False)
    warm = ctx.Process(target=payloads.nothing)
    warm.start()
    warm.join()
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, int(sys.argv[1]), 0, 0, 0)
    child = ctx.Process(target=hide, args=(queue, sender), name="hidden")
    child.start()
    print(receiver.recv(), flush=True)
    child.join()
"""
# It loads what it needs as root: the interpreter's files may be root's alone.
COMMANDS = """\
import os, sys
from procession.cli import main

for user in (0, 65534):
    os.setgid(user)
    os.setuid(user)
    for arguments in (["top", sys.argv[1], "--once"], ["dump", sys.argv[1]]):
        print("as", user, flush=True)
        print("status", main(arguments))
"""


@contextmanager
def program(environment: dict[str, str], dumpable: int) -> Iterator[tuple[int, int]]:
    """Run the program; give its process id, and that of its child."""
    command = [sys.executable, "-c", PROGRAM, str(dumpable)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            yield process.pid, child
        finally:
            os.kill(child, 9)
            process.wait(PATIENCE)


def look(environment: dict[str, str], pid: int) -> tuple[str, list[str]]:
    """Return what both commands say to the program's own user, together, and all errors."""
    result = subprocess.run(
        [sys.executable, "-c", COMMANDS, str(pid)],
        env={**environment, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return result.stdout.partition("as 65534")[2], result.stderr.splitlines()


def test_a_child_that_cannot_be_looked_at(environment: dict[str, str]) -> None:
    """The rest is shown, with a line on whom it leaves out, and why there are no stacks."""
    with program(environment, dumpable=1) as (pid, child):
        output, errors = look(environment, pid)

    assert [] == errors
    assert 2 == output.count(
        f"not all could be seen of {child}: looking at it is not allowed; root may"
    )
    assert f"no Python stacks of {child}: Permission denied" in output
    assert "MainProcess" in output


def test_a_program_that_cannot_be_looked_at(environment: dict[str, str]) -> None:
    """It is not taken for one without procession, and its own user is told what helps."""
    with program(environment, dumpable=0) as (pid, _):
        output, errors = look(environment, pid)

    assert 2 == output.count("status 2")
    assert 2 == len(errors)
    assert set(errors) == {
        f"procession: process {pid} of user nobody may not be looked at, not even by that user: "
        f"it has more rights than this command, or has forbidden it (PR_SET_DUMPABLE, also after "
        f"a change of user); run this as root"
    }
