"""What the connections of every pair of a start method and a transport promise."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

import importlib
import os
import select

import pytest

from procession.testing import lending, payloads
from procession.testing.forked import DEADLINE
from procession.testing.suites.over_pairs import Make, OverPairs

KIB, MIB = 2**10, 2**20
_SIZES = [0, 1, 2, 16 * KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 16 * MIB]


class ConnectionPromises(OverPairs):
    """What users see of the connections between a parent and its children."""

    def test_objects_come_back_equal(self, pipe: Make, start: Make) -> None:
        """Any picklable object goes to a child and back.

        `Connection.send`: "Send an object that can be pickled"
        """
        here, there = pipe()
        process = start(payloads.echo, there)
        for each in ([42, None, "hello"], b"", b"x" * KIB, {"k": (1, 2.5, 3j)}, ValueError("v"), 0):
            here.send(each)
            received = here.recv()

            assert type(each) is type(received)
            assert repr(each) == repr(received)
        here.send(None)
        process.join(DEADLINE)
        assert 0 == process.exitcode

    def test_bytes_of_every_size_come_back(self, pipe: Make, start: Make) -> None:
        """Byte messages keep their lengths and bytes, from none to 16 MiB.

        `Channel`: "One end of a pair: whole messages, in order, each received exactly once."
        """
        here, there = pipe()
        process = start(payloads.echo_bytes, there, len(_SIZES))
        for size in _SIZES:
            message = os.urandom(min(size, 4096)) * max(1, size // 4096)
            message = message[:size] + bytes(size - len(message[:size]))
            here.send_bytes(message)

            assert message == here.recv_bytes()
        process.join(DEADLINE)
        assert 0 == process.exitcode

    def test_arrays_come_back_equal(self, pipe: Make, start: Make) -> None:
        """Arrays of every kind and order come back equal and writable.

        `Channel`: "Buffers are written from the memory they lie in and received into memory of
        their own."
        """
        numpy = pytest.importorskip("numpy")
        here, there = pipe()
        process = start(payloads.echo, there)
        for array in (
            numpy.arange(10),
            numpy.arange(3 * MIB // 8, dtype="f8").reshape(3, -1),
            numpy.asfortranarray(numpy.arange(12).reshape(3, 4)),
            numpy.arange(100)[::3],
            numpy.zeros((0, 4)),
            numpy.array(["text", None], dtype=object),
        ):
            here.send({"array": array, "twice": [array, 1]})
            received = here.recv()

            assert numpy.array_equal(array, received["array"])
            assert (array.dtype, array.shape) == (received["array"].dtype, received["array"].shape)
            assert received["array"] is received["twice"][0]
            assert received["array"].flags.writeable
        here.send(None)
        process.join()

    def test_what_a_connection_lends_is_nobody_elses(
        self, lending_pipe: Make, start: Make, beyond: None
    ) -> None:
        """Large messages that both sides look at where they lie stay as they are meanwhile.

        `Channel.receive_leased`: "buffers that may lie in memory which is lent"
        """
        here, there = lending_pipe()
        process = start(lending.echo, there)
        kept = []
        for number in range(12):
            here.send(lending.Block(number, 100_000 + number))
            kept.append(here.recv(lease=number % 3 != 0))
            if number % 4 == 3:
                del kept[-2]
            for block in kept:
                block.check()
        here.send(None)
        process.join(DEADLINE)
        assert 0 == process.exitcode
        for block in kept:
            block.check()
            memoryview(block.content)[:] = bytes(block.size)  # it is ours, also now

    def test_arrays_are_filled_where_a_connection_lends(
        self, lending_pipe: Make, start: Make, beyond: None
    ) -> None:
        """Arrays that are looked at where they lie, and filled so by the other side.

        `Channel.reserve`: "Return memory of *size* bytes, of any content, for the buffer of a
        message to send."
        """
        numpy = pytest.importorskip("numpy")
        here, there = lending_pipe()
        process = start(lending.multiply, there)
        kept = []
        for number in range(6):
            here.send(numpy.full((100, 2000), number, "i4"))
            kept.append(here.recv(lease=True))
        here.send(None)
        process.join(DEADLINE)
        assert 0 == process.exitcode
        for number, array in enumerate(kept):
            assert array.flags.writeable
            assert numpy.array_equal(numpy.full((100, 2000), 2 * number, "i4"), array)

    def test_a_killed_holder_of_a_lease_keeps_nothing(
        self, lending_pipe: Make, pipe: Make, start: Make, beyond: None
    ) -> None:
        """What it has not received is there for the next one, who has all of the memory.

        `Channel.receive_leased`: "That is theirs until the last view of them is gone, or this
        process"
        """
        here, there = lending_pipe()
        reports, reporter = pipe()
        holder = start(lending.hold, there, reporter)
        for number in range(4):
            here.send(lending.Block(number, 100_000))
            if not number:
                assert 0 == reports.recv()
        holder.kill()
        holder.join(DEADLINE)
        process = start(lending.echo, there)
        for number in range(1, 100):
            if number > 3:
                here.send(lending.Block(number, 100_000))
            block = here.recv(lease=True)
            assert number == block.number
            block.check()
        here.send(None)
        process.join(DEADLINE)
        assert 0 == process.exitcode

    def test_connection_through_a_connection(self, pipe: Make, start: Make) -> None:
        """A connection sent to a running child arrives usable, and stays the sender's own, too.

        `Exportable`: "Instances may be arguments of a process, on every start method, and may be
        sent through a running connection or queue of the same host."
        """
        here, there = pipe()
        process = start(payloads.use_received, there)
        receiver, sender = pipe(False)
        here.send(sender)

        assert "hello" == receiver.recv()
        process.join(DEADLINE)
        assert 0 == process.exitcode
        sender.send("mine still")
        assert "mine still" == receiver.recv()
        sender.close()
        with pytest.raises(EOFError):
            receiver.recv()

    def test_duplex_connection_through_a_connection(self, pipe: Make, start: Make) -> None:
        """A duplex connection that was sent can be used in both directions.

        `Exportable`: "Instances may be arguments of a process, on every start method, and may be
        sent through a running connection or queue of the same host."
        """
        here, there = pipe()
        process = start(payloads.echo_through_received, there)
        near, far = pipe()
        here.send(far)
        far.close()
        near.send([1, "two"])

        assert [1, "two"] == near.recv()
        process.join(DEADLINE)
        assert 0 == process.exitcode

    def test_connection_through_a_queue(self, pipe: Make, queue: Make, start: Make) -> None:
        """A connection put into a queue arrives usable with whoever gets it.

        `Exportable`: "Instances may be arguments of a process, on every start method, and may be
        sent through a running connection or queue of the same host."
        """
        items = queue()
        process = start(payloads.use_received, items)
        receiver, sender = pipe(False)
        items.put(sender)

        assert "hello" == receiver.recv()
        process.join(DEADLINE)
        assert 0 == process.exitcode

    def test_wait_for_sentinels_and_connections(
        self, spec: tuple[str, str, str], pipe: Make, start: Make
    ) -> None:
        """wait returns whichever is ready among connections and sentinels.

        `Channel.fileno`: "For select, poll, epoll and asyncio."
        """
        wait = importlib.import_module(f"{spec[0]}.connection").wait
        here, there = pipe()
        process = start(payloads.hold, there)
        quiet, speaker = pipe(False)

        assert [here] == wait([here, quiet, process.sentinel], DEADLINE)
        assert "ready" == here.recv()
        assert [] == wait([here, quiet, process.sentinel], 0)
        speaker.send("x")
        assert [quiet] == wait([here, quiet, process.sentinel], DEADLINE)
        here.send("go on")
        assert [process.sentinel] == wait([process.sentinel], DEADLINE)
        assert {quiet, process.sentinel} == set(wait([quiet, process.sentinel], DEADLINE))

    def test_killed_child_ends_its_connection(self, pipe: Make, start: Make) -> None:
        """When a child is killed, what it sent is received and then the end.

        `Channel.receive`: "Raises `EOFError` when the peer has closed and every message was
        received"
        """
        here, there = pipe()
        process = start(payloads.hold, there)
        there.close()
        assert select.select([here], [], [], DEADLINE)[0]
        process.kill()
        process.join(DEADLINE)

        assert "ready" == here.recv()
        assert here.poll(DEADLINE)
        with pytest.raises((EOFError, ConnectionResetError)):
            here.recv()
