"""What a parent has ready for the children that it forks."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("children are forked, and tied by the kernel", allow_module_level=True)

import procession
from procession._processes.end_with_parent import Tie
from procession._starting.lifeline import Lifeline
from procession.testing.forked import crew

fork = procession.get_context("fork")


def descriptors() -> dict[str, str]:
    """Return what this process has open, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # that was the folder itself
    return found


def stdin_reads_nothing() -> None:
    """Fail unless standard input is at its end, and on the null device."""
    assert sys.stdin.read() == ""
    assert os.readlink(f"/proc/self/fd/{sys.stdin.fileno()}") == os.devnull


def starts_another() -> None:
    """Fail unless a child of this child finds the same."""
    first = sys.stdin
    stdin_reads_nothing()
    child = fork.Process(target=stdin_reads_nothing)
    child.start()
    child.join(check=True)
    assert sys.stdin is first
    stdin_reads_nothing()
    sys.stdin.close()
    child = fork.Process(target=stdin_reads_nothing)
    child.start()
    child.join(check=True)


def run(target: Callable[[], object]) -> None:
    """Run *target* in a forked, daemonic child; fail if it does."""
    child = fork.Process(target=target, daemon=True)
    child.start()
    child.join(check=True)


def test_standard_input_is_empty_down_the_family() -> None:
    """Children, and children of a child that has used up or closed its own, read from nowhere."""
    run(starts_another)


def test_a_number_that_is_something_else_by_now(tmp_path: os.PathLike[str]) -> None:
    """A program that has closed all descriptors and opened its own is not read from by a child."""
    from procession._starting import outfit

    run(stdin_reads_nothing)
    number = outfit._null_input._fd
    secret = os.open(os.path.join(tmp_path, "secret"), os.O_RDWR | os.O_CREAT)
    os.write(secret, b"not for children\n")
    os.lseek(secret, 0, os.SEEK_SET)
    os.dup2(secret, number, inheritable=False)
    try:
        run(stdin_reads_nothing)
    finally:
        os.close(number)
        os.close(secret)


def test_a_start_leaves_nothing_open() -> None:
    """The tie is the child's alone once it is there, and so is what a start that fails had made."""
    run(stdin_reads_nothing)
    before = descriptors()
    run(stdin_reads_nothing)
    assert before == descriptors()


def test_a_fork_that_fails_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel refuses to fork, what was laid out for the child is given back."""

    def refuse() -> int:
        raise BlockingIOError(11, "no more processes")

    run(stdin_reads_nothing)
    before = descriptors()
    child = fork.Process(target=stdin_reads_nothing, daemon=True)
    with monkeypatch.context() as patches:
        patches.setattr(os, "fork", refuse)
        with pytest.raises(OSError, match="too many processes"):
            child.start()
    assert before == descriptors()
    child.start()
    child.join(check=True)


def test_a_parent_that_dies_before_its_child_is_bound() -> None:
    """Who is bound to a parent that is dead already ends at once: nobody would tell it later."""
    reader, writer = os.pipe()
    tie = Tie(reader)
    os.close(writer)

    def bind() -> None:
        tie.bind(1)
        raise AssertionError("it lives on")

    with crew() as start:
        assert start(bind).join() == -signal.SIGKILL
    tie.close()
    os.close(reader)


def test_an_unbound_tie_ends_nobody() -> None:
    """Until a child has bound itself, the end of the lifeline ends nobody."""
    reader, writer = os.pipe()
    tie = Tie(reader)
    os.close(writer)
    os.getppid()  # a signal would be here by now
    tie.close()
    tie.close()
    os.close(reader)


def test_two_threads_make_one_lifeline() -> None:
    """All children hold the same lifeline, whichever thread began; none is left over."""
    before = len(descriptors())
    lifeline = Lifeline()
    barrier = threading.Barrier(4)
    ends: list[int] = []

    def ask() -> None:
        barrier.wait()
        ends.append(lifeline.reading_end())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ends)) == 1
    assert len(descriptors()) == before + 2
    lifeline._abandon()
    os.close(ends[0])


def has_room() -> None:
    """Fail if the garbage collector comes soon."""
    assert gc.get_count()[0] < gc.get_threshold()[0] // 2


def test_garbage_is_collected_before_a_fork() -> None:
    """A collection in the child would copy the memory of all objects: one due soon comes before."""
    run(has_room)
    kept: list[list[object]] = []
    gc.collect()
    while gc.get_count()[0] < gc.get_threshold()[0] - 100:
        kept.append([])
    run(has_room)


def test_who_does_not_collect_has_nothing_collected() -> None:
    """A program that has switched the collector off is not surprised by it at a fork."""
    stops: list[object] = []
    gc.callbacks.append(lambda phase, info: stops.append(phase))
    gc.collect()
    del stops[:]
    gc.disable()
    try:
        kept: list[list[object]] = [[] for _ in range(gc.get_threshold()[0])]
        run(stdin_reads_nothing)
        assert stops == []
        assert kept
    finally:
        gc.enable()
        gc.callbacks.pop()


@pytest.fixture(autouse=True)
def _input() -> Iterator[None]:
    """Give these tests a standard input that could be read: pytest takes it away."""
    before = sys.stdin
    with open("/proc/self/status", encoding="ascii") as file:
        sys.stdin = file
        yield
    sys.stdin = before
