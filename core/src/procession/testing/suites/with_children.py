"""A start method under test, and the children that are started by it."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from procession._channels.stream_channel import StreamChannel
from procession._contracts.child_handle import Child
from procession._contracts.start_method import StartMethod
from procession.connection import Connection, wait
from procession.process import Process, process_class
from procession.testing import launching, payloads
from procession.testing.forked import DEADLINE
from procession.testing.suites.suite import Suite

Make: TypeAlias = Callable[..., Process]
Launch: TypeAlias = Callable[..., Child]
Pipe: TypeAlias = Callable[[], tuple[Connection, Connection]]


def handle_of(process: Process) -> Child:
    """The handle that `StartMethod.launch` has returned for *process*."""
    assert process._child is not None
    return process._child


def answer(connection: Connection, child: Child | int) -> Any:
    """Return what *child* sends, which may be given by its sentinel; it must not end instead."""
    sentinel = child if isinstance(child, int) else child.sentinel
    ready = wait([connection, sentinel], DEADLINE)
    assert connection in ready, "the child has ended" if ready else "the child does not answer"
    return connection.recv()


class WithChildren(Suite):
    """Tests on a start method, with or without a transport."""

    @pytest.fixture
    def start_method(self) -> type[StartMethod]:
        """The class of the start method under test. Override this."""
        raise NotImplementedError(
            f"{type(self).__name__} has to override the fixture `start_method`, with the class"
        )

    @pytest.fixture
    def warmed_up(self, start_method: type[StartMethod]) -> None:
        """Start one child, so that what is kept for the next ones is there."""
        reason = start_method.unavailable()
        if reason is not None:
            pytest.skip(f"NOT TESTED: {start_method.name} cannot work here: {reason}")
        process = launching.start_by(start_method.name, payloads.nothing)
        process.join(DEADLINE)
        if process.exitcode is None:
            process.kill()
            process.join(DEADLINE)
        process.close()

    @pytest.fixture
    def make(self, start_method: type[StartMethod]) -> Iterator[Make]:
        """Make a process, unstarted; it is killed and closed after the test."""
        made: list[Process] = []

        def make(target: Callable[..., object], *args: Any, **options: Any) -> Process:
            kind = process_class(start_method.name, "Process")
            made.append(kind(target=target, args=args, **options))
            return made[-1]

        yield make
        for process in made:
            if process._child is not None:
                process._child.signal(signal.SIGKILL)
                process._child.wait(DEADLINE)
                process.close()

    @pytest.fixture
    def start(self, make: Make) -> Make:
        """Make and start a process."""

        def start(*args: Any, **options: Any) -> Process:
            process = make(*args, **options)
            process.start()
            return process

        return start

    @pytest.fixture
    def launch(self, start: Make) -> Launch:
        """Start a process and return the handle of its child."""
        return lambda *args, **options: handle_of(start(*args, **options))

    @pytest.fixture
    def pipe(self, start_method: type[StartMethod]) -> Iterator[Pipe]:
        """Make a pair of connections, of which a child gets the second; they are closed after.

        They need no transport, but a start method that hands descriptors over.
        """
        features = start_method.features
        if not (features.carries_descriptors or features.inherits_memory):
            pytest.skip("declares that no descriptor reaches its children")
        made: list[Connection] = []

        def pipe() -> tuple[Connection, Connection]:
            import socket

            for end in socket.socketpair():
                number = end.detach()
                made.append(Connection.over(StreamChannel((number,), (number,))))
            return made[-2], made[-1]

        yield pipe
        for end in made:
            end.close()

    @pytest.fixture
    def holding(self, pipe: Pipe, launch: Launch) -> tuple[Child, Connection]:
        """A child that says that it is there and waits for a message, and its connection.

        In this order: the child is killed before its connection is closed, which it would see.
        """
        here, there = pipe()
        child = launch(payloads.hold, there)
        assert "ready" == answer(here, child)
        return child, here
