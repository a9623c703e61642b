"""A process from its making to its end: arguments, names, states, what a child knows."""

from __future__ import annotations

import gc
import os
import select
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from procession.testing import payloads

DEADLINE = 30.0
Make = Callable[..., Any]


def test_arguments_arrive(pipe: Make, finish: Make) -> None:
    """The target is called with args and kwargs, in a process of its own."""
    receiver, sender = pipe(False)

    process = finish(payloads.send_arguments, sender, 1, "two", kwargs={"three": [3], "none": None})

    assert ((1, "two"), {"three": [3], "none": None}) == receiver.recv()
    assert 0 == process.exitcode


def test_child_knows_itself_and_its_parent(library: Any, pair: Any, make: Make, pipe: Make) -> None:
    """current_process and parent_process tell a child who it is and whose; authkey is inherited."""
    receiver, sender = pipe(False)
    process = make(payloads.call, sender, payloads.identity, pair.spec, name="bob")
    process.start()
    process.join(DEADLINE)
    found = receiver.recv()

    assert (process.pid, process.pid, "bob") == (found["pid"], found["ident"], found["name"])
    assert (library.current_process().name, os.getpid()) == (
        found["parent_name"],
        found["parent_pid"],
    )
    assert (True, True, None, [], False) == (
        found["alive"],
        found["parent_alive"],
        found["exitcode"],
        found["children"],
        found["daemon"],
    )
    assert bytes(library.current_process().authkey) == found["authkey"]


def test_main_process_has_no_parent(library: Any) -> None:
    """In a process that the library did not start there is no parent to speak of."""
    assert library.parent_process() is None
    assert "MainProcess" == library.current_process().name
    assert os.getpid() == library.current_process().pid
    assert library.current_process().is_alive()


@pytest.mark.one_pair_per("method")
def test_default_names_count_up_and_descend(ctx: Any, pair: Any, make: Make, pipe: Make) -> None:
    """Default names are the class's name and the family position: SpawnProcess-1:2."""
    first, second = make(), make()
    kind, number = first.name.split("-")

    assert ctx.Process.__name__ == kind
    assert f"{kind}-{int(number) + 1}" == second.name

    receiver, sender = pipe(False)
    process = make(payloads.call, sender, payloads.child_names, pair.spec)
    process.start()
    process.join(DEADLINE)

    position = process.name.partition("-")[2]
    assert [f"{kind}-{position}:1", f"{kind}-{position}:2"] == receiver.recv()


@pytest.mark.one_pair_per("method")
def test_names_of_classes_start_with_the_method(ctx: Any, pair: Any) -> None:
    """Programs look at the names of context classes, which start with the method's."""
    prefix = {"fork": "Fork", "spawn": "Spawn", "forkserver": "ForkServer"}.get(pair.method)
    if prefix is None:
        pytest.skip("the names of third-party start methods are their own business")

    assert f"{prefix}Context" == type(ctx).__name__
    assert f"{prefix}Process" == ctx.Process.__name__


def test_package_level_process_is_called_process(library: Any) -> None:
    """``Process`` of the package itself names its children Process-N."""
    assert library.Process().name.startswith("Process-")


@pytest.mark.one_pair_per("method")
def test_name_can_be_set(make: Make) -> None:
    """The name is a label that can be given and changed."""
    process = make(name="alice")
    process.name = "carol"

    assert "carol" == process.name


@pytest.mark.beyond("the standard library's fresh interpreters refuse it")
@pytest.mark.one_pair_per("method")
def test_name_may_be_of_another_type(make: Make, finish: Make) -> None:
    """Whatever it is, it is shown as its text, and the process runs."""
    process = make(name=5)
    process.start()
    process.join(DEADLINE)

    assert 0 == process.exitcode
    assert "5" == str(process.name)
    process.close()


@pytest.mark.one_pair_per("method")
def test_states_before_start(make: Make) -> None:
    """What an unstarted process answers, and refuses with multiprocessing's classes."""
    process = make(payloads.nothing)

    assert (None, None, None, False) == (
        process.pid,
        process.ident,
        process.exitcode,
        process.is_alive(),
    )
    assert "initial" in repr(process)
    with pytest.raises(AssertionError, match="can only join a started process"):
        process.join()
    with pytest.raises(ValueError, match="process not started"):
        _ = process.sentinel
    for order in (process.terminate, process.kill):
        with pytest.raises(AttributeError):
            order()


@pytest.mark.one_pair_per("method")
def test_states_while_it_runs(library: Any, start: Make, pipe: Make) -> None:
    """A running process is alive, listed, not closable, and cannot be started again."""
    here, there = pipe()
    process = start(payloads.hold, there)
    assert "ready" == here.recv()

    assert process.is_alive()
    assert process in library.active_children()
    assert None is process.exitcode
    assert process.pid == process.ident
    assert process.pid != os.getpid()
    assert "started" in repr(process)
    assert f"pid={process.pid} parent={os.getpid()}" in repr(process)
    assert isinstance(process.sentinel, int)
    assert process.join(0) is None
    assert process.join(timeout=0.001) is None
    with pytest.raises(AssertionError, match="cannot start a process twice"):
        process.start()
    with pytest.raises(AssertionError, match="process has already started"):
        process.daemon = True
    with pytest.raises(ValueError, match="Cannot close a process while it is still running"):
        process.close()

    here.send("go on")
    process.join(DEADLINE)
    assert 0 == process.exitcode


