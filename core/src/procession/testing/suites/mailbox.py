"""What every mailbox promises: what queues are made of."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, Full
from typing import Any, TypeAlias

import pytest

from procession._contracts.mailbox import Mailbox
from procession.errors import BrokenConnectionError, ShutDown
from procession.testing.forked import DEADLINE, until
from procession.testing.killing import KILLS, chosen_seed, run
from procession.testing.killing_scenarios import QueueUse
from procession.testing.suites.channel import LARGE, in_thread
from procession.testing.suites.suite import Fork, Suite, readable

Make: TypeAlias = Callable[..., Mailbox]

_SIZES = [0, 1, 508, 509, 510, 4000, 4093, 4094, 5000, 65_000, 65_536, 65_537, 300_000, 3]
#: The length of what may be lent.
_LENT = 200_000
#: Soon enough to have been woken, and not to have looked again.
_AT_ONCE = 0.9


class MailboxSuite(Suite):
    """Whole messages from many processes to many processes.

    Override the fixture `make_mailbox`.
    """

    @pytest.fixture
    def make_mailbox(self) -> Make:
        """A function that takes *maxsize* and *joinable* and makes a mailbox. Override this."""
        raise NotImplementedError(f"{type(self).__name__} has to override `make_mailbox`")

    @pytest.fixture
    def survives_putters(self) -> bool:
        """Whether a putter may be killed in the middle without harm for the others."""
        return True

    @pytest.fixture
    def mailbox(self, make_mailbox: Make) -> Iterator[Make]:
        """Make mailboxes that are closed after the test."""
        made: list[Mailbox] = []

        def mailbox(*, maxsize: int = 0, joinable: bool = False) -> Mailbox:
            made.append(make_mailbox(maxsize=maxsize, joinable=joinable))
            return made[-1]

        yield mailbox
        for each in made:
            each.close()

    # -- messages --------------------------------------------------------------------------

    def test_mailbox_keeps_messages_of_every_size_in_order(self, mailbox: Make) -> None:
        """However a size is carried, bodies and buffers come out as they were put in.

        `Mailbox`: "the messages of one producer are taken in the order in which it put them."
        """
        box = mailbox()

        def put() -> None:
            for size in _SIZES:
                box.put(b"b" * size)
                if not self.bodies_only:
                    box.put(b"", [b"x" * size, memoryview(b"y" * size)])

        putter = in_thread(put)
        for size in _SIZES:
            assert b"b" * size == bytes(box.get(timeout=DEADLINE)[0])
            if self.bodies_only:
                continue
            body, buffers = box.get(timeout=DEADLINE)
            assert (b"", b"x" * size, b"y" * size) == (bytes(body), *map(bytes, buffers))
            assert not any(memoryview(each).readonly for each in buffers)
        putter.join(DEADLINE)
        assert 0 == box.size()

    def test_mailbox_lends_memory_that_nobody_else_writes_to(self, mailbox: Make) -> None:
        """What was got with a lease stays as it is while others are put and got.

        `Mailbox.get_leased`: "That is theirs until the last view of them is gone"
        """
        if self.bodies_only:
            pytest.skip("there are no buffers")
        box = mailbox()
        with pytest.raises(Empty):
            box.get_leased(timeout=0)
        kept: list[tuple[int, Any]] = []
        for number in range(12):
            putter = in_thread(partial(box.put, b"%d" % number, [bytes([number]) * _LENT, b"s"]))
            body, buffers = box.get_leased(timeout=DEADLINE)
            assert (b"%d" % number, b"s") == (bytes(body), bytes(buffers[1]))
            kept.append((number, buffers[0]))
            putter.join(DEADLINE)
            if number % 3 == 0:
                kept.pop(0)
            for each, buffer in kept:
                assert bytes([each]) * _LENT == bytes(buffer)
        box.put(b"plain")
        assert b"plain" == bytes(box.get_leased(timeout=DEADLINE)[0]).rstrip(b"\0")
        box.close()
        for each, buffer in kept:
            memoryview(buffer)[:3] = b"new"  # it is ours, also now
            assert b"new" + bytes([each]) * (_LENT - 3) == bytes(buffer)

    def test_mailbox_reserves_memory_for_a_message(self, mailbox: Make) -> None:
        """What was filled in place arrives like everything else, and nothing comes into it before.

        `Mailbox.put_reserved`: "Like ``put(body, (memory,))``, for what `reserve` has returned"
        """
        if self.bodies_only:
            pytest.skip("there are no buffers")
        box = mailbox()
        for number in range(6):
            memory = box.reserve(_LENT)
            if memory is None:
                pytest.skip("it lends nothing, which is allowed")
            assert _LENT == len(memory)
            box.put(b"first", [b"f" * _LENT])
            memory[:] = bytes([number]) * _LENT
            box.put_reserved(b"second", memory, timeout=DEADLINE)
            get = box.get_leased if number % 2 else box.get
            for body, content in ((b"first", b"f" * _LENT), (b"second", bytes([number]) * _LENT)):
                message, (buffer,) = get(timeout=DEADLINE)
                assert (body, content) == (bytes(message), bytes(buffer))

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_mailbox_takes_any_buffer(self, mailbox: Make, kind: Callable[[bytes], Any]) -> None:
        """bytes, bytearray and memoryview are bodies, short and long.

        `Mailbox`: "Whole messages from many processes to many processes."
        """
        box = mailbox()
        for size in (5, 5000, 100_000):
            putter = in_thread(partial(box.put, kind(b"k" * size)))
            assert b"k" * size == bytes(box.get(timeout=DEADLINE)[0])
            putter.join(DEADLINE)

    def test_mailbox_has_many_producers_and_consumers(self, mailbox: Make, fork: Fork) -> None:
        """Each message is taken once, and a process killed while it waits harms nobody.

        `Mailbox`: "Each message is taken exactly once"
        """
        box = mailbox(joinable=True)

        def produce() -> None:
            for number in range(300):
                box.put(b"%d" % number)

        def consume() -> None:
            while bytes(box.get(timeout=DEADLINE)[0]) != b"end":
                box.task_done()
            box.task_done()

        idle = fork(consume)
        idle.await_sleep()
        idle.kill()
        consumers = [fork(consume) for _ in range(3)]
        assert [0] * 3 == [producer.join() for producer in [fork(produce) for _ in range(3)]]
        assert box.join(DEADLINE)
        for _ in consumers:
            box.put(b"end")
        assert [0] * 3 == [consumer.join() for consumer in consumers]
        assert box.join(0)
        assert 0 == box.size()

    # -- limits and timeouts ---------------------------------------------------------------

    def test_mailbox_is_empty_at_once_or_in_time(self, mailbox: Make) -> None:
        """Empty comes at once, or after the timeout and not before it.

        `Mailbox.get`: "Raises `queue.Empty` when none came in time"
        """
        box = mailbox()
        with pytest.raises(Empty):
            box.get(timeout=0)
        begun = time.monotonic()
        with pytest.raises(Empty):
            box.get(timeout=0.05)
        assert time.monotonic() - begun >= 0.05

    def test_mailbox_is_full_at_once_or_in_time(self, mailbox: Make) -> None:
        """Full comes at once or after the timeout, for long messages, too; a get makes room.

        `Mailbox.put`: "Raises `queue.Full` when there was no room in time"
        """
        box = mailbox(maxsize=7)
        assert 7 == box.maxsize
        for number in range(7):
            box.put(b"%d" % number, timeout=0)
            assert number + 1 == box.size()
        for body in (b"", bytes(100_000)):
            with pytest.raises(Full):
                box.put(body, timeout=0)
            begun = time.monotonic()
            with pytest.raises(Full):
                box.put(body, timeout=0.05)
            assert time.monotonic() - begun >= 0.05
            assert 7 == box.size()
        assert b"0" == bytes(box.get(timeout=DEADLINE)[0])
        box.put(b"7", timeout=0)
        assert [b"%d" % number for number in range(1, 8)] == [
            bytes(box.get(timeout=DEADLINE)[0]) for _ in range(7)
        ]
        assert 0 == box.size()

    def test_mailbox_get_wakes_each_waiting_put(self, mailbox: Make, fork: Fork) -> None:
        """Producers that wait for room, in threads and processes, go on one by one.

        `Mailbox.put`: "Add one message; with a *maxsize*, wait for room up to *timeout* seconds."
        """
        box = mailbox(maxsize=1)
        box.put(b"first")
        processes = [fork(lambda: box.put(b"more")) for _ in range(3)]
        for process in processes:
            process.await_sleep()
        threads = [in_thread(lambda: box.put(b"more")) for _ in range(3)]

        got = [bytes(box.get(timeout=DEADLINE)[0]) for _ in range(7)]

        assert [b"first"] + [b"more"] * 6 == got
        assert [0] * 3 == [process.join() for process in processes]
        for thread in threads:
            thread.join(DEADLINE)

    def test_mailbox_put_wakes_each_waiting_get(self, mailbox: Make, fork: Fork) -> None:
        """Consumers that sleep are all woken, one for each message, well before they look again.

        `Mailbox.get`: "Take the next message, waiting up to *timeout* seconds for one."
        """
        box = mailbox()
        processes = [fork(lambda: box.get()) for _ in range(6)]
        for process in processes:
            process.await_sleep()
        begun = time.monotonic()
        for _ in processes:
            box.put(b"message")

        assert [0] * 6 == [process.join() for process in processes]
        assert time.monotonic() - begun < _AT_ONCE

    def test_mailbox_descriptor_is_readable_while_messages_are_there(self, mailbox: Make) -> None:
        """For messages of every size; and it is not readable when all were taken.

        `Mailbox.fileno`: "Return a descriptor that is readable when a message may be there."
        """
        box = mailbox()
        assert not readable(box.fileno())
        bodies = [b"short", *[b"more"] * 10, bytes(5000)]
        for body in bodies:
            box.put(body)
        for body in bodies:
            assert readable(box.fileno())
            assert body == bytes(box.get(timeout=DEADLINE)[0])
        with pytest.raises(Empty):
            box.get(timeout=0)
        assert not readable(box.fileno())

    # -- ends ------------------------------------------------------------------------------

    @pytest.mark.parametrize("immediate", [False, True])
    def test_mailbox_shutdown_wakes_everybody(
        self, mailbox: Make, fork: Fork, immediate: bool
    ) -> None:
        """Getters and putters of all processes that wait get ShutDown, at once.

        `Mailbox.shutdown`: "Refuse every further `put`, in all processes, and wake who waits."
        """
        empty, full = mailbox(), mailbox(maxsize=1)
        full.put(b"message")

        def refused(use: Callable[[], object]) -> None:
            with pytest.raises(ShutDown):
                use()

        processes = [fork(lambda: refused(empty.get)) for _ in range(4)]
        processes += [fork(lambda: refused(lambda: full.put(b""))) for _ in range(4)]
        for process in processes:
            process.await_sleep()
        begun = time.monotonic()
        for box in (empty, full):
            box.shutdown(immediate=immediate)
            box.shutdown(immediate=immediate)

        assert [0] * 8 == [process.join() for process in processes]
        assert time.monotonic() - begun < _AT_ONCE
        assert (0 if immediate else 1) == full.size()

    def test_mailbox_shutdown_lets_out_what_is_there(self, mailbox: Make) -> None:
        """What was put is taken, then ShutDown comes; puts are refused.

        `Mailbox.get`: "`procession.errors.ShutDown` when it was shut down and is empty (or was
        shut down immediately)"
        """
        box = mailbox()
        bodies = [*(b"%d" % number for number in range(10)), bytes(3000)]
        for body in bodies:
            box.put(body)
        box.shutdown()
        for body in (b"late", bytes(100_000)):
            with pytest.raises(ShutDown):
                box.put(body)

        assert bodies == [bytes(box.get(timeout=DEADLINE)[0]) for _ in bodies]
        for _ in range(2):
            with pytest.raises(ShutDown):
                box.get(timeout=0)

    def test_mailbox_immediate_shutdown_drops_all(self, mailbox: Make) -> None:
        """Nothing can be taken, and only what was taken is waited for.

        `Mailbox.shutdown`: "With *immediate*, messages not yet taken are dropped (and count as
        done, so that `join` returns)."
        """
        box = mailbox(joinable=True)
        for _ in range(10):
            box.put(bytes(1000))
        box.get()
        box.shutdown(immediate=True)

        assert 0 == box.size()
        with pytest.raises(ShutDown):
            box.get()
        assert not box.join(0)
        box.task_done()
        assert box.join(0)
        with pytest.raises(ValueError, match="too many"):
            box.task_done()

    def test_mailbox_join_waits_for_what_was_taken(self, mailbox: Make, fork: Fork) -> None:
        """join ends with the last task_done, whichever process calls it.

        `Mailbox.join`: "Wait until every message put was counted as done; False if not in time."
        """
        box = mailbox(joinable=True)
        for _ in range(10):
            box.put(b"task")
        joiner = fork(lambda: box.join())
        for _ in range(10):
            box.get()
        joiner.await_sleep()
        assert not box.join(0)
        for _ in range(9):
            box.task_done()
        assert not box.join(0.01)
        assert 0 == fork(box.task_done).join()
        begun = time.monotonic()
        assert 0 == joiner.join()
        assert time.monotonic() - begun < _AT_ONCE
        assert box.join()
        with pytest.raises(ValueError, match="too many"):
            box.task_done()

    def test_mailbox_close_is_idempotent(self, mailbox: Make, fork: Fork) -> None:
        """A closed copy holds nothing open, and others go on.

        `Mailbox.close`: "Give this process's descriptors back. Idempotent; others are not
        affected."
        """
        box = mailbox()

        def close() -> None:
            box.close()
            box.close()
            assert box.closed

        assert 0 == fork(close).join()
        box.put(b"goes on")
        assert b"goes on" == bytes(box.get(timeout=DEADLINE)[0])
        close()

    # -- signals and deaths ----------------------------------------------------------------

    def test_mailbox_goes_on_after_an_interrupt(self, mailbox: Make, fork: Fork) -> None:
        """KeyboardInterrupt out of get and put: nothing was taken, nothing added.

        `Mailbox.put`: "After an exception it was not added."
        """
        empty, full = mailbox(), mailbox(maxsize=1)
        full.put(b"message")

        def interrupted(use: Callable[[], object]) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with pytest.raises(KeyboardInterrupt):
                use()
            empty.put(b"one")
            assert b"one" == bytes(empty.get()[0])

        getter = fork(lambda: interrupted(empty.get))
        putter = fork(lambda: interrupted(lambda: full.put(b"")))
        for process in (getter, putter):
            process.await_sleep()
            os.kill(process.pid, signal.SIGINT)
            assert 0 == process.join()
        assert (0, 1) == (empty.size(), full.size())

    def test_mailbox_works_in_a_child_forked_during_puts(self, mailbox: Make, fork: Fork) -> None:
        """A child that is forked while threads put and get can put and get itself.

        `Mailbox`: "Any number of threads and processes may use a mailbox at once, without a lock
        of their own."
        """
        box = mailbox()
        stop = threading.Event()

        def use() -> None:
            for body in (b"message", bytes(3000)):
                box.put(body)
                box.get(timeout=DEADLINE)

        def work() -> None:
            while not stop.is_set():
                use()

        threads = [in_thread(work) for _ in range(3)]
        try:
            for _ in range(10):
                assert 0 == fork(use).join()
        finally:
            stop.set()
            for thread in threads:
                thread.join(DEADLINE)
        assert 0 == box.size()

    def test_mailbox_of_a_putter_that_was_killed(
        self, mailbox: Make, fork: Fork, survives_putters: bool
    ) -> None:
        """Half a message is never taken: it is not there, or everybody is told that it is broken.

        `Mailbox`: "a message it was putting is there whole or not at all"
        """
        box = mailbox()
        putter = fork(lambda: [box.put(bytes(LARGE)) for _ in range(64)])
        until(lambda: box.size() > 0)
        putter.kill()
        if not survives_putters:
            for use in (box.get, lambda: box.put(b""), lambda: box.get(timeout=0)):
                with pytest.raises(BrokenConnectionError, match="killed"):
                    use()
            return
        with suppress(Empty):
            while True:
                assert LARGE == len(box.get(timeout=0)[0])
        box.put(b"goes on")
        assert b"goes on" == bytes(box.get(timeout=DEADLINE)[0])

    @pytest.mark.timeout(60 + KILLS)
    @pytest.mark.parametrize(
        "options",
        [{}, {"maxsize": 3}, {"joinable": True}, {"joinable": True, "maxsize": 2}],
        ids=lambda options: "-".join(options) or "plain",
    )
    def test_mailbox_whose_users_are_killed_at_random(
        self,
        make_mailbox: Make,
        fork: Fork,
        survives_putters: bool,
        options: dict[str, Any],
        prepared_process: Path,
    ) -> None:
        """Items are delivered at most once, none that was accepted is lost, and join comes back.

        `Mailbox`: "A process killed at any instruction leaves the mailbox usable for the others:
        a message it was putting is there whole or not at all, and it takes at most the one
        message with it that it was getting."
        """
        if not survives_putters:
            pytest.skip("declares that no message is atomic: a killed putter is reported instead")
        run(QueueUse(make_mailbox, **options), KILLS, chosen_seed(), prepared_process)
