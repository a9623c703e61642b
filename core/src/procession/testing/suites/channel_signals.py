"""What every channel promises when a signal handler runs in the middle of it."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from procession import errors
from procession._contracts.channel import Channel
from procession.connection import Connection
from procession.testing.forked import DEADLINE, until
from procession.testing.suites.channel import LARGE, OverChannels, in_thread
from procession.testing.suites.suite import Fork

Alarm: TypeAlias = Callable[[Callable[[], object]], None]


class Interrupt(Exception):
    """Raised by a signal handler."""


def interrupt() -> None:
    """Raise in the handler."""
    raise Interrupt


def main_thread_sleeps() -> bool:
    """Whether the main thread of this process is blocked in the kernel."""
    with open(f"/proc/self/task/{threading.main_thread().native_id}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"S"


class ChannelSignalPromises(OverChannels):
    """Handlers that return disturb nothing; those that raise never make a wrong message."""

    @pytest.fixture
    def alarm(self) -> Iterator[Alarm]:
        """Have a function called by a signal handler, as soon as this thread is blocked."""
        before = signal.getsignal(signal.SIGUSR1)
        threads = []

        def arm(action: Callable[[], object]) -> None:
            signal.signal(signal.SIGUSR1, lambda *_: action())
            main = threading.main_thread()
            assert main.ident is not None
            ident = main.ident

            def ring() -> None:
                until(main_thread_sleeps)
                signal.pthread_kill(ident, signal.SIGUSR1)

            threads.append(in_thread(ring))

        yield arm
        for thread in threads:
            thread.join(DEADLINE)
        signal.signal(signal.SIGUSR1, before)

    def test_receive_goes_on_after_a_signal(
        self, ends: tuple[Channel, Channel], alarm: Alarm
    ) -> None:
        """A handler that returns does not disturb a blocked `receive`.

        `Channel.receive`: "Wait for one message and return ``(body, buffers)``."
        """
        reader, writer = ends
        alarm(lambda: writer.send(b"from the handler"))

        assert b"from the handler" == bytes(reader.receive()[0])

    def test_interrupted_receive_took_nothing(
        self, ends: tuple[Channel, Channel], alarm: Alarm
    ) -> None:
        """A handler that raises while nothing has come leaves the end as it was.

        `Channel.receive`: "After an exception raised half-way by a signal handler this end is
        closed."
        """
        reader, writer = ends
        alarm(interrupt)
        with pytest.raises(Interrupt):
            reader.receive()
        assert not reader.closed
        writer.send(b"later")

        assert b"later" == bytes(reader.receive()[0])

    def test_interrupted_send_closes_the_end(
        self, ends: tuple[Channel, Channel], alarm: Alarm
    ) -> None:
        """A handler that raises within a long message makes it a truncated one.

        `Channel.send`: "if it does while only a part may have been written, this end is closed,
        so that the peer sees a truncated message rather than a wrong one."
        """
        reader, writer = ends
        alarm(interrupt)
        with pytest.raises(Interrupt):
            writer.send(bytes(LARGE))
        assert writer.closed
        with pytest.raises(OSError, match="got end of file during message"):
            reader.receive()

    def test_interrupted_receive_in_the_middle_closes_the_end(
        self, ends: tuple[Channel, Channel], alarm: Alarm, fork: Fork
    ) -> None:
        """A handler that raises within a long message leaves no rest to be taken for another.

        `Channel.receive`: "After an exception raised half-way by a signal handler this end is
        closed."
        """
        reader, writer = ends
        connection = Connection.over(reader)
        # The first part comes, and nothing after it: the child is stopped, not ended.
        process = fork(lambda: writer.send(bytes(LARGE)))
        process.await_sleep()
        os.kill(process.pid, signal.SIGSTOP)
        alarm(interrupt)
        with pytest.raises(Interrupt):
            connection.recv_bytes()
        assert connection.closed
        with pytest.raises(errors.ConnectionClosedError, match="handle is closed"):
            connection.recv_bytes()

    def test_torn_end_says_why(self, ends: tuple[Channel, Channel], alarm: Alarm) -> None:
        """Whoever uses an end after a handler has torn a message is told what has closed it.

        `Channel.torn`: "Whether a message interrupted half-way has made this end unusable."
        """
        reader, writer = ends
        connection = Connection.over(writer)
        alarm(interrupt)
        with pytest.raises(Interrupt):
            connection.send_bytes(bytes(LARGE))

        assert writer.torn
        assert not reader.torn
        with pytest.raises(
            errors.ConnectionClosedError, match="signal handler raised in the middle"
        ):
            connection.send_bytes(b"more")

    def test_handler_cannot_send_within_a_long_message(
        self, ends: tuple[Channel, Channel], alarm: Alarm
    ) -> None:
        """A handler that uses the very end it has interrupted is refused, and not deadlocked.

        `Channel`: "any number may use one end at once; messages never interleave."
        """
        reader, writer = ends
        refusals: list[BaseException] = []
        received: list[Any] = []
        receivers: list[threading.Thread] = []

        def handler() -> None:
            try:
                writer.send(b"in between")
            except errors.BusyConnectionError as error:
                refusals.append(error)
            receivers.append(in_thread(lambda: received.append(reader.receive())))

        alarm(handler)
        writer.send(bytes(LARGE))
        receivers[0].join(DEADLINE)

        assert LARGE == len(received[0][0])
        assert "signal handler" in str(refusals[0])
