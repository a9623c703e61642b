"""Processes that are killed at a place of the script: what others see of it."""

from __future__ import annotations

import gc
import io
import os
import sys
import threading
from collections import namedtuple
from types import FrameType
from typing import Any

import pytest

import procession
from procession.errors import (
    BrokenByDeathError,
    EndOfConnectionError,
    PeerDiedError,
    ProcessFailedError,
    WorkerDiedError,
)
from procession.testing.faults import Faults, FaultScript
from procession.testing.faults._life import MAIN, Killed, Life, _is_of_program, changed

pytestmark = pytest.mark.once


def echo(connection: Any) -> None:
    """Send back what comes, until the end."""
    for _ in range(3):
        connection.send(connection.recv())


def put_some(queue: Any, count: int) -> None:
    """Put numbers."""
    for number in range(count):
        queue.put(number)


def take_some(queue: Any, count: int) -> None:
    """Take *count* items and report each as done but the last."""
    for number in range(count):
        queue.get()
        if number < count - 1:
            queue.task_done()


def square(number: int) -> int:
    """What pools do here."""
    return number * number


def start_echo(name: str = "echo") -> tuple[Any, Any]:
    """Return our end and the process at the other one."""
    ours, theirs = procession.Pipe()
    process = procession.Process(target=echo, args=(theirs,), name=name)
    process.start()
    theirs.close()
    return ours, process


