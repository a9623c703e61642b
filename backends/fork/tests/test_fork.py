"""What fork promises beyond the contract of a start method."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import pytest

import procession
from procession.errors import ForkWithThreadsWarning
from procession.testing import payloads

assert sys.platform == "linux"  # where these tests know how to look

_SECONDS = 20


@pytest.fixture
def ctx() -> Any:
    """A context of the start method."""
    return procession.get_context("fork")


@pytest.fixture
def waiting_thread() -> Any:
    """A thread with a name, alive during the test."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="keeper of a lock")
    thread.start()
    yield thread
    end.set()
    thread.join()


def test_threads_are_named_before_anything_is_forked(ctx: Any, waiting_thread: Any) -> None:
    """A warning that is an error refuses the start, and it says which threads are meant."""
    process = ctx.Process(target=payloads.nothing)

    with pytest.raises(ForkWithThreadsWarning, match="keeper of a lock") as caught:
        process.start()

    assert process.pid is None
    assert "forkserver" in str(caught.value)


def test_the_warning_points_at_the_call_of_start(ctx: Any, waiting_thread: Any) -> None:
    """The line shown is the user's own."""
    process = ctx.Process(target=payloads.nothing)

    with pytest.warns() as warnings:
        process.start()
    process.join(_SECONDS)
    process.close()

    ours = [each for each in warnings if each.category is ForkWithThreadsWarning]
    assert [__file__] == [each.filename for each in ours]


def test_a_child_never_returns_into_its_parents_program(ctx: Any) -> None:
    """Whatever the target raises, the child ends where it was started."""
    before = os.getpid()
    for target, code in ((payloads.raise_error, 1), (payloads.exit_with, 7)):
        process = ctx.Process(target=target, args=("text",) if code == 1 else (7,))
        process.start()
        process.join(_SECONDS)
        assert code == process.exitcode
        assert before == os.getpid()
        process.close()


def test_a_child_is_a_direct_one(ctx: Any) -> None:
    """Programs wait for its process id with the operating system's own calls."""
    process = ctx.Process(target=payloads.exit_at_once, args=(9,))
    process.start()

    assert process.pid is not None
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    process.join(_SECONDS)

    assert 9 == process.exitcode
    process.close()
