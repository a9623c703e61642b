"""Connections that look for an answer before they sleep: who does, when, and who does not."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

if sys.platform == "win32" or sys.platform == "darwin":
    pytest.skip("over sockets that keep packets apart", allow_module_level=True)

from procession import connection
from procession._channels.glance import Glance
from procession._channels.packet_sockets import PacketSocketChannel
from procession._messages.lookout import SHORTEST_REST
from procession.connection import Connection
from procession.testing.forked import DEADLINE

pytestmark = pytest.mark.once

#: So many round trips that an end certainly looks for the answer of one of them.
MANY = 4 * (connection._FIRST_TRIPS + SHORTEST_REST)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The descriptors that were asked, each time that one was."""
    asked: list[int] = []
    usual = PacketSocketChannel.asker

    def asker(channel: PacketSocketChannel) -> Callable[[], object]:
        ask = usual(channel)

        def counting() -> object:
            asked.append(channel.fileno())
            return ask()

        return counting

    monkeypatch.setattr(PacketSocketChannel, "asker", asker)
    return asked


@pytest.fixture
def ends(asked: list[int]) -> Iterator[tuple[Connection, Connection]]:
    """Both ends of a connection."""
    with ExitStack() as cleanup:
        one, other = map(Connection.over, PacketSocketChannel.pair())
        cleanup.callback(one.close)
        cleanup.callback(other.close)
        yield one, other


def test_who_is_answered_looks(ends: tuple[Connection, Connection], asked: list[int]) -> None:
    """It has sent something and waits for what comes back; but not from the first time on."""
    one, other = ends
    for trip in range(MANY):
        one.send(trip)
        other.channel.send(*other.channel.receive())
        assert trip == one.recv()
        assert trip >= connection._FIRST_TRIPS or not asked
    assert {one.fileno()} == set(asked)


def test_of_several_conversations_nobody_looks(
    ends: tuple[Connection, Connection], asked: list[int]
) -> None:
    """Those of one process would take the time from each other."""
    one, other = ends
    for trip in range(MANY):
        one.send(trip)
        other.send(other.recv())
        assert trip == one.recv()
    assert [] == asked


def test_who_only_receives_does_not_look(
    ends: tuple[Connection, Connection], asked: list[int]
) -> None:
    """What comes one way costs no look, however much of it there is."""
    one, other = ends
    for number in range(MANY):
        one.send(number)
        assert number == other.recv()
        one.send_bytes(b"bytes")
        assert b"bytes" == other.recv_bytes()
    assert [] == asked


def test_a_look_in_vain_loses_nothing(ends: tuple[Connection, Connection]) -> None:
    """Who has looked sleeps then, and receives what comes later, or hears of the end."""
    one, other = ends
    for trip in range(MANY):
        one.send(trip)
        assert trip == other.recv()
        late = threading.Timer(0.001, other.send_bytes, [b"late"])
        late.start()
        assert b"late" == one.recv_bytes()
        late.join()
    one.send(None)
    other.recv()
    other.close()
    with pytest.raises(EOFError):
        one.recv()


def test_one_thread_looks() -> None:
    """Another one, or a signal handler, goes to sleep at once: what asks is for one at a time."""
    is_asking, go_on = threading.Event(), threading.Event()
    asks: list[int] = []

    def ask() -> bool:
        asks.append(threading.get_ident())
        is_asking.set()
        assert go_on.wait(DEADLINE)
        return True

    glance = Glance(ask)
    glance()  # whoever waits for the first time in a process does not ask
    first = threading.Thread(target=glance)
    first.start()
    assert is_asking.wait(DEADLINE)
    glance()
    assert [first.ident] == asks
    go_on.set()
    first.join()
    glance._lookout._rest = 0
    glance()
    assert [first.ident, threading.get_ident()] == asks


def test_an_exception_in_a_look_is_no_end_of_it() -> None:
    """A signal handler may raise there; the next one looks again."""
    raises = [True, False]

    def ask() -> bool:
        if raises.pop(0):
            raise KeyboardInterrupt
        return True

    glance = Glance(ask)
    glance()
    with pytest.raises(KeyboardInterrupt):
        glance()
    glance()
    assert [] == raises