@pytest.mark.one_pair_per("method")
def test_states_after_the_end(library: Any, finish: Make) -> None:
    """An ended process keeps its pid and exit code; join and signals are harmless."""
    process = finish(payloads.nothing)

    assert not process.is_alive()
    assert process not in library.active_children()
    assert 0 == process.exitcode
    assert isinstance(process.pid, int)
    assert "stopped exitcode=0" in repr(process)
    assert process.join() is None
    assert process.terminate() is None
    assert process.kill() is None
    with pytest.raises(AssertionError, match="cannot start a process twice"):
        process.start()


@pytest.mark.one_pair_per("method")
def test_states_after_close(finish: Make) -> None:
    """A closed process refuses everything but its name and repr; closing again is no error."""
    process = finish(payloads.nothing, name="bob")
    process.close()
    process.close()

    assert "bob" == process.name
    assert "closed" in repr(process)
    for use in (process.start, process.join, process.is_alive, process.terminate, process.kill):
        with pytest.raises(ValueError, match="process object is closed"):
            use()
    for name in ("pid", "ident", "exitcode", "sentinel"):
        with pytest.raises(ValueError, match="process object is closed"):
            getattr(process, name)


@pytest.mark.one_pair_per("method")
def test_close_before_start(make: Make) -> None:
    """A process that was never started can be closed, and not started afterwards."""
    process = make(payloads.nothing)
    process.close()

    with pytest.raises(ValueError, match="process object is closed"):
        process.start()


def test_group_must_be_none(library: Any) -> None:
    """``group`` exists for threading's sake only."""
    with pytest.raises(AssertionError, match="group argument must be None for now"):
        library.Process("group")


@pytest.mark.one_pair_per("method")
def test_no_target_is_no_work(finish: Make) -> None:
    """A process without a target ends well."""
    assert 0 == finish().exitcode


def test_only_the_creator_may_use_it(pair: Any, pipe: Make, make: Make, finish: Make) -> None:
    """start, join and is_alive refuse in a process that did not create the object."""
    if pair.method != "fork":
        pytest.skip("a process object reaches another process by fork only")
    receiver, sender = pipe(False)

    finish(payloads.misuse, sender, make(payloads.nothing))

    answers = receiver.recv()
    assert ["start", "join", "is_alive"] == [name for name, _, _ in answers]
    for (_, kind, text), expected in zip(
        answers,
        (
            "can only start a process object created by current process",
            "can only join a child process",
            "can only test a child process",
        ),
        strict=True,
    ):
        assert issubclass(kind, AssertionError)
        assert expected in text


@pytest.mark.one_pair_per("method")
def test_no_reference_to_the_target_is_kept(finish: Make) -> None:
    """Starting gives the target up: a parent need not keep what a child works with."""
    argument = payloads.Reference()
    watched = weakref.ref(argument)
    process = finish(payloads.nothing_with, argument)
    del argument
    gc.collect()

    assert watched() is None
    assert 0 == process.exitcode


@pytest.mark.beyond("multiprocessing's sentinel is ready a moment before the child can be reaped")
@pytest.mark.one_pair_per("method")
def test_active_children_forgets_the_ended(library: Any, start: Make) -> None:
    """active_children reaps what has ended, joined or not."""
    process = start(payloads.nothing)
    assert select.select([process.sentinel], [], [], DEADLINE)[0]

    assert process not in library.active_children()
    assert 0 == process.exitcode


@pytest.mark.one_pair_per("method")
def test_subclass_with_run(pair: Any, pipe: Make) -> None:
    """A subclass overrides run, keeps its attributes in the child, and is named after itself."""
    receiver, sender = pipe(False)
    process = payloads.squarer(pair.spec)(sender, 20)
    process.start()
    process.join(DEADLINE)

    assert 400 == receiver.recv()
    assert 0 == process.exitcode
    assert process.name.startswith("Squarer__")
    process.close()


@pytest.mark.one_pair_per("method")
def test_authkey_is_bytes_and_secret(make: Make) -> None:
    """The authkey can be set to bytes and does not leave the process by pickling."""
    import pickle

    process = make(payloads.nothing)
    process.authkey = b"key"

    assert b"key" == process.authkey
    with pytest.raises(TypeError, match="Pickling an AuthenticationString object is disallowed"):
        pickle.dumps(process.authkey)


def test_cpu_count(library: Any) -> None:
    """cpu_count is what the machine has."""
    assert os.cpu_count() == library.cpu_count()


def test_freeze_support_does_nothing_here(library: Any) -> None:
    """In a program that is not frozen, freeze_support returns at once."""
    assert library.freeze_support() is None


@pytest.mark.one_pair_per("method")
@pytest.mark.beyond("multiprocessing's child has a class of its own")
def test_the_child_is_a_process_of_its_context(ask: Make, pair: Any) -> None:
    """The class is made again in the child, and it is the one that a context has there."""
    assert ask(payloads.is_of_context, pair.method)
