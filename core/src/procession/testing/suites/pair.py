"""What every pair of a start method and a transport promises: connections and queues of a child."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

import importlib
import os
import select
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import procession
from procession._negotiation import obstacle
from procession._start_method import StartMethod
from procession._transport import Transport
from procession.errors import IncompatiblePluginsError, NothingToLendError
from procession.testing import lending, payloads, queueing
from procession.testing.forked import DEADLINE
from procession.testing.killing import KILLS, chosen_seed, run
from procession.testing.killing_scenarios import ConnectionUse, HandingOver, LeaseUse
from procession.testing.suites.suite import Declined, Fork, Suite

Make: TypeAlias = Callable[..., Any]

KIB, MIB = 2**10, 2**20
_SIZES = [0, 1, 2, 16 * KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 16 * MIB]
_KINDS = pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])


class PairSuite(Suite):
    """What users see of a start method and a transport that are used together.

    Override the fixtures `start_method` and `transport`: they return the classes. The promises
    are those of multiprocessing, on whose contexts the tests run as well; what only procession
    promises takes the fixture `beyond`.
    """

    @pytest.fixture
    def start_method(self) -> type[StartMethod]:
        """The class of the start method under test. Override this."""
        raise NotImplementedError(
            f"{type(self).__name__} has to override the fixture `start_method`, with the class"
        )

    @pytest.fixture
    def transport(self) -> type[Transport]:
        """The class of the transport under test. Override this."""
        raise NotImplementedError(
            f"{type(self).__name__} has to override the fixture `transport`, with the class"
        )

    @pytest.fixture
    def spec(self, request: pytest.FixtureRequest) -> tuple[str, str, str]:
        """What `payloads.context` makes the context from: library, start method, transport."""
        # Asked for by name, so that who overrides this one need not have them.
        method: type[StartMethod] = request.getfixturevalue("start_method")
        transport: type[Transport] = request.getfixturevalue("transport")
        for each in (method, transport):
            reason = each.unavailable()
            if reason is not None:
                pytest.skip(f"NOT TESTED: {each.name} cannot work here: {reason}")
        return "procession", method.name, transport.name

    @pytest.fixture
    def refusal(self, request: pytest.FixtureRequest, spec: tuple[str, str, str]) -> str | None:
        """Why the two cannot work together, from what they declare; None if they can."""
        if spec[0] != "procession":
            return None
        return obstacle(
            request.getfixturevalue("start_method"), request.getfixturevalue("transport")
        )

    @pytest.fixture
    def warmed_up(self, spec: tuple[str, str, str], refusal: str | None) -> None:
        """Start one child, and send a connection: what serves both stays for good."""
        if refusal is None:
            use_once(payloads.context(spec))

    @pytest.fixture
    def ctx(self, spec: tuple[str, str, str], refusal: str | None, warmed_up: None) -> Any:
        """A context of the two."""
        if refusal is not None:
            pytest.skip(f"refused, which is tested: {refusal}")
        return payloads.context(spec)

    @pytest.fixture
    def beyond(self) -> None:
        """Taken by tests of what multiprocessing does not promise."""

    @pytest.fixture
    def start(self, ctx: Any, cleanup: ExitStack) -> Make:
        """Make and start a process; it is killed and closed after the test."""

        def start(target: Callable[..., object], *args: Any) -> Any:
            process = ctx.Process(target=target, args=args)
            process.start()
            cleanup.callback(_end, process)
            return process

        return start

    @pytest.fixture
    def pipe(self, ctx: Any, cleanup: ExitStack) -> Make:
        """Make the two ends of a pipe; both are closed after the test."""

        def pipe(duplex: bool = True) -> tuple[Any, Any]:
            try:
                first, second = ctx.Pipe(duplex)
            except IncompatiblePluginsError as refusal:
                pytest.skip(f"refused, which the transport's own suite tests: {refusal}")
            cleanup.callback(first.close)
            cleanup.callback(second.close)
            return first, second

        return pipe

    @pytest.fixture
    def lending_pipe(self, ctx: Any, cleanup: ExitStack) -> Make:
        """Make the two ends of a pipe that lends; both are closed after the test."""

        def lending_pipe(duplex: bool = True) -> tuple[Any, Any]:
            try:
                first, second = ctx.Pipe(duplex, leases=True)
            except (IncompatiblePluginsError, NothingToLendError) as refusal:
                pytest.skip(f"refused: {refusal}")
            cleanup.callback(first.close)
            cleanup.callback(second.close)
            return first, second

        return lending_pipe

    @pytest.fixture
    def queue(self, ctx: Any, cleanup: ExitStack) -> Make:
        """Make a queue, which the test empties; it is closed and its thread joined afterwards."""

        def queue(maxsize: int = 0, kind: str = "Queue") -> Any:
            made = getattr(ctx, kind)(maxsize) if kind != "SimpleQueue" else ctx.SimpleQueue()
            if kind != "SimpleQueue":
                cleanup.callback(made.join_thread)
            cleanup.callback(made.close)
            return made

        return queue

    def test_a_pair_that_cannot_work_is_refused(
        self, spec: tuple[str, str, str], refusal: str | None, beyond: None, declined: Declined
    ) -> None:
        """Before anything is started, with both names and the feature that is missing.

        `StartMethod.features`: "What children of this method can be given; core refuses what is
        not declared."
        """
        if refusal is None:
            assert payloads.context(spec).get_start_method() == spec[1]
            return
        declined(refusal)
        with pytest.raises(IncompatiblePluginsError) as caught:
            procession.get_context(spec[1], transport=spec[2])
        for word in spec[1:]:
            assert repr(word) in str(caught.value)
        assert refusal in str(caught.value)

    # -- connections -----------------------------------------------------------------------

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

    # -- queues ----------------------------------------------------------------------------

    @_KINDS
    def test_items_arrive_in_order(self, queue: Make, start: Make, kind: str) -> None:
        """What a child puts is got in that order.

        `Mailbox`: "the messages of one producer are taken in the order in which it put them."
        """
        items = queue(kind=kind)
        wanted: list[Any] = [42, None, "hello", b"", (1, 2), {"k": []}, *range(200)]
        process = start(payloads.put_all, items, wanted)

        assert wanted == [items.get() for _ in wanted]
        process.join(DEADLINE)
        assert 0 == process.exitcode

    @_KINDS
    def test_items_reach_a_child(self, queue: Make, pipe: Make, start: Make, kind: str) -> None:
        """A child gets what the parent puts, in order.

        `Mailbox`: "the messages of one producer are taken in the order in which it put them."
        """
        items = queue(kind=kind)
        answers, answerer = pipe(False)
        process = start(payloads.get_until_none, items, answerer)
        wanted = [*range(100), "text", 1.5]
        for item in [*wanted, None]:
            items.put(item)

        assert wanted == answers.recv()
        process.join(DEADLINE)

    def test_many_producers_and_consumers(self, queue: Make, pipe: Make, start: Make) -> None:
        """Each item is got exactly once, and each consumer sees each producer's items in order.

        `Mailbox`: "Each message is taken exactly once"
        """
        items = queue()
        producers, consumers, each = 3, 3, 300
        answers = [pipe(False) for _ in range(consumers)]
        getters = [start(payloads.get_until_none, items, answerer) for _, answerer in answers]
        putters = [start(payloads.put_numbered, items, who, each) for who in range(producers)]
        for process in putters:
            process.join(DEADLINE)
            assert 0 == process.exitcode
        for _ in getters:
            items.put(None)
        received = [receiver.recv() for receiver, _ in answers]
        for process in getters:
            process.join(DEADLINE)

        everything = sorted(item for part in received for item in part)
        assert [(who, number) for who in range(producers) for number in range(each)] == everything
        for part in received:
            for who in range(producers):
                numbers = [number for producer, number in part if producer == who]
                assert sorted(numbers) == numbers

    def test_maxsize_holds_back_a_child(self, queue: Make, start: Make) -> None:
        """A producer waits while the queue is full and loses nothing.

        `Mailbox.put`: "Add one message; with a *maxsize*, wait for room up to *timeout* seconds."
        """
        items = queue(3)
        process = start(payloads.put_all, items, list(range(50)))

        assert list(range(50)) == [items.get(timeout=DEADLINE) for _ in range(50)]
        process.join(DEADLINE)
        assert 0 == process.exitcode

    def test_producer_that_ends_loses_nothing(self, queue: Make, start: Make) -> None:
        """A process that ends right after put hands its items over first, small and large.

        `Mailbox.put`: "When this returns, the message will be taken even if this process is
        killed at once."
        """
        items = queue()
        wanted = ["small", b"x" * 300_000, "last"]
        process = start(payloads.put_all, items, wanted)

        assert wanted == [items.get(timeout=DEADLINE) for _ in wanted]
        process.join(DEADLINE)
        assert 0 == process.exitcode

    @_KINDS
    def test_queue_through_a_connection(
        self, beyond: None, queue: Make, pipe: Make, start: Make, kind: str
    ) -> None:
        """A queue sent to a running child is the same queue there.

        `Exportable`: "Instances may be arguments of a process, on every start method, and may be
        sent through a running connection or queue of the same host."
        """
        items = queue(kind=kind)
        here, there = pipe()
        process = start(payloads.put_into_received, there, [1, "two"])
        here.send(items)

        assert [1, "two"] == [items.get(), items.get()]
        process.join(DEADLINE)
        assert 0 == process.exitcode

    def test_join_waits_for_every_item(self, queue: Make, start: Make) -> None:
        """join returns once task_done was called, in whichever process, for each item.

        `Mailbox.join`: "Wait until every message put was counted as done; False if not in time."
        """
        items = queue(kind="JoinableQueue")
        processes = [start(payloads.get_and_acknowledge, items) for _ in range(2)]
        for number in range(50):
            items.put(number)
        items.join()
        assert items.empty()
        for _ in processes:
            items.put(None)
        items.join()
        for process in processes:
            process.join(DEADLINE)
            assert 0 == process.exitcode

    @pytest.mark.parametrize("immediate", [False, True])
    def test_shutdown_wakes_a_waiting_child(
        self, beyond: None, queue: Make, pipe: Make, start: Make, immediate: bool
    ) -> None:
        """Consumers that wait in other processes learn of the shutdown.

        `Mailbox.shutdown`: "Refuse every further `put`, in all processes, and wake who waits."
        """
        items = queue()
        answers = [pipe(False) for _ in range(2)]
        processes = [start(payloads.get_or_error, items, answerer) for _, answerer in answers]
        assert ["ready", "ready"] == [answer.recv() for answer, _ in answers]
        items.shutdown(immediate=immediate)

        assert [procession.ShutDown] * 2 == [answer.recv() for answer, _ in answers]
        for process in processes:
            process.join(DEADLINE)

    @pytest.mark.parametrize("size", [65_535, 65_537, MIB, 3 * MIB + 1])
    def test_large_items(self, queue: Make, start: Make, size: int) -> None:
        """Items larger than any buffer arrive whole and in order, among small ones.

        `Mailbox`: "Whole messages from many processes to many processes."
        """
        items = queue()
        wanted = [bytes([number]) * size if number % 2 else number for number in range(6)]
        process = start(payloads.put_all, items, wanted)

        assert wanted == [items.get(timeout=DEADLINE) for _ in wanted]
        process.join(DEADLINE)
        assert 0 == process.exitcode

    def test_large_items_of_many_producers(self, queue: Make, start: Make) -> None:
        """Large items of several producers do not mix.

        `Mailbox`: "Whole messages from many processes to many processes."
        """
        items = queue()
        parts = [bytes([who]) * 400_000 for who in range(3)]
        processes = [start(payloads.put_all, items, [part] * 4) for part in parts]
        received = [items.get(timeout=DEADLINE) for _ in range(12)]
        for process in processes:
            process.join(DEADLINE)

        assert sorted(parts * 4) == sorted(received)

    @pytest.mark.parametrize("size", [MIB, 32 * MIB])
    def test_arrays_through_a_queue(self, queue: Make, start: Make, size: int) -> None:
        """Arrays of 1 and 32 MiB, and what comes after them.

        `Mailbox`: "Whole messages from many processes to many processes."
        """
        numpy = pytest.importorskip("numpy")
        items = queue()
        wanted = numpy.arange(size // 8, dtype="i8")
        process = start(payloads.put_all, items, [wanted, "end"])

        assert numpy.array_equal(wanted, items.get(timeout=DEADLINE))
        assert "end" == items.get(timeout=DEADLINE)
        process.join(DEADLINE)
        assert 0 == process.exitcode

    def test_arrays_are_lent_by_a_queue(self, queue: Make, start: Make, beyond: None) -> None:
        """Arrays that are looked at where they lie, in one process and filled so in the other.

        `Mailbox.get_leased`: "buffers that may lie in memory which the mailbox has lent"
        """
        numpy = pytest.importorskip("numpy")
        wanted, answers = queue(), queue()
        process = start(queueing.answer_with_leases, wanted, answers)
        kept = []
        for number in range(6):
            wanted.put({"array": numpy.full(MIB, number, "u1"), "factor": 3})
            answer = answers.get(timeout=DEADLINE, lease=True)
            assert answer.flags.writeable
            kept.append(answer)
        for number, answer in enumerate(kept):
            assert numpy.array_equal(numpy.full(MIB, 3 * number), answer)
        wanted.put(None)
        process.join(DEADLINE)
        assert 0 == process.exitcode
        assert [3 * number for number in range(6)] == [int(answer[-1]) for answer in kept]

    # -- deaths ----------------------------------------------------------------------------

    @pytest.mark.timeout(60 + KILLS)
    def test_ends_of_connections_are_killed_at_random(
        self, spec: tuple[str, str, str], ctx: Any, beyond: None, prepared_process: Path, fork: Fork
    ) -> None:
        """Who talks to a killed process is told who it was; nothing is half received.

        `Channel.receive`: "`OSError` ("got end of file during message") when the stream ends
        within a message"
        """
        run(ConnectionUse(spec), KILLS, chosen_seed(), prepared_process)

    @pytest.mark.timeout(60 + KILLS)
    def test_ends_that_lend_are_killed_at_random(
        self,
        spec: tuple[str, str, str],
        ctx: Any,
        lending_pipe: Make,
        beyond: None,
        prepared_process: Path,
        fork: Fork,
    ) -> None:
        """As above, with leases at both ends: what is received is whole, and nothing is left.

        `Channel.receive_leased`: "or this process, and those that were forked from it since"
        """
        for end in lending_pipe():  # or it is refused
            end.close()
        run(LeaseUse(spec), KILLS, chosen_seed(), prepared_process)

    @pytest.mark.timeout(60 + KILLS)
    def test_givers_and_takers_of_descriptors_are_killed_at_random(
        self, spec: tuple[str, str, str], ctx: Any, beyond: None, prepared_process: Path, fork: Fork
    ) -> None:
        """What was sent in a message arrives, or its receiver is told; nobody waits for ever.

        `Takeover.take`: "Raises `OSError` (or a `procession.errors` subclass of it) when the
        giver has gone before the descriptor could be fetched."
        """
        run(HandingOver(spec), KILLS, chosen_seed(), prepared_process)


def _end(process: Any) -> None:
    process.kill()
    process.join(DEADLINE)
    process.close()


_used: set[Any] = set()


def use_once(ctx: Any) -> None:
    """Use what is kept on purpose once: helpers, sockets, and who hands descriptors over."""
    key = ctx.get_start_method(), type(ctx)
    if key in _used:
        return
    with ExitStack() as stack:
        receiver, sender = ctx.Pipe(duplex=False)
        here, there = ctx.Pipe(duplex=False)
        for end in (receiver, sender, here, there):
            stack.callback(end.close)
        process = ctx.Process(target=payloads.send_all, args=(sender, ["warm"]))
        process.start()
        stack.callback(_end, process)
        assert receiver.poll(DEADLINE)
        assert receiver.recv() == "warm"
        there.send(sender)
        with here.recv() as copy:
            copy.send("warm")
        assert receiver.recv() == "warm"
    _used.add(key)
