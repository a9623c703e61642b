"""Channels that bring shortcuts: the class of their connections, and when which way is open."""

from __future__ import annotations

import pickle
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("over pairs of sockets", allow_module_level=True)

from procession._channels.stream_channel import StreamChannel
from procession._channels.twin import watch_each_other
from procession._messages import pickling
from procession.connection import Connection

pytestmark = pytest.mark.once


class Steps:
    """Shortcuts that go the long way, and note it; and what the ends were given leave to do."""

    namespace: Any = None
    taken: list[str]

    @staticmethod
    def prepare(namespace: dict[str, Any], /) -> None:
        """Note it."""
        Steps.namespace = namespace

    def send(self: Any, *args: Any) -> None:
        """Send."""
        self.taken.append("send")
        self._send_any(*args)

    def recv(self: Any, **options: Any) -> Any:
        """Receive."""
        self.taken.append("recv")
        return self._recv_any(**options)


class ShortChannel(StreamChannel):
    """A channel with shortcuts."""

    @property
    def shortcuts(self) -> type[Any] | None:
        """See `Channel.shortcuts`."""
        return Steps

    def shorten(self, connection: Any, sends: bool, receives: bool, pickles: bool, /) -> None:
        """See `Channel.shorten`."""
        connection.leave = (sends, receives, pickles)


@pytest.fixture
def channels() -> tuple[ShortChannel, ShortChannel]:
    """Two ends of a channel."""
    one, other = (end.detach() for end in socket.socketpair())
    return ShortChannel((one,), (one,)), ShortChannel((other,), (other,))


@pytest.fixture
def ends(
    channels: tuple[ShortChannel, ShortChannel], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, Any]]:
    """Two connections around them, which nobody watches."""
    monkeypatch.setattr(Steps, "taken", [], raising=False)
    one, other = map(Connection.over, channels)
    yield one, other
    one.close()
    other.close()


def test_shortcuts_come_first(ends: tuple[Any, Any]) -> None:
    """Their methods hide the connection's, which they can still reach."""
    one, other = ends
    one.send("thing")
    assert other.recv() == "thing"
    assert Steps.taken == ["send", "recv"]


def test_class_passes_for_the_usual_one(ends: tuple[Any, Any]) -> None:
    """It is one class for all of them, named like `Connection`, and pickled as that."""
    one, other = ends
    assert type(one) is type(other)
    assert isinstance(one, Connection)
    assert (type(one).__name__, type(one).__module__) == ("Connection", "procession.connection")
    assert one.__reduce__()[0] == Connection.over
    assert type(one).over == type(other).over


def test_prepared_with_the_names_of_pickling(ends: tuple[Any, Any]) -> None:
    """They look up what comes to mean something else later: so the names are given, not values."""
    assert Steps.namespace is vars(pickling)
    for name in ("_encode", "_ndarray", "_loads", "Buffers", "PROTOCOL", "loads"):
        assert name in Steps.namespace


def test_leave(ends: tuple[Any, Any]) -> None:
    """The way is short as long as nothing has to be looked at, and not after that."""
    one, _ = ends
    assert one.leave == (True, True, True)
    one.recv_limit = 10
    assert one.leave == (True, False, True)
    one.recv_limit = None
    assert one.leave == (True, True, True)
    one.limit(10, "a test")
    assert one.leave == (True, False, True)
    one.__setstate__({"_recv_limit": None})
    assert one.leave == (True, True, True)
    one.close()
    assert one.leave == (False, False, True)


def test_no_leave_while_the_other_end_is_watched(ends: tuple[Any, Any]) -> None:
    """Who has both ends open looks whether the other one is used, until it was."""
    one, other = ends
    watch_each_other(one, other)
    assert one.leave == (False, False, True)
    other.close()
    with pytest.raises(EOFError):
        one.recv()
    assert one._twin.other() is None
    one.stop_watching()
    assert one.leave[0] is True


def test_another_serializer(channels: tuple[ShortChannel, ShortChannel]) -> None:
    """What pickles by itself is told, and bytes go the short way all the same."""
    one, other = channels
    encoder: Any = pickle.dumps
    with Connection.over(one, encoder) as connection, Connection.over(other):
        assert vars(connection)["leave"] == (True, True, False)


class Own(Connection):
    """A class of somebody's own."""


def test_derived_classes_have_none(channels: tuple[ShortChannel, ShortChannel]) -> None:
    """They may override what would be hidden."""
    one, other = channels
    with Own.over(one) as connection, Own.over(other):
        assert type(connection) is Own
