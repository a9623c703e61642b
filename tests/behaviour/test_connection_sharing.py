"""Connections in company: many threads on one end, connections that travel, `wait`."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

DEADLINE = 30.0
Make = Callable[..., Any]
handing_over = pytest.mark.usefixtures("warm_handing_over")


@pytest.fixture
def wait(subject: str) -> Callable[..., list[Any]]:
    """``connection.wait`` of the package under test."""
    return importlib.import_module(f"{subject}.connection").wait  # type: ignore[no-any-return]


@pytest.mark.one_pair_per("transport")
def test_wait_for_sockets_and_descriptors(wait: Make, pipe: Make) -> None:
    """wait takes sockets and plain descriptors, too."""
    receiver, sender = pipe(False)
    near, far = socket.socketpair()
    reader, writer = os.pipe()
    with near, far:
        assert [] == wait([near, reader, receiver], 0)
        far.send(b"x")
        assert [near] == wait([near, reader, receiver])
        os.write(writer, b"x")
        sender.send("x")
        assert {near, reader, receiver} == set(wait([near, reader, receiver], None))
    os.close(reader)
    os.close(writer)


@pytest.mark.one_pair_per("transport")
def test_wait_sees_ends(wait: Make, pipe: Make) -> None:
    """A closed other end counts as ready; our own closed end is an error."""
    receiver, sender = pipe(False)
    sender.close()

    assert [receiver] == wait([receiver], DEADLINE)
    receiver.close()
    with pytest.raises(OSError, match="handle is closed"):
        wait([receiver], 0)


@pytest.mark.one_pair_per("transport")
def test_wait_names_what_is_nothing_to_wait_for(wait: Make) -> None:
    """Neither a descriptor nor an object with one."""
    with pytest.raises(ValueError, match="'a'"):
        wait(["a"])


@pytest.mark.one_pair_per("transport")
def test_wait_timeouts(wait: Make, pipe: Make) -> None:
    """Zero and negative timeouts do not wait; nothing to wait for is no error."""
    receiver, _ = pipe(False)

    assert [] == wait([receiver], 0)
    assert [] == wait([receiver], -5)
    assert [] == wait([receiver], 0.01)
    assert [] == wait([], 0)
