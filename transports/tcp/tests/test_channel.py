"""`Tcp` and its channel: what they are made of, beyond what every transport promises."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("needs SOCK_SEQPACKET", allow_module_level=True)

from procession.errors import BrokenConnectionError
from procession_tcp import Tcp
from procession_tcp._channel import TcpChannel


@pytest.fixture
def ends() -> Iterator[tuple[TcpChannel, TcpChannel]]:
    """A duplex pair."""
    first, second = Tcp().pair(duplex=True)
    assert isinstance(first, TcpChannel)
    assert isinstance(second, TcpChannel)
    yield first, second
    first.close()
    second.close()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_unavailable_elsewhere(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """Where sockets do not keep packets apart the reason is given."""
    assert Tcp.unavailable() is None
    monkeypatch.setattr(sys, "platform", platform)
    assert "SOCK_SEQPACKET" in str(Tcp.unavailable())


def test_a_cut_is_announced(ends: tuple[TcpChannel, TcpChannel]) -> None:
    """After what was sent before, and told from everything that somebody might send."""
    first, second = ends
    first.send(b"", [b"x" * 100, b"y"])
    first.announce_cut("the host has vanished")
    assert b"x" * 100 == bytes(second.receive()[1][0])
    with pytest.raises(BrokenConnectionError, match="the host has vanished"):
        second.receive()
