"""What every channel promises: messages, their ends, and who shares an end."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

import errno
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeAlias

import pytest

from procession import errors
from procession._contracts.channel import Channel
from procession._contracts.transport import Transport
from procession.connection import Connection
from procession.testing.forked import DEADLINE
from procession.testing.suites.suite import Declined, Fork, Suite, open_descriptors, readable

KIB, MIB = 1 << 10, 1 << 20
#: More than any transport holds, so that its sender has to wait.
LARGE = 8 * MIB

Pair: TypeAlias = Callable[..., tuple[Channel, Channel]]

#: The lengths of a body and of the buffers beside it: next to usual limits, and many of them.
LENGTHS = [
    (0,), (1,), (4095,), (4096,), (4097,), (65535,), (65536,), (65537,), (MIB + 1,),
    (0, 0), (10, 100_000), (4083, 1), (5000, 0, 5000), (100, 300_000, 0, 2 * MIB + 7),
    (9, *(10,) * 505), (9, *(10,) * 600), (70_000, *(3,) * 5000), (9, *(0,) * 700),
]  # fmt: skip


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Run *work* beside the test."""
    thread = threading.Thread(target=work)
    thread.start()
    return thread


class OverChannels(Suite):
    """Tests of what a transport's pairs carry."""

    @pytest.fixture
    def transport(self) -> type[Transport]:
        """The class of the transport under test. Override this."""
        raise NotImplementedError(
            f"{type(self).__name__} has to override the fixture `transport`, with the class"
        )

    @pytest.fixture
    def pair(self, transport: type[Transport]) -> Iterator[Pair]:
        """Make two connected ends; they are closed after the test."""
        reason = transport.unavailable()
        if reason is not None:
            pytest.skip(f"NOT TESTED: {transport.name} cannot work here: {reason}")
        made: list[Channel] = []

        def pair(*, duplex: bool) -> tuple[Channel, Channel]:
            ends = transport().pair(duplex=duplex)
            made.extend(ends)
            return ends

        yield pair
        for end in made:
            end.close()

    @pytest.fixture
    def both_ways(self, transport: type[Transport], pair: Pair) -> tuple[Channel, Channel]:
        """Two ends that both send and receive."""
        if not transport.features.duplex:
            pytest.skip("declares no duplex, which is tested to be refused")
        return pair(duplex=True)

    @pytest.fixture
    def ends(self, pair: Pair) -> tuple[Channel, Channel]:
        """A one-way pair: the receiving and the sending end."""
        return pair(duplex=False)


