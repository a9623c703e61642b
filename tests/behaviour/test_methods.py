"""What is particular to fork and to the fork server."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procession.testing import leaks, payloads

DEADLINE = 30.0
_SIGKILL = 9
Make = Callable[..., Any]
pytestmark = pytest.mark.one_pair_per("method")


def _only(pair: Any, method: str) -> None:
    if pair.method != method:
        pytest.skip(f"about {method} only")


@pytest.mark.beyond("multiprocessing does not name the threads")
@pytest.mark.filterwarnings("default")  # Python 3.12 warns, too, without names
def test_fork_warns_about_threads(pair: Any, make: Make) -> None:
    """Forking a process with live threads warns and names them."""
    _only(pair, "fork")
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, name="the-busy-one")
    thread.start()
    process = make(payloads.nothing)
    try:
        with pytest.warns(Warning, match="the-busy-one"):
            process.start()
    finally:
        go_on.set()
        thread.join()
    process.join(DEADLINE)

    assert 0 == process.exitcode


def test_fork_without_threads_is_silent(pair: Any, finish: Make) -> None:
    """Forking a single-threaded process warns of nothing (warnings are errors here)."""
    _only(pair, "fork")

    assert 0 == finish(payloads.nothing).exitcode


def test_fork_inherits_memory(pair: Any, finish: Make) -> None:
    """A forked child has what its parent has, unpicklable or not."""
    _only(pair, "fork")
    value = threading.Lock()

    assert 9 == finish(lambda: sys.exit(9 if value.acquire(False) else 1)).exitcode


@pytest.mark.beyond("multiprocessing waits for a killed fork server, and loses its children")
def test_fork_server_killed_between_starts(pair: Any, start: Make, pipe: Make) -> None:
    """A killed fork server is replaced at the next start."""
    _only(pair, "forkserver")
    first = start(payloads.nothing)
    first.join(DEADLINE)
    server = _server_of(start, pipe)
    os.kill(server, _SIGKILL)

    second = start(payloads.exit_with, 5)
    second.join(DEADLINE)
    assert 5 == second.exitcode
    assert server != _server_of(start, pipe)


@pytest.mark.beyond("multiprocessing takes the children of a killed fork server for dead")
def test_running_children_survive_their_fork_server(pair: Any, start: Make, pipe: Make) -> None:
    """A child whose fork server is killed goes on, ends properly, and is seen to end."""
    _only(pair, "forkserver")
    here, there = pipe()
    child = start(payloads.hold, there)
    assert "ready" == here.recv()
    os.kill(_server_of(start, pipe), _SIGKILL)

    replaced = start(payloads.exit_with, 4)
    replaced.join(DEADLINE)
    assert 4 == replaced.exitcode
    assert child.is_alive()
    assert ([], [], []) == select.select([child.sentinel], [], [], 0)
    here.send("go on")
    assert select.select([child.sentinel], [], [], DEADLINE)[0]
    child.join(DEADLINE)
    assert child.exitcode in (0, 255)  # the real one, or "lost"
    assert not child.is_alive()


def _server_of(start: Make, pipe: Make) -> int:
    """The pid of the fork server: the parent of one of its children."""
    here, there = pipe()
    child = start(payloads.hold, there)
    assert "ready" == here.recv()
    stat = Path(f"/proc/{child.pid}/stat").read_text()
    here.send("go on")
    child.join(DEADLINE)
    return int(stat.rpartition(")")[2].split()[1])


def test_fork_server_is_one(pair: Any, start: Make, pipe: Make) -> None:
    """Every child is forked from the same server."""
    _only(pair, "forkserver")

    assert _server_of(start, pipe) == _server_of(start, pipe)


def test_fork_server_preload(run_program: Make, pair: Any) -> None:
    """Modules named by set_forkserver_preload are there before a child runs."""
    _only(pair, "forkserver")
    done = run_program(
        """
import sys
import {mp} as mp
from procession.testing import payloads

if __name__ == "__main__":
    ctx = mp.get_context("forkserver")
    ctx.set_forkserver_preload(["colorsys", "does_not_exist"])
    here, there = ctx.Pipe()
    p = ctx.Process(
        target=payloads.call, args=(there, payloads.loaded_modules, ["colorsys", "antigravity"])
    )
    p.start()
    print(here.recv())
    p.join()
""",
    )

    assert "['colorsys']\n" == done.stdout, done.stderr


def test_fork_server_preload_refuses(ctx: Any, pair: Any) -> None:
    """Module names are a list of strings."""
    with pytest.raises(TypeError, match="module_names must be a list of strings"):
        ctx.set_forkserver_preload([1, 2])


def test_fork_server_ends_with_the_program(run_program: Make, pair: Any) -> None:
    """Nothing of a program lives on after it: neither fork server nor tracker."""
    before = {each.pid for each in leaks.descendants()}
    done = run_program(
        """
import sys
import {mp} as mp
from procession.testing import payloads

if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    q = ctx.Queue()
    p = ctx.Process(target=payloads.put_all, args=(q, [1]))
    p.start()
    print(q.get())
    p.join()
""",
        pair.method,
    )

    assert ("1\n", "") == (done.stdout, done.stderr)
    left = [each for each in leaks.descendants() if each.pid not in before]
    if sys.platform != "linux":
        return  # descendants are found on Linux only
    watched = [os.pidfd_open(each.pid) for each in left]
    try:
        for descriptor in watched:
            assert select.select([descriptor], [], [], DEADLINE)[0], left
    finally:
        for descriptor in watched:
            os.close(descriptor)
