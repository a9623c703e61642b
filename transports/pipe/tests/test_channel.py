"""`Pipe` and `PipeChannel`: what they are made of, beyond what every transport promises."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("packet pipes are a Linux thing", allow_module_level=True)

import fcntl

from procession_pipe import Pipe
from procession_pipe._channel import PipeChannel


@pytest.fixture
def ends() -> Iterator[tuple[PipeChannel, PipeChannel]]:
    """A one-way pair."""
    reader, writer = Pipe().pair(duplex=False)
    assert isinstance(reader, PipeChannel)
    assert isinstance(writer, PipeChannel)
    yield reader, writer
    reader.close()
    writer.close()


def test_a_short_message_is_one_packet(ends: tuple[PipeChannel, PipeChannel]) -> None:
    """Each is read alone, in one system call, however many wait."""
    reader, writer = ends
    for body in (b"", b"one", b"x" * 4095):
        writer.send(body)
    for body in (b"", b"one", b"x" * 4095):
        assert body + b"\0" == os.read(reader.reader, 1 << 16)


@pytest.mark.parametrize("length", [4096, 5000, 70_000])
def test_bulk_has_a_pipe_of_its_own(ends: tuple[PipeChannel, PipeChannel], length: int) -> None:
    """What is longer leaves a packet behind it and before it whole."""
    reader, writer = ends
    for body in (b"before", b"x" * length, b"after"):
        writer.send(body)
    assert reader.bulk_reader != reader.reader
    for body in (b"before", b"x" * length, b"after"):
        assert body == bytes(reader.receive()[0])


def test_works_without_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user has no more pipe memory, pipes of the usual size do."""
    usual = fcntl.fcntl

    def refuse(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError(1, "Operation not permitted")
        return usual(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    reader, writer = Pipe().pair(duplex=False)
    writer.send(b"x" * 5000)
    assert b"x" * 5000 == bytes(reader.receive()[0])
    reader.close()
    writer.close()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_unavailable_elsewhere(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """Where there are no packet pipes the reason is given, and nothing fails before."""
    assert Pipe.unavailable() is None
    monkeypatch.setattr(sys, "platform", platform)
    assert "Linux" in str(Pipe.unavailable())
