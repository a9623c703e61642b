"""Pools at the end of programs, and beside forks and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from procession.testing import pooled
from procession.testing.forked import until

Run = Callable[[str], Any]
_SIGKILL = 9
pytestmark = [
    pytest.mark.one_pair_per("method"),
    pytest.mark.beyond("multiprocessing makes a noise at exit, or hangs"),
]

_PROGRAM = """
import os, sys, time
import procession
from procession.testing import pooled

def main():
    ctx = procession.get_context(sys.argv[1])
    pool = ctx.Pool(2)
    busy = pool.apply_async(pooled.hang)
    print(*set(pool.map(pooled.pid, range(20), chunksize=1)), flush=True)
    {end}

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def run(pair: Any, tmp_path: Any) -> Callable[[str], Any]:
    """Start the program with a certain end."""

    def run(end: str) -> Any:
        program = tmp_path / "program.py"
        program.write_text(_PROGRAM.format(end=end))
        return subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", program, pair.method],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return run


def _all_gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while any(_lives(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("globals()['kept'] = pool", 0),
        ("globals()['kept'] = pool; raise SystemExit(4)", 4),
        ("globals()['kept'] = pool; pool.close()\n    busy.cancel()", 0),
    ],
    ids=["open", "exit", "closed"],
)
def test_exit_with_an_open_pool(run: Run, end: str, code: int) -> None:
    """The program ends, with its own exit code, in silence, and its workers with it."""
    process = run(end)
    output, errors = process.communicate(timeout=40)

    assert (code, "") == (process.returncode, errors)
    assert _all_gone([int(pid) for pid in output.split()])


def test_killed_parent(run: Run) -> None:
    """The workers end with a parent that is killed."""
    process = run("time.sleep(1000)")
    pids = [int(pid) for pid in process.stdout.readline().split()]
    process.kill()
    process.communicate(timeout=40)

    assert _all_gone(pids)


@pytest.mark.parametrize("wait", ["busy.get()", "next(pool.imap(time.sleep, [1000]))"])
def test_interrupt(run: Run, wait: str) -> None:
    """Ctrl-C is the parent's: one traceback, and an end."""
    process = run(f"globals()['kept'] = pool; {wait}")
    pids = [int(pid) for pid in process.stdout.readline().split()]
    deadline = time.monotonic() + 20
    while b"futex" not in _wchan(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    if sys.platform != "win32":
        os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=40)

    assert 1 == errors.count("Traceback"), errors
    assert "KeyboardInterrupt" in errors
    assert _all_gone(pids)


def _wchan(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/wchan", "rb") as file:
            return file.read()
    except OSError:
        return b"futex"


def test_child_with_an_open_pool(pair: Any, ctx: Any) -> None:
    """A child that ends with a pool open ends, and its workers with it."""
    receiver, sender = ctx.Pipe(duplex=False)
    process = ctx.Process(target=pooled.leave_pool_open, args=(pair.spec, sender))
    process.start()
    pids = receiver.recv()
    process.join(40)

    assert 0 == process.exitcode
    assert _all_gone(pids)
    process.close()
    receiver.close()
    sender.close()


def test_fork_beside_a_pool(ctx: Any, pair: Any) -> None:
    """A forked copy of the program has no thread of the pool to miss, and no use of the pool."""
    if sys.platform == "win32":
        pytest.skip("no fork")
    with ctx.Pool(2) as pool:
        result = pool.map_async(pooled.same, range(2000), chunksize=1)
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    pool.apply(pooled.same, (1,))
                except ValueError:
                    code = 0
                finally:
                    os._exit(code)
            assert (pid, 0) == os.waitpid(pid, 0)
        assert list(range(2000)) == result.get(30)
        assert [1, 2] == pool.map(pooled.same, [1, 2])


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_have_nothing_of_each_other(ctx: Any) -> None:
    """Whoever had an end of another's channel could keep the pool waiting for that one's."""
    with ctx.Pool(3) as pool:
        before = _ready_ones(pool)
        first, *others = map(_channels_of, before)

        assert first
        assert [first] * 2 == others

        os.kill(before[0], _SIGKILL)

        assert [first] * 3 == [_channels_of(pid) for pid in _ready_ones(pool, before[0])]


def _ready_ones(pool: Any, gone: int = 0) -> list[int]:
    """Return the three workers of *pool* once all of them wait for tasks, and *gone* has gone."""

    def are_ready() -> bool:
        members = list(pool._crew.members)
        return len(members) == 3 and all(each.ready and each.pid != gone for each in members)

    until(are_ready)
    return [member.pid for member in pool._crew.members]


def _channels_of(pid: int) -> dict[str, int]:
    """Return how many descriptors *pid* has of each kind that channels are made of."""
    found: Counter[str] = Counter()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            kind = os.readlink(f"/proc/{pid}/fd/{fd}").split("[")[0]
        except FileNotFoundError:
            continue  # it was just closed
        if kind.startswith(("pipe:", "socket:", "/memfd:procession-ring")):
            found[kind] += 1
    return found


def test_two_pools_recycle_at_once(ctx: Any) -> None:
    """Pools that start workers at the same time do not wait for each other for ever."""
    with ctx.Pool(2, maxtasksperchild=1) as one, ctx.Pool(2, maxtasksperchild=1) as other:
        results = [pool.map_async(pooled.same, range(10), 1) for pool in (one, other)]

        assert [list(range(10))] * 2 == [result.get(50) for result in results]
