"""What spawn promises beyond the contract of a start method."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import pytest

import procession
from procession.testing import payloads

assert sys.platform == "linux"  # where these tests know how to look

_SECONDS = 20


@pytest.fixture
def ctx() -> Any:
    """A context of the start method."""
    return procession.get_context("spawn")


def test_a_child_is_a_direct_one(ctx: Any) -> None:
    """Programs wait for its process id with the operating system's own calls."""
    process = ctx.Process(target=payloads.exit_at_once, args=(9,))
    process.start()

    assert process.pid is not None
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    process.join(_SECONDS)

    assert 9 == process.exitcode
    process.close()


def test_no_helper_process_is_started(ctx: Any) -> None:
    """One start is one process."""
    children = f"/proc/self/task/{threading.get_native_id()}/children"
    with open(children) as file:
        before = set(file.read().split())
    process = ctx.Process(target=payloads.hold_for_ever)
    process.start()
    with open(children) as file:
        started = set(file.read().split()) - before

    assert {str(process.pid)} == started
    process.kill()
    process.join(_SECONDS)
    process.close()


def test_descriptors_left_inheritable_do_not_stay_in_the_child(ctx: Any) -> None:
    """What a library has left open for any child is not this child's business."""
    if ctx.get_transport() is None:
        pytest.skip("needs a transport to hear from the child")
    stray, other = os.pipe()
    os.set_inheritable(stray, True)
    name = os.readlink(f"/proc/self/fd/{stray}")
    receiver, sender = ctx.Pipe(duplex=False)
    process = ctx.Process(target=payloads.call, args=(sender, payloads.open_descriptors))
    process.start()
    process.join(_SECONDS)

    assert name not in receiver.recv()
    for end in (receiver, sender, process):
        end.close()
    os.close(stray)
    os.close(other)


def test_an_interpreter_that_is_not_there_is_an_error(ctx: Any) -> None:
    """start() raises, no process was started, and the next start works."""
    process = ctx.Process(target=payloads.nothing)
    ctx.set_executable("/no/such/python")
    try:
        with pytest.raises(FileNotFoundError):
            process.start()
    finally:
        ctx.set_executable(sys.executable)

    assert process.pid is None
    process.start()
    process.join(_SECONDS)
    assert 0 == process.exitcode
    process.close()
