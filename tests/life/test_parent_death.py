"""Nobody is orphaned: children end with their parent, and a tree ends as a whole."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest

from procession.errors import DaemonicProcessError
from procession.plugin import wait_readable
from procession.testing import interrupted, leaks, payloads
from procession.testing.forked import sleeps, until

assert sys.platform == "linux"  # pidfds show that a process has ended

_SECONDS = 20
#: How many trees are killed while they grow; a race that is lost once in a thousand needs more.
_GROWING_TREES = int(os.environ.get("PROCESSION_KILLS", "2"))


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _parent_in_a_group(ctx: Any, spec: Any, target: Any) -> tuple[int, Any]:
    """Fork a leader of its own process group that runs *target*; return its pid and reports."""
    receiver, sender = ctx.Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        receiver.close()
        try:
            target(sender, spec)
        finally:
            os._exit(1)
    sender.close()
    return pid, receiver


@pytest.mark.one_pair_per("method")
@pytest.mark.parametrize(("count", "whole_group"), [(1, False), (2, True), (4, False), (4, True)])
def test_a_parent_killed_in_the_middle_of_a_start_leaves_nobody(
    ctx: Any, pair: Any, count: int, whole_group: bool
) -> None:
    """It starts one child after the other, which block in every way there is; all end with it.

    That the one that was being started ends, too, and the fork server, is looked after by the
    fixture that finds what is left.
    """
    parent, receiver = _parent_in_a_group(ctx, pair.spec, interrupted.start_for_ever)
    children = [os.pidfd_open(receiver.recv()) for _ in range(count)]

    if whole_group:
        os.killpg(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
    else:
        _kill(parent)

    for child in children:
        assert wait_readable(child, _SECONDS)
        os.close(child)
    receiver.close()


@pytest.mark.one_pair_per("method")
def test_a_child_that_is_no_daemon_can_wait_for_its_parents_end(ctx: Any, pair: Any) -> None:
    """The sentinel of parent_process() is readable when the parent was killed."""
    parent, receiver = _parent_in_a_group(ctx, pair.spec, interrupted.start_one_that_watches)
    child = os.pidfd_open(receiver.recv())

    _kill(parent)

    assert receiver.poll(_SECONDS)
    assert "the parent has ended" == receiver.recv()
    assert wait_readable(child, _SECONDS)
    os.close(child)
    receiver.close()


@pytest.mark.one_pair_per("method")
@pytest.mark.parametrize("how", ["terminate", "kill", "stop"])
def test_a_deep_tree_ends_as_a_whole(ctx: Any, pair: Any, how: str) -> None:
    """Five generations, none of them daemonic, and none is left."""
    receiver, sender = ctx.Pipe(duplex=False)
    process = ctx.Process(
        target=interrupted.be_a_deep_tree,
        args=(sender, pair.spec, 4),
        sigint="ignore",
        daemon=False,
    )
    process.start()
    sender.close()
    tree = [os.pidfd_open(receiver.recv()) for _ in range(5)]

    getattr(process, how)(tree=True)
    process.join(_SECONDS)

    for each in tree:
        assert wait_readable(each, _SECONDS)
        os.close(each)
    assert process.exitcode in (-signal.SIGTERM, -signal.SIGKILL)
    process.close()
    receiver.close()


@pytest.mark.timeout(60 + 2 * _GROWING_TREES)
@pytest.mark.one_pair_per("method")
def test_a_tree_that_grows_meanwhile_is_killed_as_a_whole(ctx: Any) -> None:
    """Who forks while it is being killed leaves nobody: the tree stands still when it is listed.

    What is left is found by the fixture that looks for it.
    """
    for _ in range(_GROWING_TREES):
        receiver, sender = ctx.Pipe(duplex=False)
        process = ctx.Process(target=interrupted.fork_for_ever, args=(sender,))
        process.start()
        receiver.recv()

        process.kill(tree=True)
        process.join(_SECONDS)

        assert process.exitcode == -signal.SIGKILL
        for each in (receiver, sender, process):
            each.close()
        leaks.reap_orphans()  # sixty for each tree, and all have to be looked through


@pytest.mark.one_pair_per("method")
def test_killing_a_tree_takes_grandchildren_along(ctx: Any, pair: Any) -> None:
    """kill(tree=True) leaves nobody behind, daemonic or not."""
    receiver, sender = ctx.Pipe(duplex=False)
    process = ctx.Process(target=payloads.start_holding_child, args=(sender, pair.spec))
    process.start()
    grandchild = os.pidfd_open(receiver.recv())

    process.kill(tree=True)
    process.join(_SECONDS)

    assert wait_readable(grandchild, _SECONDS)
    assert process.exitcode == -signal.SIGKILL
    os.close(grandchild)
    for each in (receiver, sender, process):
        each.close()


@pytest.mark.one_pair_per("method")
@pytest.mark.parametrize(
    ("target", "grace", "stage"),
    [(payloads.hold_for_ever, 10.0, "asked"), (payloads.refuse_signals, 0.2, "killed")],
)
def test_stop_says_what_it_took(ctx: Any, target: Any, grace: float, stage: str) -> None:
    """A child that listens is asked; one that ignores everything but SIGKILL is killed."""
    receiver, sender = ctx.Pipe(duplex=False)
    process = ctx.Process(target=payloads.report_and_run, args=(sender, target))
    process.start()
    assert receiver.recv() == "ready"
    # An interrupt in the middle of an import may be lost: the interpreter's own callbacks there
    # swallow exceptions.
    until(lambda: sleeps(process.pid))

    assert stage == process.stop(grace)
    assert not process.is_alive()
    for each in (receiver, sender, process):
        each.close()


@pytest.mark.one_pair_per("method")
def test_stopping_what_has_ended_takes_nothing(ctx: Any) -> None:
    """stop() is safe to call late."""
    process = ctx.Process(target=payloads.nothing)
    process.start()
    process.join(_SECONDS)

    assert process.stop() == "ended"
    process.close()


def test_the_strict_policy_restores_the_ban(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may ask that daemonic processes have no children, as in multiprocessing."""
    import procession

    current = procession.current_process()
    monkeypatch.setattr(current, "_daemon", True)
    monkeypatch.setattr(current, "_strict_daemons", True)
    process = procession.Process(target=payloads.nothing)

    with pytest.raises(DaemonicProcessError, match="daemonic processes are not allowed"):
        process.start()
