"""What every implementation of locks and semaphores promises."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from procession._choosing import selection
from procession._choosing.primitive_choice import BUILT_IN
from procession._contracts.primitives import (
    LOCK,
    MOST_UNITS,
    NOTICE_SECONDS,
    RECURSIVE,
    SEMAPHORE,
    Primitive,
)
from procession._locks.holder import has_died
from procession.errors import OwnerDiedError
from procession.testing.forked import DEADLINE, crew
from procession.testing.garbage import none_collected
from procession.testing.killing import KILLS, chosen_seed, run
from procession.testing.killing_locks import LockUse
from procession.testing.suites.suite import Suite, open_descriptors, readable
from procession.testing.suites.transport import crossed

KINDS = pytest.mark.parametrize(
    "kind", [LOCK, RECURSIVE, SEMAPHORE], ids=["lock", "recursive", "semaphore"]
)


class _Interrupted(BaseException):
    pass


def _interrupted_in(error: BaseException) -> str:
    """Return which method of a primitive was interrupted, after it had begun; else nothing."""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name in ("acquire", "release") and trace.tb_lineno > code.co_firstlineno:
            return code.co_name
        trace = trace.tb_next
    return ""


class PrimitiveSuite(Suite):
    """The contract of a primitive. Override the fixture `primitive`: it returns the class."""

    @pytest.fixture
    def primitive(self) -> type[Primitive]:
        """The class of the primitive under test. Override this."""
        raise NotImplementedError(
            f"{type(self).__name__} has to override the fixture `primitive`, with the class"
        )

    @pytest.fixture
    def warmed_up(self, primitive: type[Primitive]) -> None:
        """Make one of each kind, so that the memory for the next ones is there."""
        reason = primitive.unavailable()
        if reason is not None:
            pytest.skip(f"NOT TESTED: {primitive.name} cannot work here: {reason}")
        for kind in (LOCK, RECURSIVE, SEMAPHORE):
            primitive.make(kind, 1, 1).close()

    @pytest.fixture
    def no_garbage(self) -> Iterator[None]:
        """Have no finalizers of earlier tests run where a signal handler may raise."""
        with none_collected():
            yield

    @pytest.fixture
    def one(self, primitive: type[Primitive], kind: int) -> Iterator[Primitive]:
        """A primitive with one unit."""
        made = primitive.make(kind, 1, MOST_UNITS if kind == SEMAPHORE else 1)
        yield made
        made.close()

    def test_its_name_leads_to_it(self, primitive: type[Primitive]) -> None:
        """It is chosen by a name, which is the class's own.

        `Primitive.name`: "What ``procession plugins`` and PROCESSION_PRIMITIVE call the
        implementation; equals the name of the entry point."
        """
        if primitive.name != BUILT_IN:
            assert primitive is selection.registry().load("primitive", primitive.name)

    @KINDS
    def test_arguments_are_those_of_multiprocessing(self, one: Primitive) -> None:
        """By position or name.

        `Primitive.acquire`: "names, order, defaults and truth values of the arguments are
        therefore as in multiprocessing."
        """
        assert one.acquire(block=True, timeout=None)
        if one.kind != RECURSIVE:
            assert not one.acquire(False)
            assert not one.acquire(block=False)
            assert not one.acquire(True, 0.001)
            assert not one.acquire(True, timeout=0.001)
            assert not one.acquire(True, -1)
        one.release()
        assert 1 == one.value()

    @KINDS
    def test_releasing_too_much(self, primitive: type[Primitive], kind: int) -> None:
        """What nobody has acquired cannot be given back.

        `Primitive.release`: "`ValueError` ("semaphore or lock released too many times") when all
        *maxvalue* units are free."
        """
        one = primitive.make(kind, 1, 1)
        expected = AssertionError if kind == RECURSIVE else ValueError
        with pytest.raises(expected, match=r"released too many times|not owned by thread"):
            one.release()
        assert (0, 1) == (one.count(), one.value())
        one.close()

    @KINDS
    def test_thread_that_has_ended_still_holds(self, one: Primitive) -> None:
        """Processes hold, threads do not: the end of a thread is no death.

        `Primitive`: "a unit whose thread has ended is still held by its process (anybody there may
        release it)"
        """
        thread = threading.Thread(target=one.acquire)
        thread.start()
        thread.join()
        assert not one.acquire(timeout=3 * NOTICE_SECONDS)
        assert [os.getpid()] == [holder.pid for holder in one.holders()]

    @KINDS
    def test_forked_child_holds_nothing(self, one: Primitive) -> None:
        """What the parent holds at the fork it alone holds; the child's end frees nothing.

        `Primitive`: "A forked child has the same primitive, and holds nothing: what its parent held
        at the fork its parent holds, and nobody else."
        """

        def child() -> None:
            assert 0 == one.count()
            assert not one.acquire(False)
            if one.kind == RECURSIVE:
                with pytest.raises(AssertionError):
                    one.release()

        one.acquire()
        with crew() as fork:
            assert 0 == fork(child).join()
        assert not one.value()
        one.release()
        assert one.value()

    @KINDS
    def test_recycled_pid_fools_nobody(self, one: Primitive) -> None:
        """A holder whose number belongs to another process by now has died.

        `Primitive`: "Who holds is recorded in the same step that takes the unit, as process id
        *and* start time, so that a recycled id fools nobody."
        """
        with crew() as fork:

            def hold() -> None:
                one.acquire()
                os._exit(0)

            pid = fork(hold)
            pid.join()
            # The kernel gives numbers in turn; what counts is that the start is compared.
            (holder,) = one.holders()
            assert pid.pid == holder.pid
            assert has_died(os.getpid(), holder.start - 1)
        with pytest.raises(OwnerDiedError) as caught:
            one.acquire()
        assert errno.EOWNERDEAD == caught.value.errno
        assert one.acquire(False)

    @KINDS
    def test_killed_between_anything_is_noticed_while_waiting(self, one: Primitive) -> None:
        """A waiter that sleeps already notices within moments that the holder was killed.

        `Primitive`: "If one of them has ended, all its units become free in one step, and this
        acquire raises `OwnerDiedError`"
        """
        with crew() as fork:
            ready, readied = os.pipe()

            def hold() -> None:
                one.acquire()
                os.write(readied, b"x")
                time.sleep(DEADLINE)

            child = fork(hold)
            os.read(ready, 1)
            timer = threading.Timer(2.5 * NOTICE_SECONDS, child.kill)
            timer.start()
            with pytest.raises(OwnerDiedError):
                one.acquire()
            timer.join()
            os.close(ready)
            os.close(readied)
        assert one.acquire(False)

    @KINDS
    @pytest.mark.usefixtures("no_garbage")
    def test_handler_that_raises_leaves_it_right(self, one: Primitive) -> None:
        """An interrupted acquire has acquired nothing, an interrupted release has released.

        `Primitive`: "A handler runs at once, also while `acquire` blocks; if it raises
        (KeyboardInterrupt), nothing was acquired."
        """
        armed = False
        inside = 0
        where = ""

        def handle(*_: object) -> None:
            nonlocal armed
            if armed:
                armed = False  # once: who interrupts the cleaning up as well gets what he asks for
                raise _Interrupted

        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.00037)
        ends = time.monotonic() + 0.7
        try:
            while time.monotonic() < ends:
                try:
                    armed = True
                    one.acquire()
                    one.release()
                    armed = False
                except _Interrupted as error:
                    where = _interrupted_in(error)
                    if where == "":
                        # Between the two calls, or at the door of one: it is held, or not.
                        if one.count():
                            one.release()
                    else:
                        inside += 1
                assert (0, 1) == (one.count(), one.value()), where
        finally:
            armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert inside or one.name != BUILT_IN

    @pytest.mark.timeout(60 + KILLS)
    @KINDS
    def test_users_are_killed_at_random(
        self, primitive: type[Primitive], kind: int, prepared_process: Path
    ) -> None:
        """Wherever they are: the others go on, and in the end all units are free.

        `Primitive`: "**Killed at any instruction**, a process leaves the units right: an acquire
        has taken its unit, and is recorded, or has not; a release has given it back and the others
        see it"
        """
        units = 2 if kind == SEMAPHORE else 1
        one = primitive.make(kind, units, units)
        try:
            run(LockUse(one, one, units), KILLS, chosen_seed(), prepared_process)
        finally:
            one.close()

    @pytest.mark.parametrize("raises", [True, False])
    @pytest.mark.usefixtures("no_garbage")
    def test_handler_in_nested_use(self, primitive: type[Primitive], raises: bool) -> None:
        """However a handler uses, or leaves, a recursive lock that is held: the count is right.

        `Primitive`: "A handler may itself use the primitive; if that is impossible in the instant
        that it interrupted, it gets a `RuntimeError` and never waits for ever."
        """
        one = primitive.make(RECURSIVE, 1, 1)
        armed = False
        handled = 0

        def handle(*_: object) -> None:
            nonlocal armed, handled
            if armed:
                armed = False
                handled += 1
                one.acquire(timeout=0)
                one.release()
                if raises:
                    raise _Interrupted

        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.00037)
        ends = time.monotonic() + 0.3
        try:
            one.acquire()
            while time.monotonic() < ends:
                try:
                    armed = True
                    one.acquire()
                    one.release()
                    armed = False
                except (_Interrupted, RuntimeError):
                    # Between the two calls, or at the door of one: it is held once more, or not.
                    if one.count() == 2:
                        one.release()
                assert (1, 0) == (one.count(), one.value())
            one.release()
            assert (0, 1) == (one.count(), one.value())
        finally:
            armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            one.close()
        assert handled

    def test_two_objects_of_one_recursive_lock(self, primitive: type[Primitive]) -> None:
        """A process that was sent its own lock may acquire by one and release by the other.

        `Primitive.acquire`: "A recursive lock that the calling thread holds is acquired once more,
        at once."
        """
        one = primitive.make(RECURSIVE, 1, 1)
        other = crossed(one)
        for _ in range(2):
            assert one.acquire()
            assert other.acquire()
            one.release()
            other.release()
            assert (0, 1) == (one.count(), other.value())
        assert other.acquire(False)
        other.release()
        other.close()
        one.close()

    @KINDS
    def test_handler_may_use_it(self, one: Primitive) -> None:
        """A handler that wants what it has interrupted gets it, or an error; it never hangs.

        `Primitive`: "A handler may itself use the primitive; if that is impossible in the instant
        that it interrupted, it gets a `RuntimeError` and never waits for ever."
        """
        outcomes: list[str] = []

        def handle(*_: object) -> None:
            try:
                if one.acquire(timeout=0.001):
                    one.release()
                outcomes.append("used")
            except RuntimeError:
                outcomes.append("refused")

        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0021)
        ends = time.monotonic() + 0.5
        try:
            while time.monotonic() < ends:
                one.acquire()
                one.release()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert "used" in outcomes
        assert (0, 1) == (one.count(), one.value())

    def test_threads_and_processes_together(self, primitive: type[Primitive]) -> None:
        """At most as many are inside as there are units, whoever they are.

        `Primitive`: "All methods may be called from any number of threads at once."
        """
        semaphore = primitive.make(SEMAPHORE, 2, 2)
        inside = primitive.make(SEMAPHORE, 0, 8)

        def work() -> None:
            for _ in range(150):
                assert semaphore.acquire(timeout=DEADLINE)
                inside.release()
                assert inside.value() <= 2
                assert inside.acquire(False)
                semaphore.release()

        def crowd() -> None:
            threads = [threading.Thread(target=work) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        with crew() as fork:
            assert [0, 0] == [each.join() for each in [fork(crowd), fork(crowd)]]
        assert (2, 0) == (semaphore.value(), inside.value())
        semaphore.close()
        inside.close()

    def test_only_semaphores_have_a_descriptor(self, primitive: type[Primitive]) -> None:
        """It is readable while a unit is free, in every process, also after a death.

        `Primitive.fileno`: "Return a descriptor that is readable while a unit of this semaphore is
        free."
        """
        lock = primitive.make(LOCK, 1, 1)
        with pytest.raises(OSError, match="waited for"):
            lock.fileno()
        semaphore = primitive.make(SEMAPHORE, 1, 1)
        fd = semaphore.fileno()

        def take_and_end() -> None:
            semaphore.acquire()
            os._exit(0)

        assert readable(fd)
        with crew() as fork:
            assert 0 == fork(take_and_end).join()
            assert not readable(fd)
            with pytest.raises(OwnerDiedError):
                semaphore.acquire(False)
            assert readable(fd)
        lock.close()
        semaphore.close()

    def test_many_cost_few_descriptors(self, primitive: type[Primitive]) -> None:
        """A program may have hundreds of locks: at most one descriptor for each.

        `Primitive`: "A program may have thousands, one for each shared value: many live in one
        piece of memory."
        """
        before = len(open_descriptors())
        locks = [primitive.make(RECURSIVE, 1, 1) for _ in range(200)]
        for lock in locks:
            assert lock.acquire(False)
        assert len(open_descriptors()) - before <= 210
        del lock, locks
        assert len(open_descriptors()) - before <= 6
