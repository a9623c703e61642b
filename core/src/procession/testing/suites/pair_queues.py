"""What the queues of every pair of a start method and a transport promise."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

from typing import Any

import pytest

import procession
from procession.testing import payloads, queueing
from procession.testing.forked import DEADLINE
from procession.testing.suites.over_pairs import Make, OverPairs

MIB = 2**20
_KINDS = pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])


class QueuePromises(OverPairs):
    """What users see of the queues between a parent and its children."""

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
