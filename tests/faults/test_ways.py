"""Messages that are lost, late, or overtaken on their way."""

from __future__ import annotations

import pickle
import time
from queue import Empty
from typing import Any

import pytest

import procession
from procession.errors import BrokenConnectionError, EndOfConnectionError
from procession.testing.faults import Faults, FaultScript


def answer(connection: Any) -> None:
    """Answer every request, until the end."""
    while True:
        try:
            connection.send(("answer", connection.recv()))
        except (EOFError, OSError):
            return


def put_own_name(queue: Any, name: str, count: int) -> None:
    """Put *count* numbered items."""
    for number in range(count):
        queue.put(f"{name}{number}")


def start_answer(name: str = "server") -> tuple[Any, Any]:
    """Return our end and the process at the other one."""
    ours, theirs = procession.Pipe()
    process = procession.Process(target=answer, args=(theirs,), name=name)
    process.start()
    theirs.close()
    return ours, process


def test_a_connection_lost_between_messages(faults: Faults) -> None:
    """Both live; one has the end, the other a broken pipe."""
    ours, process = start_answer()
    faults.play(FaultScript().cut(ours, message=2))
    ours.send(1)

    assert ("answer", 1) == ours.recv()
    ours.send(2)
    with pytest.raises(EndOfConnectionError):
        ours.recv()
    with pytest.raises(BrokenConnectionError):
        ours.send(3)

    process.join()
    assert 0 == process.exitcode
    ours.close()


@pytest.mark.parametrize("at_byte", [1, 5, 17])
def test_a_connection_lost_in_the_middle_of_a_message(faults: Faults, at_byte: int) -> None:
    """By the name of the sender, whose connection the test need not know."""
    faults.play(FaultScript().cut("server", message=1, at_byte=at_byte))
    ours, process = start_answer()
    assert at_byte < len(pickle.dumps(("answer", 1), 5))
    ours.send(1)

    with pytest.raises(OSError, match="got end of file during message"):
        ours.recv()
    with pytest.raises(EOFError):
        ours.recv()

    process.join()
    ours.close()


def test_a_message_that_is_whole_before_the_cut_is_received(faults: Faults) -> None:
    """A sender that gets an error may have been heard all the same."""
    faults.play(FaultScript().cut("server", message=1, at_byte=1000))
    ours, process = start_answer()
    ours.send(1)

    assert ("answer", 1) == ours.recv()
    with pytest.raises(EOFError):
        ours.recv()

    process.join()
    ours.close()


def test_a_queue_cannot_be_cut(faults: Faults, capfd: pytest.CaptureFixture[str]) -> None:
    """No real queue is lost: a script that says so is wrong, and says where."""
    faults.play(FaultScript().cut("a", message=1))
    queue = procession.Queue()
    process = procession.Process(target=put_own_name, args=(queue, "a", 1), name="a")
    process.start()
    process.join()

    assert isinstance(process.exception, ValueError)
    assert "a queue cannot be cut" in capfd.readouterr().err
    queue.close()


def test_a_late_answer_meets_a_timeout_without_any_time_passing(faults: Faults) -> None:
    """An hour, in a test that takes no time: timeouts add up to the delay."""
    ours, process = start_answer()
    faults.play(FaultScript().delay(ours, message=1, seconds=3600))
    begin = time.monotonic()
    ours.send(1)

    assert not ours.poll(1800)
    assert not ours.poll(1799)
    assert ours.poll(2)
    assert ("answer", 1) == ours.recv()

    assert time.monotonic() - begin < 30
    ours.close()
    process.join()


def test_who_waits_without_limit_gets_it(faults: Faults) -> None:
    """The delay is over when it was waited for."""
    faults.play(FaultScript().delay("server", message=1, seconds=3600))
    ours, process = start_answer()
    ours.send(1)

    assert ("answer", 1) == ours.recv()

    ours.close()
    process.join()


def test_a_message_that_is_held_back_comes_when_it_is_released(faults: Faults) -> None:
    """For who waits on a descriptor, and for tests that act in between."""
    ours, process = start_answer()
    faults.play(FaultScript().delay(ours, message=1))
    ours.send(1)
    ours.send(2)

    assert [] == procession.connection.wait([ours], 0)
    assert not ours.poll(0)
    faults.release()
    assert [ours] == procession.connection.wait([ours], 30)
    assert [("answer", 1), ("answer", 2)] == [ours.recv(), ours.recv()]
    assert [] == procession.connection.wait([ours], 0)

    ours.close()
    process.join()


def test_release_waits_for_the_message_and_not_for_ever(faults: Faults) -> None:
    """The sender may be slower than the test; a script that delays nothing is a mistake."""
    with pytest.raises(TimeoutError, match="no message was delayed"):
        faults.release(timeout=0.01)


def test_a_delay_in_a_queue_holds_up_its_own_producer_only(faults: Faults) -> None:
    """Messages of one producer keep their order; others overtake them."""
    faults.play(FaultScript().delay("a", message=1, seconds=5))
    queue = procession.Queue()
    for name in "ab":
        process = procession.Process(target=put_own_name, args=(queue, name, 2), name=name)
        process.start()
        process.join()

    assert ["b0", "b1"] == [queue.get(), queue.get()]
    with pytest.raises(Empty):
        queue.get(timeout=4)
    assert ["a0", "a1"] == [queue.get(timeout=1), queue.get()]
    queue.close()


def test_deliveries_are_reordered_between_producers(faults: Faults) -> None:
    """Whoever relies on an order that no queue promises finds out."""
    queue = procession.Queue()
    faults.play(FaultScript().reorder(queue, "b", "a", "b"))
    processes = [
        procession.Process(target=put_own_name, args=(queue, name, 2), name=name) for name in "ab"
    ]
    for process in processes:
        process.start()
        process.join()

    assert ["b0", "a0", "b1", "a1"] == [queue.get() for _ in range(4)]
    queue.close()


def test_the_order_waits_for_who_is_slow_and_not_for_who_has_ended(faults: Faults) -> None:
    """The order is the script's and not the scheduler's; the dead are passed over."""
    queue = procession.Queue()
    faults.play(FaultScript().reorder(queue, "b", "b", "b", "a"))
    first = procession.Process(target=put_own_name, args=(queue, "a", 1), name="a")
    first.start()
    first.join()

    with pytest.raises(Empty):
        queue.get(timeout=0)
    second = procession.Process(target=put_own_name, args=(queue, "b", 2), name="b")
    second.start()
    assert ["b0", "b1", "a0"] == [queue.get(), queue.get(), queue.get()]

    second.join()
    queue.close()


def test_start_tells_those_with_one_name_apart(faults: Faults) -> None:
    """A pool's workers have numbers that nobody knows beforehand."""
    faults.play(FaultScript().kill("server-*", after_messages=0, start=2))
    pairs = [start_answer(f"server-{number}") for number in range(3)]
    for ours, _ in pairs:
        ours.close()
    for _, process in pairs:
        process.join()

    assert [0, -9, 0] == [process.exitcode for _, process in pairs]
