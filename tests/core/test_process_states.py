"""Core's own part of a process, on a start method without processes."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import procession
from procession._starting import launch
from procession._starting.lifeline import lifeline
from procession.context import Context
from procession.errors import (
    ForeignProcessError,
    ProcessClosedError,
    ProcessNotStartedError,
    ProcessRunningError,
    ProcessStartedError,
    UnstartedSignalError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def _lifeline_of_this_process() -> None:
    """A process keeps its lifeline from its first child on: it is there before the tests."""
    lifeline.reading_end()


class Held:
    """A body for children that ends when the test lets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reference: Any) -> None:
        self.release = threading.Event()
        monkeypatch.setattr(reference.Reference, "body", staticmethod(self._wait))

    def _wait(self, plan: Any) -> None:
        assert self.release.wait(30)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, reference: Any) -> Iterator[Held]:
    """Children that run until the test ends them."""
    body = Held(monkeypatch, reference)
    yield body
    body.release.set()


def test_a_context_is_named_after_its_start_method(ctx: Any) -> None:
    """Clients look at the names of the classes to tell contexts apart."""
    assert "ReferenceContext" == type(ctx).__name__
    assert "ReferenceProcess" == ctx.Process.__name__
    assert "reference" == ctx.get_start_method()
    assert "memory" == ctx.get_transport()
    assert ctx is procession.get_context("reference", transport="memory")


@pytest.mark.parametrize("what", ["start method", "transport", "serializer"])
@pytest.mark.parametrize("name", ["reference", "memory", "pickle", "another", None])
def test_a_fixed_context_refuses_to_be_set(ctx: Any, what: str, name: str | None) -> None:
    """A fixed context is never changed under those who hold it, nor pretends to be."""
    with pytest.raises(ValueError, match=f"cannot set {what} of concrete context"):
        getattr(ctx, f"set_{what.replace(' ', '_')}")(name, force=True)


def test_the_states_of_a_process(ctx: Any, held: Held) -> None:
    """initial, started, stopped, closed: each is shown, and each refuses what it must."""
    process = ctx.Process()

    assert " initial>" in repr(process)
    assert process.pid is None
    assert process.exitcode is None
    assert not process.is_alive()

    process.start()

    assert " started>" in repr(process)
    assert process.is_alive()
    assert process in procession.active_children()
    with pytest.raises(ProcessStartedError, match="cannot start a process twice"):
        process.start()
    with pytest.raises(ProcessStartedError, match="process has already started"):
        process.daemon = True
    with pytest.raises(ProcessRunningError, match="Cannot close a process while it is still"):
        process.close()
    process.join(0)
    assert process.exitcode is None

    held.release.set()
    process.join()

    assert " stopped exitcode=0>" in repr(process)
    assert 0 == process.exitcode
    assert process not in procession.active_children()

    process.close()
    process.close()

    assert " closed>" in repr(process)
    for use in (process.start, process.join, process.is_alive, process.kill):
        with pytest.raises(ProcessClosedError, match="process object is closed"):
            use()
    with pytest.raises(ValueError, match="process object is closed"):
        _ = process.exitcode


def test_what_needs_a_child_says_that_there_is_none(ctx: Any) -> None:
    """Before the start, each operation raises what multiprocessing raises there."""
    process = ctx.Process()

    with pytest.raises(AssertionError, match="can only join a started process"):
        process.join()
    with pytest.raises(ValueError, match="process not started"):
        _ = process.sentinel
    with pytest.raises(ProcessNotStartedError):
        _ = process.sentinel
    for use in (process.terminate, process.kill, process.interrupt):
        with pytest.raises(AttributeError):
            use()
        with pytest.raises(UnstartedSignalError):
            use()


def test_a_launch_that_fails_leaves_the_process_as_it_was(ctx: Any, reference: Any) -> None:
    """Whatever a start method raises reaches the caller, and start() can be called again."""
    process = ctx.Process()
    reference.Reference.refusal = OSError("no more")

    with pytest.raises(OSError, match="no more"):
        process.start()

    assert " initial>" in repr(process)
    assert [] == procession.active_children()
    reference.Reference.refusal = None
    process.start()
    process.join()
    assert 0 == process.exitcode
    process.close()


def test_signals_are_passed_to_the_child(ctx: Any, held: Held) -> None:
    """interrupt, terminate and kill are SIGINT, SIGTERM and SIGKILL."""
    process = ctx.Process()
    process.start()

    process.interrupt()
    process.terminate()
    process.kill()

    assert [2, 15, 9] == process._child.signals
    held.release.set()
    process.join()
    process.close()


def test_the_work_is_forgotten_once_it_is_started(ctx: Any, held: Held) -> None:
    """No reference is kept to a target and its arguments: they may be large."""

    class Argument:
        pass

    argument = Argument()
    process = ctx.Process(target=print, args=(argument,), kwargs={"end": argument})
    seen = weakref.ref(argument)
    process.start()
    held.release.set()
    process.join()

    _launch_plans = type(launch.methods.get(ctx._method_class)).plans  # type: ignore[attr-defined]
    _launch_plans.clear()
    del argument
    gc.collect()

    assert seen() is None
    process.close()


def test_a_plan_says_everything_about_one_start(ctx: Any, reference: Any) -> None:
    """A start method reads name, daemon flag and main module off the plan."""
    process = ctx.Process(name="worker", daemon=True)
    process.start()
    process.join()

    (plan,) = reference.Reference.plans
    assert "worker" == plan.name
    assert plan.daemon
    assert plan.process is process
    assert ("__main__",) == plan.preload
    os.fstat(plan.lifeline)
    process.close()


def test_a_process_of_another_process_is_refused(ctx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the creator may start, join or ask."""
    process = ctx.Process()
    monkeypatch.setattr(process, "_parent_pid", os.getpid() + 1)

    with pytest.raises(
        ForeignProcessError, match="can only start a process object created by current process"
    ):
        process.start()
    with pytest.raises(AssertionError, match="can only join a child process"):
        process.join()
    with pytest.raises(AssertionError, match="can only test a child process"):
        process.is_alive()
    assert " unknown>" in repr(process)


def test_the_end_of_the_program_stops_helpers_once(ctx: Any, reference: Any) -> None:
    """A start method is closed with the process that used it, also when asked twice."""
    before = reference.Reference.closed
    process = ctx.Process()
    process.start()
    process.join()
    process.close()

    launch.end_children()
    launch.end_children()

    assert before + 1 == reference.Reference.closed


def test_contexts_are_pickled_by_name(ctx: Any) -> None:
    """A context may be an argument of a process: it is the same one there."""
    kind, arguments = ctx.__reduce__()

    assert ctx is kind(*arguments)
    assert isinstance(ctx, Context)
