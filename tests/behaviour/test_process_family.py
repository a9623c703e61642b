"""Families: nested processes of mixed methods, and children that watch their parent."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procession.testing import payloads

DEADLINE = 30.0
Make = Callable[..., Any]


def test_three_generations(pair: Any, pipe: Make, finish: Make) -> None:
    """A process started from a process started from a process works, on every pair."""
    receiver, sender = pipe(False)
    process = finish(payloads.nest, sender, [pair.spec, pair.spec])

    assert 2 == process.exitcode
    assert receiver.recv() not in (os.getpid(), process.pid)


@pytest.mark.beyond("multiprocessing's fork server cannot be used in a forked child")
@pytest.mark.one_pair_per("transport")
def test_mixed_methods(library: Any, pair: Any, pipe: Make) -> None:
    """Any method may be used inside any other, three deep."""
    methods = library.get_all_start_methods()
    for line in itertools.permutations(methods, min(3, len(methods))):
        specs = [(pair.subject, method, pair.transport) for method in line]
        receiver, sender = pipe(False)
        process = payloads.context(specs[0]).Process(target=payloads.nest, args=(sender, specs[1:]))
        process.start()
        process.join(DEADLINE)

        assert len(specs) - 1 == process.exitcode, line
        assert isinstance(receiver.recv(), int)
        process.close()


@pytest.mark.one_pair_per("method")
def test_parent_process_sees_the_parent_die(pair: Any, pipe: Make, finish: Make) -> None:
    """parent_process().sentinel becomes ready and is_alive false when the parent is killed."""
    receiver, sender = pipe(False)
    orders, commander = pipe(False)
    commander.send("die")

    process = finish(payloads.watch_parent, sender, pair.spec, orders)

    assert -9 == process.exitcode
    assert receiver.poll(DEADLINE)
    alive = receiver.recv()
    if alive is False:  # the parent had gone before its child asked
        assert (True, False) == receiver.recv()
        return
    assert receiver.poll(DEADLINE)
    assert (True, False) == receiver.recv()


@pytest.mark.one_pair_per("method")
def test_daemon_of_a_child_ends_with_it(pair: Any, pipe: Make, finish: Make) -> None:
    """A daemonic grandchild is gone once the child that started it has ended."""
    receiver, sender = pipe(False)
    process = finish(payloads.start_daemon, sender, pair.spec)
    pid = receiver.recv()

    assert 0 == process.exitcode
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


@pytest.mark.one_pair_per("method")
def test_siblings_do_not_inherit_each_others_descriptors(
    pair: Any, start: Make, pipe: Make, ask: Make
) -> None:
    """However many siblings run, a fresh child has no more descriptors than the first had."""
    if pair.method == "fork":
        pytest.skip("fork inherits all of its parent's descriptors")
    alone = ask(payloads.open_descriptors)
    ends = [pipe() for _ in range(5)]
    siblings = [start(payloads.hold, there) for _, there in ends]
    for here, _ in ends:
        assert "ready" == here.recv()

    assert len(alone) == len(ask(payloads.open_descriptors))

    for here, _ in ends:
        here.send("go on")
    for process in siblings:
        process.join(DEADLINE)