@pytest.mark.parametrize("after", range(6))
def test_it_dies_after_exactly_so_many_messages(faults: Faults, after: int) -> None:
    """The place is a count, so that a test can go through all of them."""
    faults.play(FaultScript().kill("echo", after_messages=after))
    ours, process = start_echo()
    answers = []

    def ask() -> None:
        for number in range(3):
            ours.send(number)
            answers.append(ours.recv())
        ours.recv()

    with pytest.raises(PeerDiedError) as caught:
        ask()

    assert list(range(after // 2)) == answers
    assert ("echo", process.pid, -9) == (
        caught.value.process,
        caught.value.pid,
        caught.value.exitcode,
    )
    process.join()
    assert -9 == process.exitcode
    ours.close()


def test_a_death_in_the_middle_of_a_message(faults: Faults) -> None:
    """The receiver never gets a part for the whole."""
    faults.play(FaultScript().kill("echo", after_messages=3, at_byte=4))
    ours, process = start_echo()
    ours.send("first")

    assert "first" == ours.recv()
    ours.send("second")
    with pytest.raises(OSError, match="got end of file during message"):
        ours.recv()

    process.join()
    assert -9 == process.exitcode
    ours.close()


def test_sending_to_the_dead(faults: Faults) -> None:
    """BrokenPipeError, which names who has died."""
    faults.play(FaultScript().kill("echo", after_messages=0))
    ours, process = start_echo()
    process.join()

    with pytest.raises(BrokenPipeError) as caught:
        ours.send(1)

    assert isinstance(caught.value, BrokenByDeathError)
    assert "echo" == caught.value.process
    ours.close()


def test_join_check_and_the_report(faults: Faults) -> None:
    """The structured report is the real one."""
    faults.play(FaultScript().kill("echo", after_messages=0))
    ours, process = start_echo()

    with pytest.raises(ProcessFailedError, match="was ended by SIGKILL"):
        process.join(check=True)

    assert process.failure is not None
    assert ("SIGKILL", -9) == (process.failure.signal, process.failure.exitcode)
    ours.close()


def test_an_exception_in_a_child_is_reported_as_ever(
    faults: Faults, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, the traceback on stderr, the exception for the parent."""
    process = procession.Process(target=square, args=("x",), name="multiplier")
    process.start()
    process.join()

    assert 1 == process.exitcode
    assert isinstance(process.exception, TypeError)
    assert "Process multiplier:\nTraceback" in capfd.readouterr().err


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (3, 3), (-1, 255), (256, 0)])
def test_exit_codes(faults: Faults, code: int | None, expected: int) -> None:
    """As the kernel has them."""
    process = procession.Process(target=exit, args=(code,))
    process.start()
    process.join()

    assert expected == process.exitcode


def test_a_queue_whose_only_producer_has_died(faults: Faults) -> None:
    """What was put is there; then the wait without limit ends and says who has died."""
    faults.play(FaultScript().kill("producer", after_messages=2))
    queue = procession.Queue()
    process = procession.Process(target=put_some, args=(queue, 5), name="producer")
    process.start()

    assert [0, 1] == [queue.get(), queue.get()]
    with pytest.raises(PeerDiedError) as caught:
        queue.get()

    assert ("producer", -9) == (caught.value.process, caught.value.exitcode)
    process.join()
    queue.close()


def test_a_queue_goes_on_while_another_producer_lives(faults: Faults) -> None:
    """One death is not the end, as long as somebody can still put something."""
    faults.play(FaultScript().kill("first", after_messages=1))
    queue = procession.Queue()
    gate, theirs = procession.Pipe()
    first = procession.Process(target=put_some, args=(queue, 5), name="first")
    second = procession.Process(target=put_when_told, args=(theirs, queue), name="second")
    first.start()
    second.start()
    first.join()

    assert 0 == queue.get()
    telling = threading.Thread(target=tell_when_main_sleeps, args=(queue, gate))
    telling.start()
    assert "late" == queue.get()

    telling.join()
    second.join()
    for each in (gate, theirs, queue):
        each.close()


def tell_when_main_sleeps(queue: Any, gate: Any) -> None:
    """Send a word once the wait in *queue* has found that somebody is left."""
    with changed:
        while not queue._mailbox._box.asleep[MAIN]:
            changed.wait(0.01)
    gate.send("go")


def put_when_told(connection: Any, queue: Any) -> None:
    """Wait for a word before putting."""
    connection.recv()
    queue.put("late")


def test_a_put_that_nobody_will_make_room_for(faults: Faults) -> None:
    """Symmetrical: a full queue whose consumers have died."""
    faults.play(FaultScript().kill("consumer", after_messages=1))
    queue = procession.Queue(maxsize=1)
    process = procession.Process(target=take_some, args=(queue, 5), name="consumer")
    process.start()
    queue.put(1)
    process.join()
    queue.put(2)

    with pytest.raises(BrokenByDeathError, match="consumer"):
        queue.put(3)

    queue.close()


def test_a_join_of_what_the_dead_have_taken(faults: Faults) -> None:
    """Work that was taken and not reported as done is lost with who took it."""
    queue = procession.JoinableQueue()
    for number in range(2):
        queue.put(number)
    faults.play(FaultScript().kill("consumer", after_messages=2))
    process = procession.Process(target=take_some, args=(queue, 2), name="consumer")
    process.start()

    with pytest.raises(PeerDiedError, match="consumer"):
        queue.join()

    process.join()
    queue.close()


@pytest.mark.parametrize("after", range(5))
def test_a_pool_redoes_what_a_dead_worker_had_not_begun(faults: Faults, after: int) -> None:
    """A worker says that it is ready, takes a task and answers: between these nothing is lost."""
    faults.play(FaultScript().kill("PoolWorker-*", after_messages=after))
    with procession.Pool(1) as pool:
        results = [pool.apply_async(square, (number,)) for number in range(4)]

        assert [0, 1, 4, 9] == [result.get() for result in results]


@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_pool_names_its_dead_worker_and_goes_on(faults: Faults, call: int) -> None:
    """Who dies in a task takes it along, and exactly that one."""
    faults.play(FaultScript().kill_in("PoolWorker-*", square, call=call))
    with procession.Pool(1) as pool:
        results = [pool.apply_async(square, (number,)) for number in range(4)]
        for number, result in enumerate(results, 1):
            if number == call:
                with pytest.raises(WorkerDiedError, match="square") as caught:
                    result.get()
                assert -9 == caught.value.exitcode
            else:
                assert (number - 1) ** 2 == result.get()


def test_a_kill_in_a_call_must_be_there_before_the_process(faults: Faults) -> None:
    """Later calls could be missed; a function without calls to see would never be met."""
    ours, process = start_echo()
    ours.send(1)
    ours.recv()

    with pytest.raises(ValueError, match="runs already"):
        faults.play(FaultScript().kill_in("echo", echo))
    with pytest.raises(TypeError, match="written in Python"):
        FaultScript().kill_in("echo", print)

    ours.close()
    process.join()


def test_kill_and_terminate_end_who_waits(faults: Faults) -> None:
    """A child that waits for a message is woken, and what it has open is closed at once."""
    for end, code in (("kill", -9), ("terminate", -15)):
        ours, process = start_echo(end)
        getattr(process, end)()

        assert code == process.exitcode
        with pytest.raises(EOFError):
            ours.recv()
        ours.close()


def test_what_is_opened_after_the_kill_is_closed_at_once() -> None:
    """Who is killed as it opens what it was given has nobody wait for it until it is collected."""
    killed, opened = Life("killed"), io.BytesIO()
    with changed:
        killed.end(-9)

    with pytest.raises(Killed):
        killed.hold(opened)

    assert opened.closed


def test_interrupt_is_keyboardinterrupt(faults: Faults) -> None:
    """A child that waits can be asked to stop; without a handler it ends with exit code 1."""
    ours, process = start_echo()

    assert "asked" == process.stop()

    assert 1 == process.exitcode
    ours.close()


def test_other_signals_are_refused_by_name(faults: Faults) -> None:
    """What a thread cannot get is not silently dropped."""
    ours, process = start_echo()
    assert process._child is not None

    with pytest.raises(NotImplementedError, match="'thread' cannot send SIG"):
        process._child.signal(10)

    ours.close()
    process.join()


def test_no_process_has_such_a_number(faults: Faults) -> None:
    """A signal to the number of a child, or a look into /proc, must never meet a stranger."""
    ours, process = start_echo()
    assert process.pid is not None

    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)

    process.kill(tree=True)
    ours.close()
    process.kill()


def count_for_ever(queue: Any) -> None:
    """Say that it begins, and compute without an end."""
    queue.put("begun")
    number = 0
    while True:
        number = next_number(number)


def next_number(number: int) -> int:
    """A call of the program."""
    return number + 1


def test_a_killed_one_does_not_compute_for_ever(faults: Faults) -> None:
    """Its thread is left where it calls something; the block would complain otherwise."""
    queue = procession.Queue()
    process = procession.Process(target=count_for_ever, args=(queue,))
    process.start()
    assert "begun" == queue.get()
    process.kill()

    assert -9 == process.exitcode
    queue.close()


def stay_open(connection: Any, closing: Any) -> None:
    """Be killed in the middle, with everything in a with block."""
    with closing:
        try:
            connection.recv()
        finally:
            connection.send("from the grave")


def test_the_dead_send_nothing(faults: Faults) -> None:
    """Clauses that a killed process would not run do run in a thread, and reach nobody."""
    ours, theirs = procession.Pipe()
    other, closing = procession.Pipe()
    process = procession.Process(target=stay_open, args=(theirs, closing), name="x")
    process.start()
    for end in (theirs, closing):
        end.close()
    process.kill()

    with pytest.raises(EOFError):
        ours.recv()
    with pytest.raises(EOFError):
        other.recv()
    ours.close()
    other.close()


def test_ends_close_with_their_process(faults: Faults) -> None:
    """A child that ends well closes what it has open, as the kernel does."""
    ours, process = start_echo()
    for number in range(3):
        ours.send(number)
        ours.recv()

    with pytest.raises(EndOfConnectionError):
        ours.recv()

    process.join()
    assert 0 == process.exitcode
    ours.close()


def grandparent(queue: Any) -> None:
    """Start a daemonic child, and wait for ever."""
    receiver, _sender = procession.Pipe(duplex=False)
    procession.Process(target=receive_one, args=(receiver,), name="below", daemon=True).start()
    queue.put(threading.current_thread().name)
    receiver.recv()


def receive_one(connection: Any) -> None:
    """Wait."""
    connection.recv()


def test_daemonic_children_end_with_a_killed_parent(faults: Faults) -> None:
    """Nobody is orphaned, in a test either."""
    queue = procession.Queue()
    process = procession.Process(target=grandparent, args=(queue,), name="above")
    process.start()
    assert "above" == queue.get()
    (below,) = (each for each in procession.active_children() if each.name == "below")

    process.kill()

    below.join()
    assert -9 == below.exitcode
    queue.close()


def reach_the_end(connection: Any) -> None:
    """Receive nothing and get to a call that is fatal."""
    next_number(0)
    connection.recv()


def test_a_long_message_whose_receiver_dies(faults: Faults) -> None:
    """It goes only as it is received: a sender is in the middle of it, and hears of the death."""
    faults.play(FaultScript().kill_in("receiver", next_number))
    ours, theirs = procession.Pipe()
    process = procession.Process(target=reach_the_end, args=(theirs,), name="receiver")
    process.start()
    theirs.close()

    with pytest.raises(BrokenByDeathError, match="receiver"):
        ours.send(bytes(1 << 20))

    ours.close()


def send_much(connection: Any) -> None:
    """Send a long message."""
    connection.send(bytes(1 << 20))


def test_a_long_message_whose_sender_is_killed(faults: Faults) -> None:
    """A part of it has gone: the receiver gets an error, and never that part."""
    ours, theirs = procession.Pipe()
    process = procession.Process(target=send_much, args=(theirs,), name="sender")
    process.start()
    theirs.close()
    assert ours.poll(30)
    process.kill()

    with pytest.raises(OSError, match="got end of file during message"):
        ours.recv()

    ours.close()


class FatalError(Exception):
    """Its process is killed when it is pickled for the report."""

    def __reduce__(self) -> tuple[type[FatalError], tuple[()]]:
        return FatalError, ()


def fail() -> None:
    """Be left by an exception."""
    raise FatalError


def test_a_death_while_an_exception_is_reported(faults: Faults) -> None:
    """Of what happens on the way out of a killed process nothing is heard, nor in its thread."""
    faults.play(FaultScript().kill_in("failing", FatalError.__reduce__))
    process = procession.Process(target=fail, name="failing")
    process.start()
    process.join()

    assert -9 == process.exitcode


Point = namedtuple("Point", "x y")


def test_a_thread_is_left_in_functions_of_modules_only() -> None:
    """The standard library calls what `exec` has made for it in the middle of anything."""
    names = {}

    def look(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            names[frame.f_code.co_name] = _is_of_program(frame)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        Point(1, 2)
        square(3)
    finally:
        sys.setprofile(before)

    assert {"square": True} == {name: left for name, left in names.items() if left}
    assert len(names) > 1, "the constructor of a named tuple is no function any more"


def test_a_thread_is_not_left_in_what_the_collector_calls() -> None:
    """What is raised in a callback of the garbage collector ends nothing, and is complained of."""
    left = []

    def callback(phase: str, info: object) -> None:
        left.append(_is_of_program(sys._getframe()))

    gc.callbacks.append(callback)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(callback)

    assert left
    assert not any(left)
