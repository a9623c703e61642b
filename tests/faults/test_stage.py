"""The block: what it selects, what it refuses, and that nothing of it is left."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import pytest

import procession
from procession.errors import IncompatiblePluginsError, UnknownPluginError, UnsupportedOptionError
from procession.plugin import LaunchPlan
from procession.testing.faults import Faults, FaultScript, Thread
from procession.testing.faults._life import changed

assert sys.platform != "win32"  # where there is no fork

BEQUEST: Any = {"names": {}, "roster": {}, "plugins": ()}


def forward(connection: Any) -> None:
    """Receive a connection and say something through it."""
    with connection.recv() as end:
        end.send("through")


def report_selection(queue: Any) -> None:
    """Say what a child has selected."""
    queue.put((procession.get_start_method(), procession.get_transport()))


def nothing() -> None:
    """Do nothing."""


def test_both_are_selected_inside_and_unknown_outside() -> None:
    """Never an operator's choice by mistake: there is no entry point, and no list has them."""
    before = procession.get_start_method(allow_none=True)
    with Faults():
        chosen = procession.selection()
        assert ("thread", "memory") == (chosen.start_method.name, chosen.transport.name)

    assert before == procession.get_start_method(allow_none=True)
    assert "thread" not in procession.get_all_start_methods()
    assert "memory" not in procession.get_all_transports()
    with pytest.raises(UnknownPluginError):
        procession.set_start_method("thread")


def test_what_was_chosen_outside_does_not_count_inside(method: str) -> None:
    """The program under test is not asked to change, whatever is configured; later it counts."""
    with procession.use(start_method=method):
        with Faults():
            assert "thread" == procession.get_start_method()
        assert method == procession.get_start_method()


def test_children_have_their_parent_s_choice(faults: Faults) -> None:
    """Also in the thread of a child."""
    queue = procession.Queue()
    process = procession.Process(target=report_selection, args=(queue,))
    process.start()

    assert ("thread", "memory") == queue.get()
    process.join()
    queue.close()


def test_one_block_at_a_time(faults: Faults) -> None:
    """A second one would end the first one's children."""
    with pytest.raises(RuntimeError, match="another block of Faults"), Faults():
        pass


def test_outside_of_a_block_nothing_can_be_started() -> None:
    """A context or process that was kept does not start threads in a real program."""
    with Faults():
        process = procession.get_context("thread", transport="memory").Process(target=nothing)

    with pytest.raises(UnknownPluginError):
        process.start()
    with pytest.raises(RuntimeError, match="for blocks of procession"):
        Thread().launch(
            LaunchPlan(
                process=process, lifeline=0, preload=(), log=None, bequest=BEQUEST, given=set()
            )
        )
    assert not process.is_alive()


def test_options_of_a_process_are_refused(faults: Faults) -> None:
    """A thread has the variables and the directory of everybody else."""
    options: list[Any] = [{"env": {"A": "b"}}, {"cwd": "/"}, {"max_seconds": 3}]
    for option in options:
        process = procession.Process(target=nothing, **option)
        with pytest.raises(UnsupportedOptionError, match="children are threads"):
            process.start()


def test_what_cannot_be_pickled_is_refused_in_the_caller(faults: Faults) -> None:
    """As with a fresh interpreter: a test must not pass only since memory is shared."""
    with pytest.raises(Exception, match=r"pickle|local object"):
        procession.Process(target=lambda: None).start()


def test_neither_goes_with_a_real_one(faults: Faults, method: str, transport: str) -> None:
    """A pair that would work half is refused when it is made, with what would work."""
    for pair in ((method, "memory"), ("thread", transport)):
        with pytest.raises(IncompatiblePluginsError, match="thread with memory"):
            procession.get_context(pair[0], transport=pair[1])


def test_a_connection_can_be_sent_and_closed(faults: Faults) -> None:
    """On its way, an end is open, although nobody has it."""
    ours, theirs = procession.Pipe()
    process = procession.Process(target=forward, args=(theirs,))
    process.start()
    receiver, sender = procession.Pipe(duplex=False)
    ours.send(sender)
    sender.close()

    assert "through" == receiver.recv()

    process.join()
    for end in (ours, theirs, receiver):
        end.close()


def test_a_thread_that_cannot_be_ended_is_named() -> None:
    """It would go on in the tests that follow."""
    lock = procession.Lock()
    faults = Faults()
    faults.__enter__()
    lock.acquire()
    queue = procession.Queue()
    process = procession.Process(target=take, args=(lock, queue), name="stuck")
    process.start()
    assert "about to wait" == queue.get()

    with pytest.raises(RuntimeError, match=r"process 'stuck'(.*\n)*.*with lock"):
        faults._leave(seconds=0.2)

    lock.release()
    queue.close()
    for thread in threading.enumerate():
        if thread.name == "stuck":
            thread.join()


def take(lock: Any, queue: Any) -> None:
    """Wait for a lock that is taken."""
    queue.put("about to wait")
    with lock:
        pass


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_copy_of_the_test_is_not_held_up(faults: Faults) -> None:
    """Whoever forks in the middle of a message has nobody in the child who would finish it."""
    holds, release = threading.Event(), threading.Event()

    def hold() -> None:
        with changed:
            holds.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(30)
    pid = os.fork()
    if not pid:
        with changed:
            os._exit(7)
    release.set()
    thread.join()

    assert 7 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda script: script.kill("a", after_messages=-1),
        lambda script: script.kill("a", after_messages=1, start=0),
        lambda script: script.cut("a", message=0),
        lambda script: script.delay("a", message=1, seconds=0),
    ],
)
def test_scripts_are_checked_when_they_are_written(make: Any) -> None:
    """Where the mistake is, and not where it would have happened."""
    with pytest.raises(ValueError, match="must be"):
        make(FaultScript())


def test_scripts_do_not_change() -> None:
    """Each step is a new one, so that several can begin with the same."""
    first = FaultScript().kill("a", after_messages=1)
    second = first.delay("b", message=1)

    assert (1, 2) == (len(first.rules), len(second.rules))


def test_what_a_script_names_must_be_of_memory(faults: Faults) -> None:
    """Something else would never be cut, and the test would prove nothing."""
    with pytest.raises(TypeError, match="transport 'memory'"):
        faults.play(FaultScript().cut(object(), message=1))  # type: ignore[arg-type]
    receiver, sender = procession.Pipe(duplex=False)
    with pytest.raises(TypeError, match="name the other end"):
        faults.play(FaultScript().cut(sender, message=1))
    receiver.close()
    sender.close()


def test_a_script_cannot_kill_twice(faults: Faults) -> None:
    """Of two places only the first would ever be reached."""
    faults.play(FaultScript().kill("a", after_messages=1).kill("a", after_messages=2))

    with pytest.raises(ValueError, match="killed by the script already"):
        procession.Process(target=nothing, name="a").start()
