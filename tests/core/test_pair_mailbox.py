"""`PairMailbox`: the mailbox of a transport that offers only pairs."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from queue import Empty, Full

import pytest

if sys.platform == "win32":
    pytest.skip("file locks need a POSIX system", allow_module_level=True)

from procession._handoff import LaunchHandoff, LaunchTakeover
from procession._pair_mailbox import PairMailbox
from procession._stream_channel import StreamChannel
from procession.errors import BrokenConnectionError, ShutDown
from procession.testing.forked import DEADLINE, crew, sleeps, until

Make = Callable[..., PairMailbox]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make mailboxes on pairs of plain pipes; they are closed after the test."""
    made: list[PairMailbox] = []

    def make(*, maxsize: int = 0, joinable: bool = False) -> PairMailbox:
        reader, writer = os.pipe()
        ends = StreamChannel((reader,), ()), StreamChannel((), (writer,))
        made.append(PairMailbox(*ends, maxsize=maxsize, joinable=joinable))
        return made[-1]

    yield make
    for mailbox in made:
        mailbox.close()


def test_messages_come_out_in_order(make: Make) -> None:
    """Bodies of many sizes, from another process."""
    mailbox = make()
    sizes = [0, 1, 100, 70_000, 300_000, 5]

    def work() -> None:
        for size in sizes:
            mailbox.put(b"b" * size)

    with crew() as fork:
        worker = fork(work)
        for size in sizes:
            assert b"b" * size == bytes(mailbox.get(timeout=DEADLINE)[0])
        assert 0 == worker.join()
    assert 0 == mailbox.size()


def test_many_producers_and_consumers(make: Make) -> None:
    """Each message is taken once, and a process killed while it waits harms nobody."""
    mailbox = make(joinable=True)

    def produce() -> None:
        for number in range(300):
            mailbox.put(b"%d" % number)

    def consume() -> None:
        while mailbox.get()[0] != b"end":
            mailbox.task_done()
        mailbox.task_done()

    with crew() as fork:
        idle = fork(consume)
        until(lambda: sleeps(idle.pid))
        idle.kill()
        consumers = [fork(consume) for _ in range(3)]
        assert [0] * 3 == [producer.join() for producer in [fork(produce) for _ in range(3)]]
        assert mailbox.join(DEADLINE)
        for _ in consumers:
            mailbox.put(b"end")
        assert [0] * 3 == [consumer.join() for consumer in consumers]
    assert mailbox.join(0)
    assert 0 == mailbox.size()


def test_limits_and_timeouts(make: Make) -> None:
    """Full and Empty come at once or after the timeout, and a get makes room."""
    mailbox = make(maxsize=2)
    with pytest.raises(Empty):
        mailbox.get(timeout=0)
    mailbox.put(b"1", timeout=0)
    mailbox.put(b"2", timeout=0)
    begun = time.monotonic()
    with pytest.raises(Full):
        mailbox.put(b"3", timeout=0.05)
    assert time.monotonic() - begun >= 0.05
    with crew() as fork:
        waiter = fork(lambda: mailbox.put(b"3"))
        until(lambda: sleeps(waiter.pid))
        assert b"1" == bytes(mailbox.get()[0])
        assert 0 == waiter.join()
    assert 2 == mailbox.size()


def test_shutdown(make: Make) -> None:
    """Who waits is woken; what is there is let out, or dropped."""
    waiting, draining, dropped = make(), make(), make(joinable=True)

    def refused() -> None:
        with pytest.raises(ShutDown):
            waiting.get()

    with crew() as fork:
        waiter = fork(refused)
        until(lambda: sleeps(waiter.pid))
        waiting.shutdown()
        assert 0 == waiter.join()
    draining.put(b"message")
    draining.shutdown()
    with pytest.raises(ShutDown):
        draining.put(b"late")
    assert b"message" == bytes(draining.get()[0])
    with pytest.raises(ShutDown):
        draining.get()
    dropped.put(b"message")
    dropped.shutdown(immediate=True)
    with pytest.raises(ShutDown):
        dropped.get()
    assert 0 == dropped.size()
    assert dropped.join(0)