class ChannelPromises(OverChannels):
    """Whole messages, in order, each received exactly once."""

    # -- messages --------------------------------------------------------------------------

    @pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"{lengths[:4]}")
    def test_body_and_buffers_of_every_length(
        self, ends: tuple[Channel, Channel], lengths: tuple[int, ...]
    ) -> None:
        """Bodies and buffers keep their borders and bytes, next to the limits and with many.

        `Channel`: "A message is a *body* (a pickle, or the bytes given to `send_bytes`) and its
        out-of-band *buffers* (pickle protocol 5), any of which may be empty."
        """
        if self.bodies_only and lengths[1:]:
            pytest.skip("carries one body at a time, and no buffers")
        reader, writer = ends
        pattern = bytes(range(251)) * 10_000
        parts = [(pattern * (length // len(pattern) + 1))[:length] for length in lengths]
        sender = in_thread(lambda: (writer.send(parts[0], parts[1:]), writer.send(b"next")))
        body, buffers = reader.receive()
        following, none = reader.receive()
        sender.join(DEADLINE)

        assert parts == [bytes(body), *map(bytes, buffers)]
        assert (b"next", 0) == (bytes(following), len(none))
        assert not any(memoryview(each).readonly for each in buffers)

    def test_random_lengths_in_a_row(self, ends: tuple[Channel, Channel]) -> None:
        """Short and long messages in any order never touch each other.

        `Channel`: "One end of a pair: whole messages, in order, each received exactly once."
        """
        chance = random.Random(5)
        lengths = [chance.choice([3, 500, 4095, 4096, 8000, 70_000, 300_000]) for _ in range(300)]
        reader, writer = ends

        def send() -> None:
            for number, length in enumerate(lengths):
                writer.send(bytes([number & 255]) * length)

        sender = in_thread(send)
        for number, length in enumerate(lengths):
            body, _ = reader.receive()
            assert bytes([number & 255]) * length == bytes(body)
        sender.join(DEADLINE)

    def test_memory_may_change_after_send(self, ends: tuple[Channel, Channel]) -> None:
        """What was sent is what the memory was when `send` was called.

        `Channel.send`: "They may be changed again as soon as this returns."
        """
        reader, writer = ends
        body, buffer = bytearray(b"before"), bytearray(b"beside")
        buffers = [] if self.bodies_only else [memoryview(buffer)]
        writer.send(body, buffers)
        body[:] = buffer[:] = b"after!"
        received, others = reader.receive()

        assert b"before" == bytes(received)
        assert [b"beside"] * len(buffers) == [bytes(other) for other in others]

    def test_sender(self, ends: tuple[Channel, Channel]) -> None:
        """What `sender` returns sends its message each time, and not before.

        `Channel.sender`: "Return what sends the message *body*, without buffers, each time
        that it is called."
        """
        reader, writer = ends
        for length in (0, 1, 3500, 100_000):
            body = bytes(range(250)) * (length // 250) + b"x" * (length % 250)
            send = writer.sender(body)
            assert not reader.wait(0)
            writer.send(b"before")
            both = in_thread(lambda send=send: (send(), send()))  # type: ignore[misc]
            assert [b"before", body, body] == [bytes(reader.receive()[0]) for _ in range(3)]
            both.join()

    @pytest.mark.parametrize("length", [0, 5, 4095, 4096, 100_000])
    def test_receive_into(self, ends: tuple[Channel, Channel], length: int) -> None:
        """A message that fits is received where the caller wants it, and nothing beyond.

        `Channel.receive`: "A message without buffers whose body fits is received into it, and
        the body returned is the part of *into* that was filled."
        """
        reader, writer = ends
        memory = bytearray(b"." * (length + 3))
        sender = in_thread(lambda: writer.send(b"x" * length))
        body, buffers = reader.receive(memoryview(memory))
        sender.join(DEADLINE)

        assert (length, 0) == (len(body), len(buffers))
        assert b"x" * length + b"..." == memory
        assert isinstance(body, memoryview)
        assert memory is body.obj

    @pytest.mark.parametrize("length", [5, 100_000])
    def test_what_does_not_fit_is_received_whole(
        self, ends: tuple[Channel, Channel], length: int
    ) -> None:
        """A longer message, or one with buffers, comes in memory of its own.

        `Channel.receive`: "A message without buffers whose body fits is received into it, and
        the body returned is the part of *into* that was filled."
        """
        reader, writer = ends
        memory = bytearray(length - 1)
        buffers = [] if self.bodies_only else [b"z" * length]
        sender = in_thread(lambda: (writer.send(b"x" * length), writer.send(b"y", buffers)))
        body, _ = reader.receive(memoryview(memory))
        other, beside = reader.receive(memoryview(memory))
        sender.join(DEADLINE)

        assert (b"x" * length, b"y") == (bytes(body), bytes(other))
        assert buffers == [bytes(buffer) for buffer in beside]

    @pytest.mark.parametrize("length", [5, 4096, 100_000])
    @pytest.mark.parametrize("duplex", [True, False])
    def test_limit(
        self,
        transport: type[Transport],
        pair: Pair,
        length: int,
        duplex: bool,
    ) -> None:
        """A body of exactly *limit* bytes is taken, a longer one ends receiving, not sending.

        `Channel.receive`: "a longer one raises `procession.errors.MessageTooLongError` and this
        end can not be read any more (a write-only use goes on)."
        """
        if duplex and not transport.features.duplex:
            pytest.skip("declares no duplex, which is tested to be refused")
        reader, writer = pair(duplex=duplex)

        def send() -> None:
            writer.send(b"x" * length)
            with suppress(BrokenPipeError, ConnectionResetError):  # it may not be read to its end
                writer.send(b"x" * length)

        sender = in_thread(send)
        assert length == len(reader.receive(None, length)[0])
        with pytest.raises(errors.MessageTooLongError, match="bytes"):
            reader.receive(None, length - 1)

        assert duplex is not reader.closed
        if duplex:
            assert (False, True) == (reader.readable, reader.writable)
            reader.send(b"goes on")
            assert b"goes on" == bytes(writer.receive()[0])
        reader.close()
        sender.join(DEADLINE)

    def test_nothing_is_read_ahead(self, ends: tuple[Channel, Channel], fork: Fork) -> None:
        """What one process has not received is there for another one that has the end.

        `Channel`: "Nothing is read ahead: what has not been received stays for whoever receives
        next."
        """
        reader, writer = ends
        for each in (b"mine", b"the child's", b"", b"mine again"):
            writer.send(each)
        assert b"mine" == bytes(reader.receive()[0])

        def child() -> None:
            assert reader.wait(0)
            assert b"the child's" == bytes(reader.receive()[0])

        assert 0 == fork(child).join()
        assert b"" == bytes(reader.receive()[0])
        assert b"mine again" == bytes(reader.receive()[0])
        assert not reader.wait(0)

    def test_directions(self, pair: Pair, transport: type[Transport]) -> None:
        """Each end says what it can do, and does no more.

        `Transport.pair`: "With *duplex* each end sends and receives; without, the first end only
        receives and the second only sends."
        """
        reader, writer = pair(duplex=False)
        assert (True, False) == (reader.readable, reader.writable)
        assert (False, True) == (writer.readable, writer.writable)
        with pytest.raises(OSError):  # noqa: PT011 - each in words of its own
            reader.send(b"the wrong way")
        if not transport.features.duplex:
            return
        first, second = pair(duplex=True)
        assert [True] * 4 == [
            each for end in (first, second) for each in (end.readable, end.writable)
        ]
        first.send(b"there")
        second.send(b"and back")
        assert b"there" == bytes(second.receive()[0])
        assert b"and back" == bytes(first.receive()[0])

    def test_duplex_is_given_or_refused(
        self, transport: type[Transport], pair: Pair, declined: Declined
    ) -> None:
        """Two directions, where they are declared; otherwise an error, and no pair that has them.

        `TransportFeatures.duplex`: "`pair(duplex=True)` works: both ends can send and receive."
        """
        if transport.features.duplex:
            first, second = pair(duplex=True)
            for here, there in ((first, second), (second, first)):
                here.send(b"a message")
                assert b"a message" == bytes(there.receive()[0])
            return
        declined("duplex")
        with pytest.raises(Exception, match="duplex"):
            pair(duplex=True)

    # -- waiting ---------------------------------------------------------------------------

    def test_wait_takes_nothing(self, ends: tuple[Channel, Channel]) -> None:
        """Asking gives the same answer until something is received.

        `Channel.wait`: "Takes nothing: asking again gives the same answer."
        """
        reader, writer = ends
        assert not reader.wait(-1)
        writer.send(b"")
        for timeout in (0, -1, 1e9, None):
            assert reader.wait(timeout)
        reader.receive()
        assert not reader.wait(0.001)
        writer.close()
        assert reader.wait(None)

    def test_descriptor_is_readable_while_there_is_something(
        self, ends: tuple[Channel, Channel]
    ) -> None:
        """For messages and for the end, asked for before or after they came.

        `Channel.fileno`: "Return a descriptor that is readable when a message, or the end, is
        there."
        """
        reader, writer = ends
        writer.send(b"before it was asked for")
        fd = reader.fileno()
        assert fd == reader.fileno()
        for _ in range(20):
            writer.send(b"one")
            assert readable(fd)
            reader.receive()
            assert readable(fd)
        reader.receive()
        assert not readable(fd)
        writer.close()
        assert readable(fd)
        with pytest.raises(EOFError):
            reader.receive()
        assert readable(fd)

    def test_wait_for_room(self, pair: Pair) -> None:
        """A sender can learn, without sending, whether it would have to wait, and wait for a time.

        `Channel.wait_for_room`: "Return whether sending *length* bytes can begin: there is room,
        or nobody receives."
        """
        if self.cannot_tell_room(pair):
            pytest.skip("a channel that cannot tell returns True at once, and this one does")
        reader, writer = pair(duplex=False)
        body = bytes(1000)
        sent = 0
        while writer.wait_for_room(len(body), 0):
            writer.send(body)
            sent += 1
        assert sent
        assert not writer.wait_for_room(len(body), 0.01)

        with ThreadPoolExecutor(1) as threads:
            room = threads.submit(writer.wait_for_room, len(body), DEADLINE)
            for _ in range(sent):
                reader.receive()
            assert room.result()
        assert not reader.wait(0)

        while writer.wait_for_room(len(body), 0):
            writer.send(body)
        reader.close()
        assert writer.wait_for_room(len(body), DEADLINE)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            writer.send(body)
        writer.close()
        with pytest.raises(OSError, match="closed") as caught:
            writer.wait_for_room(len(body), 0)
        assert errno.EBADF == caught.value.errno

    def test_asker(self, pair: Pair) -> None:
        """Who expects an answer can ask for it without sleeping.

        `Channel.asker`: "Return what says at once, by a true value, whether a message or the end
        is there."
        """
        reader, writer = pair(duplex=False)
        ask = reader.asker()
        if ask is None:
            pytest.skip("this channel gains nothing by being asked again and again")
        assert not ask()
        for body in (b"", bytes(LARGE)):
            sender = in_thread(partial(writer.send, body))
            assert reader.wait(DEADLINE)
            assert ask()
            assert ask()
            assert len(body) == len(reader.receive()[0])
            sender.join()
            assert not ask()
        writer.close()
        assert ask()

    @staticmethod
    def cannot_tell_room(pair: Pair) -> bool:
        """Whether a channel has the contract's own `wait_for_room`, which always says True."""
        return type(pair(duplex=False)[1]).wait_for_room is Channel.wait_for_room

    # -- ends ------------------------------------------------------------------------------

    def test_close_is_idempotent(self, pair: Pair) -> None:
        """A closed end holds nothing open; using it is an error.

        `Channel.close`: "Give the descriptors back. Idempotent; never raises for a broken peer."
        """
        before = open_descriptors()
        first, second = pair(duplex=False)
        first.wait(0)
        first.fileno()
        for end in (first, second):
            end.close()
            end.close()
            assert end.closed
        assert before == open_descriptors()
        for use in (first.receive, first.wait, lambda: second.send(b"")):
            with pytest.raises(OSError):  # noqa: PT011 - each in words of its own
                use()

    def test_what_is_collected_is_closed(self, transport: type[Transport]) -> None:
        """An end that nobody refers to holds nothing open, and its peer sees the end.

        `Channel`: "a channel owns its descriptors, of which none is inheritable, and closes them
        once, in `close` or when it is collected."
        """
        reader, writer = transport().pair(duplex=False)
        writer.send(b"last words")
        del writer
        assert b"last words" == bytes(reader.receive()[0])
        with pytest.raises(EOFError):
            reader.receive()
        reader.close()

    def test_the_end_comes_after_every_message(self, ends: tuple[Channel, Channel]) -> None:
        """Closing one end loses nothing; then the other one sees the end, again and again.

        `Channel.receive`: "Raises `EOFError` when the peer has closed and every message was
        received"
        """
        reader, writer = ends
        for length in (3, 0, 5000):
            writer.send(b"x" * length)
        writer.close()

        assert [3, 0, 5000] == [len(reader.receive()[0]) for _ in range(3)]
        for _ in range(2):
            with pytest.raises(EOFError):
                reader.receive()

    def test_unread_messages_do_not_hide_what_the_peer_sent(
        self, both_ways: tuple[Channel, Channel]
    ) -> None:
        """A peer that closes without having read everything has still sent what it sent.

        `Channel.receive`: "Raises `EOFError` when the peer has closed and every message was
        received"
        """
        first, second = both_ways
        first.send(b"never read")
        second.send(b"one")
        second.send(b"two")
        second.close()

        assert b"one" == bytes(first.receive()[0])
        assert b"two" == bytes(first.receive()[0])
        with pytest.raises(EOFError):
            first.receive()

    def test_peer_gone_while_sending_leaves_what_it_sent(
        self, both_ways: tuple[Channel, Channel]
    ) -> None:
        """Also when it went in the middle of a long message from here.

        `Channel.send`: "Raises `BrokenPipeError` or `ConnectionResetError` when nobody can
        receive any more."
        """
        first, second = both_ways
        second.send(b"farewell")
        failures: list[BaseException] = []

        def send() -> None:
            try:
                first.send(bytes(LARGE))
            except OSError as error:
                failures.append(error)

        sender = in_thread(send)
        assert second.wait(DEADLINE)
        second.close()
        sender.join(DEADLINE)

        assert isinstance(failures[0], (BrokenPipeError, ConnectionResetError))
        assert b"farewell" == bytes(first.receive()[0])

    @pytest.mark.parametrize("length", [10, 5000, LARGE])
    def test_sending_to_nobody(self, ends: tuple[Channel, Channel], length: int) -> None:
        """It raises and is no signal, for messages of every length; core's class is one of both.

        `Channel.send`: "Raises `BrokenPipeError` or `ConnectionResetError` when nobody can
        receive any more."
        """
        reader, writer = ends
        connection = Connection.over(writer)
        reader.close()
        with pytest.raises(errors.BrokenConnectionError) as caught:
            connection.send_bytes(bytes(length))
        assert isinstance(caught.value, BrokenPipeError)
        assert caught.value.errno in (errno.EPIPE, errno.ECONNRESET)

    def test_sender_killed_in_the_middle(self, ends: tuple[Channel, Channel], fork: Fork) -> None:
        """SIGKILL within a message makes it a truncated one, never a wrong one.

        `Channel.receive`: "`OSError` ("got end of file during message") when the stream ends
        within a message"
        """
        reader, writer = ends
        connection = Connection.over(reader)
        writer.send(b"whole")
        process = fork(lambda: writer.send(bytes(LARGE)))
        process.await_sleep()
        process.kill()
        writer.close()

        assert b"whole" == connection.recv_bytes()
        with pytest.raises(OSError, match="got end of file during message") as caught:
            connection.recv_bytes()
        assert isinstance(caught.value, errors.BrokenConnectionError)
        assert connection.closed

    def test_receiver_killed_in_the_middle(self, ends: tuple[Channel, Channel], fork: Fork) -> None:
        """A sender that waits for room learns that nobody will make any.

        `Channel.send`: "Raises `BrokenPipeError` or `ConnectionResetError` when nobody can
        receive any more."
        """
        reader, writer = ends

        def child() -> None:
            writer.close()
            reader.receive()
            os.kill(os.getpid(), signal.SIGKILL)

        process = fork(child)
        reader.close()
        writer.send(b"first")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            writer.send(bytes(LARGE))
        assert -signal.SIGKILL == process.join()

    # -- several at once -------------------------------------------------------------------

    def test_poll_while_another_thread_receives(self, ends: tuple[Channel, Channel]) -> None:
        """Waiting needs no lock: it never blocks behind a `receive`.

        `Channel`: "any number may use one end at once; messages never interleave."
        """
        reader, writer = ends
        receiver = in_thread(reader.receive)
        assert not reader.wait(0)
        writer.send(b"end")
        receiver.join(DEADLINE)
        assert not receiver.is_alive()

    @pytest.mark.parametrize("size", [10, 5_000, 200_000])
    def test_many_threads_on_each_end(self, ends: tuple[Channel, Channel], size: int) -> None:
        """Messages of many senders reach many receivers whole, each exactly once.

        `Channel`: "any number may use one end at once; messages never interleave."
        """
        reader, writer = ends
        count, each = 4, 20
        received: list[bytes] = []

        def send(thread: int) -> None:
            for number in range(each):
                writer.send(bytes([thread, number]) + bytes([thread]) * size)

        def receive() -> None:
            for _ in range(each):
                received.append(bytes(reader.receive()[0]))

        with ThreadPoolExecutor(2 * count) as threads:
            futures = [threads.submit(send, number) for number in range(count)]
            futures += [threads.submit(receive) for _ in range(count)]
            for future in futures:
                future.result(DEADLINE)

        assert count * each == len({message[:2] for message in received}) == len(received)
        assert all(bytes([message[0]]) * size == message[2:] for message in received)

    def test_atomic_messages_of_several_processes(
        self, transport: type[Transport], ends: tuple[Channel, Channel], fork: Fork
    ) -> None:
        """Writers of one end need no lock up to the size that is declared.

        `TransportFeatures.atomic_up_to`: "Messages of at most this many bytes are written whole
        or not at all, also when several processes write at once"
        """
        longest = transport.features.atomic_up_to
        if not longest:
            pytest.skip("declares that no message is atomic: nothing is promised")
        reader, writer = ends
        count, lengths = 60, (longest, longest // 2, 1, 0)

        def write(name: int) -> None:
            for number in range(count):
                writer.send(bytes([name]) * lengths[number % 4])

        writers = [fork(lambda name=name: write(name)) for name in (1, 2, 3)]  # type: ignore[misc]
        writer.close()
        found: dict[int, list[int]] = {}
        for _ in range(3 * count):
            body = bytes(reader.receive()[0])
            assert body == body[:1] * len(body)
            found.setdefault(body[0] if body else 0, []).append(len(body))
        assert [0] * 3 == [process.join() for process in writers]
        assert 3 * count // 4 == len(found.pop(0))
        for name, sizes in found.items():
            assert [n for _ in range(count // 4) for n in lengths if n] == sizes, name
