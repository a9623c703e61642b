"""The contract of primitives, on every implementation that is installed."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("these tests need fork and /proc", allow_module_level=True)

from procession import _selection
from procession._handoff import Handoff, Takeover
from procession._holder import Holder, has_died, myself
from procession._kernel_primitive import KernelPrimitive
from procession._primitive_choice import choose, primitive_class
from procession._primitives import LOCK, MOST_UNITS, NOTICE_SECONDS, RECURSIVE, SEMAPHORE, Primitive
from procession._process_status import start_of
from procession.errors import OwnerDiedError, UnknownPluginError
from procession.testing.forked import DEADLINE, crew, until

KINDS = pytest.mark.parametrize(
    "kind", [LOCK, RECURSIVE, SEMAPHORE], ids=["lock", "recursive", "semaphore"]
)


def _implementations() -> list[type[Primitive]]:
    registry = _selection.registry()
    names = [n for n in registry.names("primitive") if registry.problem("primitive", n) is None]
    return [KernelPrimitive, *(registry.load("primitive", name) for name in names)]


@pytest.fixture(params=_implementations(), ids=lambda each: each.name)
def implementation(request: pytest.FixtureRequest) -> type[Primitive]:
    """One of those that are installed."""
    found: type[Primitive] = request.param
    return found


@pytest.fixture
def one(implementation: type[Primitive], kind: int) -> Iterator[Primitive]:
    """A primitive with one unit."""
    made = implementation.make(kind, 1, MOST_UNITS if kind == SEMAPHORE else 1)
    yield made
    made.close()


class _Duplicates(Handoff, Takeover):
    """A crossing into this same process."""

    def give(self, fd: int, /) -> int:
        return os.dup(fd)

    def take(self, token: int, /) -> int:
        return token


def crossed(primitive: Primitive) -> Primitive:
    """Return another object for *primitive*, as this process gets when it is sent its own."""
    crossing = _Duplicates()
    return type(primitive).attach(primitive.export(crossing), crossing)


@KINDS
def test_thread_that_has_ended_still_holds(one: Primitive) -> None:
    """Processes hold, threads do not: the end of a thread is no death."""
    thread = threading.Thread(target=one.acquire)
    thread.start()
    thread.join()
    assert not one.acquire(timeout=3 * NOTICE_SECONDS)
    assert [os.getpid()] == [holder.pid for holder in one.holders()]


@KINDS
def test_forked_child_holds_nothing(one: Primitive) -> None:
    """What the parent holds at the fork it alone holds; the child's end frees nothing."""

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
def test_recycled_pid_fools_nobody(one: Primitive) -> None:
    """A holder whose number belongs to another process by now has died."""
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


def test_start_tells_processes_apart() -> None:
    """A process is alive as long as it is the same; a number alone is taken on trust."""
    pid, start = myself()
    assert (os.getpid(), start_of(os.getpid())) == (pid, start)
    assert not has_died(pid, start)
    assert not has_died(pid, 0)
    assert has_died(pid, start + 1)
    assert Holder(pid, start + 1, "", 0, 1).has_died()


def test_zombie_has_died() -> None:
    """A process that has ended and was not collected holds nothing any more."""
    with crew() as fork:
        end, begin = os.pipe()
        child = fork(lambda: os.read(end, 1))
        start = start_of(child.pid)
        assert not has_died(child.pid, start)
        os.write(begin, b"x")
        until(child.stopped)
        assert has_died(child.pid, start)
        os.close(end)
        os.close(begin)


@KINDS
def test_killed_between_anything_is_noticed_while_waiting(one: Primitive) -> None:
    """A waiter that sleeps already notices within moments that the holder was killed."""
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


@KINDS
def test_handler_that_raises_leaves_it_right(one: Primitive) -> None:
    """An interrupted acquire has acquired nothing, an interrupted release has released."""
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
    assert inside or one.name != KernelPrimitive.name


@pytest.mark.parametrize("raises", [True, False])
def test_handler_in_nested_use(implementation: type[Primitive], raises: bool) -> None:
    """However a handler uses, or leaves, a recursive lock that is held: the count is right."""
    one = implementation.make(RECURSIVE, 1, 1)
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


def test_two_objects_of_one_recursive_lock(implementation: type[Primitive]) -> None:
    """A process that was sent its own lock may acquire by one and release by the other."""
    one = implementation.make(RECURSIVE, 1, 1)
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
def test_handler_may_use_it(one: Primitive) -> None:
    """A handler that wants what it has interrupted gets it, or an error; it never hangs."""
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


def test_threads_and_processes_together(implementation: type[Primitive]) -> None:
    """At most as many are inside as there are units, whoever they are."""
    semaphore = implementation.make(SEMAPHORE, 2, 2)
    inside = implementation.make(SEMAPHORE, 0, 8)

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


def test_only_semaphores_have_a_descriptor(implementation: type[Primitive]) -> None:
    """It is readable while a unit is free, in every process, also after a death."""
    lock = implementation.make(LOCK, 1, 1)
    with pytest.raises(OSError, match="waited for"):
        lock.fileno()
    semaphore = implementation.make(SEMAPHORE, 1, 1)
    fd = semaphore.fileno()

    def readable() -> bool:
        return bool(select.select([fd], [], [], 0)[0])

    def take_and_end() -> None:
        semaphore.acquire()
        os._exit(0)

    assert readable()
    with crew() as fork:
        assert 0 == fork(take_and_end).join()
        assert not readable()
        with pytest.raises(OwnerDiedError):
            semaphore.acquire(False)
        assert readable()
    lock.close()
    semaphore.close()


def test_many_cost_few_descriptors(implementation: type[Primitive]) -> None:
    """A program may have hundreds of locks: at most one descriptor for each."""
    before = len(os.listdir("/proc/self/fd"))
    locks = [implementation.make(RECURSIVE, 1, 1) for _ in range(200)]
    for lock in locks:
        assert lock.acquire(False)
    assert len(os.listdir("/proc/self/fd")) - before <= 210
    del lock, locks
    assert len(os.listdir("/proc/self/fd")) - before <= 6


def test_out_of_descriptors() -> None:
    """Making one fails with an error that says so, and leaves nothing open."""
    import resource

    def make_many() -> None:
        while True:
            kept.append(KernelPrimitive.make(SEMAPHORE, 1, 1))

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept: list[Primitive] = []
    before = len(os.listdir("/proc/self/fd"))
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            make_many()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for each in kept:
        each.close()
    kept.clear()
    assert before == len(os.listdir("/proc/self/fd"))


def test_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable decides; without it, an installed one comes before core's own."""
    monkeypatch.setenv("PROCESSION_PRIMITIVE", "python")
    assert (KernelPrimitive, "PROCESSION_PRIMITIVE") == choose()
    monkeypatch.setenv("PROCESSION_PRIMITIVE", "pyhton")
    with pytest.raises(UnknownPluginError, match="chosen by PROCESSION_PRIMITIVE"):
        primitive_class()
    monkeypatch.setenv("PROCESSION_PRIMITIVE", "")
    installed = _implementations()
    assert (installed[1] if installed[1:] else KernelPrimitive) is primitive_class()