def test_a_putter_killed_in_the_middle_is_reported(make: Make) -> None:
    """Half a message in the pair is an error for everybody, neither silence nor a wrong message."""
    mailbox = make()
    with crew() as fork:
        putter = fork(lambda: mailbox.put(bytes(1 << 20)))
        until(lambda: sleeps(putter.pid) and mailbox.size() == 1)
        putter.kill()

        for use in (mailbox.get, lambda: mailbox.put(b""), lambda: mailbox.get(timeout=0)):
            with pytest.raises(BrokenConnectionError, match="killed"):
                use()


@pytest.mark.parametrize("immediate", [False, True])
def test_a_put_that_waits_for_room_ends_with_a_shutdown(make: Make, immediate: bool) -> None:
    """Nobody is woken in the channel, so nobody waits there; what has not begun is not put."""
    mailbox = make()
    messages = _fill(mailbox)

    def refused() -> None:
        with pytest.raises(ShutDown):
            mailbox.put(b"late")

    with crew() as fork:
        waiter = fork(refused)
        until(lambda: sleeps(waiter.pid))
        mailbox.shutdown(immediate=immediate)
        assert 0 == waiter.join()
    assert (0 if immediate else messages) == mailbox.size()
    for _ in range(mailbox.size()):
        mailbox.get(timeout=0)
    with pytest.raises(ShutDown):
        mailbox.get()


@pytest.mark.parametrize("immediate", [False, True])
def test_a_shutdown_in_the_middle_of_a_message(make: Make, immediate: bool) -> None:
    """What has begun goes through, unless everything is dropped."""
    mailbox = make()
    long = os.urandom(1 << 20)

    def put() -> None:
        if immediate:
            with pytest.raises(ShutDown):
                mailbox.put(long)
        else:
            mailbox.put(long)

    with crew() as fork:
        putter = fork(put)
        until(lambda: sleeps(putter.pid) and mailbox.size() == 1)
        mailbox.shutdown(immediate=immediate)
        if not immediate:
            assert long == bytes(mailbox.get()[0])
        assert 0 == putter.join()
    with pytest.raises(ShutDown):
        mailbox.get()


def test_a_getter_killed_in_the_middle_is_reported(make: Make) -> None:
    """Also to a put that waits for room in the middle of its message, and to a join."""
    mailbox = make(joinable=True)

    def put() -> None:
        with pytest.raises(BrokenConnectionError, match="killed"):
            mailbox.put(bytes(1 << 20))

    with crew() as fork:
        putter = fork(put)
        until(lambda: sleeps(putter.pid) and mailbox.size() == 1)
        os.kill(putter.pid, signal.SIGSTOP)
        # It takes what is there and waits for the rest.
        getter = fork(mailbox.get)
        until(lambda: sleeps(getter.pid) and not mailbox._reader.wait(0))
        getter.kill()
        os.kill(putter.pid, signal.SIGCONT)
        with pytest.raises(BrokenConnectionError, match="killed"):
            mailbox.get()
        assert 0 == putter.join()
    with pytest.raises(BrokenConnectionError, match="killed"):
        mailbox.join()


def test_a_getter_in_the_middle_of_a_message_of_the_dead(make: Make) -> None:
    """It is told, as are those who wait for their turn behind it."""
    mailbox = make()

    def get() -> None:
        with pytest.raises(BrokenConnectionError, match="killed"):
            mailbox.get()

    with crew() as fork:
        putter = fork(lambda: mailbox.put(bytes(1 << 20)))
        until(lambda: sleeps(putter.pid) and mailbox.size() == 1)
        os.kill(putter.pid, signal.SIGSTOP)
        getters = [fork(get) for _ in range(3)]
        until(lambda: not mailbox._reader.wait(0))
        putter.kill()
        assert [0] * 3 == [getter.join() for getter in getters]


def _fill(mailbox: PairMailbox) -> int:
    """Put messages until the pair is full; return how many there are."""
    while mailbox._writer.wait_for_room(1, 0):
        mailbox.put(bytes(1000))
    return mailbox.size()


def test_export_and_attach(make: Make) -> None:
    """A copy built from the recipe is the same mailbox."""
    original = make(maxsize=3, joinable=True)
    handoff = LaunchHandoff()
    recipe = original.export(handoff)
    copy = PairMailbox.attach(recipe, LaunchTakeover([os.dup(fd) for fd in handoff.descriptors]))
    original.put(b"message")

    assert (3, 1) == (copy.maxsize, copy.size())
    assert b"message" == bytes(copy.get()[0])
    copy.task_done()
    assert original.join(0)
    copy.close()
