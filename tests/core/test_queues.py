"""`procession.queues` on a mailbox: what needs no transport and no start method."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from multiprocessing import connection as stdlib_connection
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("packet pipes are a Linux thing", allow_module_level=True)

from procession._ground.handoff import LaunchHandoff, LaunchTakeover, ParcelPickler, ParcelUnpickler
from procession._mailboxes.packet_lane import PacketLane
from procession._mailboxes.packet_mailbox import PacketMailbox
from procession.errors import QueueClosedError, ShutDown
from procession.queues import JoinableQueue, Queue, SimpleQueue
from procession.testing.forked import DEADLINE, crew, sleeps, until


def mailbox(*, maxsize: int = 0, joinable: bool = False) -> PacketMailbox:
    """A mailbox on a packet pipe."""
    lane = PacketLane(*os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC))
    return PacketMailbox(lane, maxsize=maxsize, joinable=joinable)


@pytest.fixture
def queue() -> Iterator[Queue]:
    """A queue without a limit."""
    queue = Queue(mailbox=mailbox())
    yield queue
    queue.close()


def test_a_put_survives_its_process(queue: Queue) -> None:
    """What put has accepted is got although its process was killed in the next instant."""
    ready, readied = os.pipe()

    def work() -> None:
        for number in range(1000):
            queue.put((number, "x" * number))
        os.write(readied, b"x")
        threading.Event().wait()

    with crew() as fork:
        worker = fork(work)
        os.read(ready, 1)
        worker.kill()

        assert 1000 == queue.qsize()
        assert list(range(1000)) == [queue.get(timeout=0)[0] for _ in range(1000)]
    os.close(ready)
    os.close(readied)


def test_a_waiting_get_does_not_keep_others_out(queue: Queue) -> None:
    """A consumer killed while it waits takes nothing with it and holds nothing."""
    with crew() as fork:
        waiters = [fork(queue.get) for _ in range(3)]
        until(lambda: all(sleeps(waiter.pid) for waiter in waiters))
        for waiter in waiters:
            waiter.kill()
        queue.put("message")

        assert "message" == queue.get(timeout=DEADLINE)


def test_a_queue_crosses_in_a_parcel() -> None:
    """A queue packed for a child is the same queue there, of the same class and limit."""
    for original in (
        Queue(3, mailbox=mailbox(maxsize=3)),
        JoinableQueue(mailbox=mailbox(joinable=True)),
        SimpleQueue(mailbox=mailbox()),
    ):
        file, handoff = io.BytesIO(), LaunchHandoff()
        ParcelPickler(file, handoff).dump([original, original])
        takeover = LaunchTakeover([os.dup(fd) for fd in handoff.descriptors])
        copy, same = ParcelUnpickler(io.BytesIO(file.getvalue()), takeover).load()
        original.put("message")

        assert copy is same
        assert type(original) is type(copy)
        assert "message" == copy.get()
        copy.close()
        original.close()


def test_a_closed_queue_is_closed_here_only(queue: Queue) -> None:
    """close in one process leaves the others' copies alone."""
    with crew() as fork:
        assert 0 == fork(queue.close).join()
    queue.put("message")
    assert "message" == queue.get()


def test_close_wakes_a_thread_that_waits(queue: Queue) -> None:
    """A get that is waiting when its own process closes the queue says that it is closed."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            queue.get()
        except QueueClosedError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    task = f"/proc/self/task/{thread.native_id}/stat"

    def waits() -> bool:
        with open(task, "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"S"

    until(waits)
    queue.close()
    thread.join(DEADLINE)

    assert not thread.is_alive()
    assert "is closed" in str(failures[0])


def test_closed_queues_refuse_questions(queue: Queue) -> None:
    """What qsize, empty, full and fileno of a closed queue raise is an OSError and a ValueError.

    In multiprocessing it is the one or the other, by version and method.
    """
    queue.close()
    for ask in (queue.qsize, queue.empty, queue.full, queue.fileno):
        with pytest.raises(OSError, match="is closed") as caught:
            ask()
        assert isinstance(caught.value, ValueError)


def test_reader_can_be_waited_on(queue: Queue) -> None:
    """Clients wait on `_reader` with multiprocessing's own wait, then receive from it."""
    reader: Any = queue._reader  # not a multiprocessing connection, and as good as one
    assert not reader.poll()
    assert [] == stdlib_connection.wait([reader], 0)
    for number in range(300):
        queue.put(number)
    for number in range(300):
        assert [reader] == stdlib_connection.wait([reader], DEADLINE)
        assert reader.poll()
        assert number == reader.recv()
    assert not reader.poll(0)


def test_asyncio_can_wait(queue: Queue) -> None:
    """An event loop is told about a message by the queue's descriptor."""

    async def wait() -> object:
        loop = asyncio.get_running_loop()
        result: Future[object] = Future()
        loop.add_reader(queue.fileno(), lambda: result.set_result(queue.get_nowait()))
        queue.put("message")
        try:
            return await asyncio.wait_for(asyncio.wrap_future(result), DEADLINE)
        finally:
            loop.remove_reader(queue.fileno())

    assert "message" == asyncio.run(wait())


def test_descriptors_go_with_the_queue() -> None:
    """A queue that is collected closes what it had open."""
    before = set(os.listdir("/proc/self/fd"))
    queue = Queue(2, mailbox=mailbox(maxsize=2))
    queue.fileno()
    queue.put(1)
    assert set(os.listdir("/proc/self/fd")) > before
    del queue

    assert before == set(os.listdir("/proc/self/fd"))


def test_shutdown_through_the_queue(queue: Queue) -> None:
    """shutdown is there, and idempotent."""
    queue.put(1)
    queue.shutdown()
    queue.shutdown(immediate=True)
    with pytest.raises(ShutDown):
        queue.get_nowait()


def test_annotations_and_reprs(queue: Queue) -> None:
    """Queue[int] is an alias; the repr says what it is and whether it is closed."""
    for kind in (Queue, SimpleQueue):
        assert f"procession.queues.{kind.__name__}[int]" == repr(kind.__class_getitem__(int))
    limited = Queue(3, mailbox=mailbox(maxsize=3))
    assert "maxsize=3" in repr(limited)
    limited.close()
    assert "<Queue maxsize=3 closed>" == repr(limited)
    assert repr(queue).startswith("<Queue at 0x")
