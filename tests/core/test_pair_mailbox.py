"""`PairMailbox`: the mailbox of a transport that offers only pairs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

if sys.platform == "win32":
    pytest.skip("file locks need a POSIX system", allow_module_level=True)

from procession._channels.stream_channel import StreamChannel
from procession._mailboxes.pair_mailbox import PairMailbox
from procession.errors import BrokenConnectionError, ShutDown
from procession.testing.forked import crew, sleeps, until

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
