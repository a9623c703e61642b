"""`PacketMailbox`: what it promises without anybody being killed (see test_mailbox_kills)."""

from __future__ import annotations

import mmap
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from queue import Empty
from types import FrameType

import pytest

if sys.platform != "linux":
    pytest.skip("packet pipes are a Linux thing", allow_module_level=True)

import fcntl

from procession._ground.handoff import LaunchHandoff, LaunchTakeover
from procession._mailboxes.packet_lane import PacketLane
from procession._mailboxes.packet_mailbox import PacketMailbox
from procession._mailboxes.packet_marks import FULL
from procession._mailboxes.patience import Patience
from procession._mailboxes.spool import WINDOW
from procession.errors import ShutDown
from procession.testing import MailboxSuite
from procession.testing.forked import DEADLINE, crew, until

KIBI = 1024
SLOTS = 4
Make = Callable[..., PacketMailbox]


def short_lane() -> PacketLane:
    """A lane of four packets."""
    reader, writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SLOTS * mmap.PAGESIZE)
    return PacketLane(reader, writer)


@pytest.fixture
def make() -> Iterator[Make]:
    """Make mailboxes on short lanes; they are closed after the test."""
    made: list[PacketMailbox] = []

    def make(*, maxsize: int = 0, joinable: bool = False) -> PacketMailbox:
        made.append(PacketMailbox(short_lane(), maxsize=maxsize, joinable=joinable))
        return made[-1]

    yield make
    for mailbox in made:
        mailbox.close()


class TestPacketMailbox(MailboxSuite):
    """The contract of a mailbox, on lanes so short that the log is used all the time."""

    @pytest.fixture
    def make_mailbox(self) -> Make:
        """Make a mailbox on a short lane."""
        return lambda **options: PacketMailbox(short_lane(), **options)


def readable(mailbox: PacketMailbox) -> bool:
    """Return whether somebody who polls the mailbox would look at it."""
    return bool(select.select([mailbox.fileno()], [], [], 0)[0])


def test_messages_of_every_size_are_taken_in_order(make: Make) -> None:
    """Lane, log and spool together are one queue; bodies and buffers come out as put in."""
    mailbox = make()
    sizes = [0, 1, 508, 509, 510, 4000, 4093, 4094, 5000, 65_000, 65_536, 65_537, 300_000, 3]
    for size in sizes:
        mailbox.put(b"b" * size)
        mailbox.put(b"", [b"x" * size, memoryview(b"y" * size)])

    assert 2 * len(sizes) == mailbox.size()
    for size in sizes:
        assert b"b" * size == mailbox.get()[0]
        body, buffers = mailbox.get()
        assert (b"", [b"x" * size, b"y" * size]) == (body, [bytes(each) for each in buffers])
        assert not any(memoryview(each).readonly for each in buffers)
    assert 0 == mailbox.size()


def test_an_unbounded_put_waits_for_nobody(make: Make) -> None:
    """20 000 messages with nobody reading go in and come out, and their memory is given back."""
    mailbox = make()
    for number in range(20_000):
        mailbox.put(b"%d" % number)
    recipe = mailbox.export(LaunchHandoff())
    handoff = LaunchHandoff()
    mailbox.export(handoff)
    file = handoff.descriptors[recipe[2]]
    full = os.fstat(file).st_blocks * 512

    assert 20_000 == mailbox.size()
    for number in range(20_000):
        assert b"%d" % number == mailbox.get(timeout=0)[0]
    assert full > 200 * KIBI
    assert os.fstat(file).st_blocks * 512 <= 264 * KIBI
    mailbox.put(b"back in the lane")
    assert b"back in the lane" == mailbox.get()[0]


def test_large_messages_leave_no_memory_behind(make: Make) -> None:
    """What the window has no room for is given back as soon as its message was taken."""
    mailbox = make()
    handoff = LaunchHandoff()
    file = handoff.descriptors[mailbox.export(handoff)[2]]
    large = bytes(WINDOW // 3)
    for _ in range(2):
        for _ in range(5):
            mailbox.put(large)
        assert os.fstat(file).st_blocks * 512 >= 5 * len(large)
        for _ in range(5):
            assert large == mailbox.get()[0]
        assert os.fstat(file).st_blocks * 512 <= WINDOW + 264 * KIBI


def test_large_messages_use_the_same_memory_again(make: Make) -> None:
    """One after the other, they take no more of it than one."""
    mailbox = make()
    handoff = LaunchHandoff()
    file = handoff.descriptors[mailbox.export(handoff)[2]]
    for _ in range(20):
        mailbox.put(bytes(1 << 20))
        mailbox.get()
    assert os.fstat(file).st_blocks * 512 <= (1 << 20) + 264 * KIBI


def test_the_whole_window_is_used_when_nobody_gets(make: Make) -> None:
    """What is put first stays in a cache, and what does not fit there goes on behind it."""
    mailbox = make()
    handoff = LaunchHandoff()
    file = handoff.descriptors[mailbox.export(handoff)[2]]
    count = WINDOW // (1 << 20) - 5
    for number in range(count):
        mailbox.put(b"", [bytes([number]) * (1 << 20)])
    for number in range(count):
        assert bytes([number]) * (1 << 20) == mailbox.get()[1][0]
    assert count << 20 <= os.fstat(file).st_blocks * 512 <= WINDOW + 264 * KIBI


@pytest.mark.parametrize("timeout", [0.0, None])
def test_a_large_put_waits_no_longer_than_that_saves(make: Make, timeout: float | None) -> None:
    """However quick getters are, and however much others put: nor beyond its deadline."""

    class Endless(Patience):
        """Finds every nap worth while."""

        naps = 0

        def allows(self, now: float) -> bool:
            self.naps += 1
            assert self.naps < WINDOW // (128 * KIBI), "a nap is longer than what it may save"
            return True

    mailbox = make()
    message = b"x" * (WINDOW // 4)
    for _ in range(4):
        mailbox.put(message)
    mailbox._waits.patience = patience = Endless()
    mailbox.put(message, timeout=timeout)

    assert 5 == mailbox.size()
    assert bool(patience.naps) == (timeout is None)


def test_shutdown_lets_out_what_is_there(make: Make) -> None:
    """After shutdown lane, log and spool are emptied, then ShutDown comes; puts are refused."""
    mailbox = make(joinable=True)
    bodies = [*(b"%d" % number for number in range(10)), bytes(100_000)]
    for body in bodies:
        mailbox.put(body)
    mailbox.shutdown()
    for body in (b"late", bytes(100_000)):
        with pytest.raises(ShutDown):
            mailbox.put(body)

    assert bodies == [mailbox.get()[0] for _ in bodies]
    with pytest.raises(ShutDown):
        mailbox.get(timeout=0)
    assert readable(mailbox)


def test_immediate_shutdown_drops_all(make: Make) -> None:
    """Nothing can be taken, memory is given back, and only what was taken is waited for."""
    mailbox = make(joinable=True)
    for _ in range(10):
        mailbox.put(bytes(1000))
    mailbox.put(bytes(1 << 20))
    mailbox.get()
    mailbox.shutdown(immediate=True)

    assert 0 == mailbox.size()
    with pytest.raises(ShutDown):
        mailbox.get()
    assert not mailbox.join(0)
    mailbox.task_done()
    assert mailbox.join(0)
    with pytest.raises(ValueError, match="too many"):
        mailbox.task_done()
    handoff = LaunchHandoff()
    file = handoff.descriptors[mailbox.export(handoff)[2]]
    assert os.fstat(file).st_blocks * 512 <= 264 * KIBI


def test_fileno_is_readable_while_messages_are_there(make: Make) -> None:
    """Whether they lie in the lane, the log or the spool; and it is not readable after."""
    mailbox = make()
    assert not readable(mailbox)
    for body in (b"in the lane", *[b"in the log"] * 10, bytes(100_000)):
        mailbox.put(body)
    for _ in range(12):
        assert readable(mailbox)
        mailbox.get()
    with pytest.raises(Empty):
        mailbox.get(timeout=0)

    assert not readable(mailbox)


@pytest.mark.parametrize("seed", range(3))
def test_interrupts_at_any_instruction(make: Make, seed: int) -> None:
    """Signal handlers that raise in the middle of put and get lose and double next to nothing."""
    mailbox = make()

    class Alarm(Exception):
        """Raised by the handler."""

    def ring(number: int, frame: FrameType | None) -> None:
        # Only out of put and get, not out of the test's own accounting.
        if frame is not None and frame.f_globals["__name__"].startswith("procession._"):
            raise Alarm

    def work() -> None:
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.001 + seed / 10_000, 0.0007)
        interrupts, difference = 0, 0
        while interrupts < 150:
            try:
                mailbox.put(b"message" * (1 + 2000 * (interrupts % 7)))
                difference += 1
                mailbox.get(timeout=0)
                difference -= 1
            except Empty:
                pass
            except Alarm:
                interrupts += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        # Each interrupt can hit the instant between the kernel's act and the count here.
        assert abs(mailbox.size() - difference) <= interrupts
        for _ in range(mailbox.size()):
            mailbox.get(timeout=0)
        mailbox.put(b"message")
        assert b"message" == mailbox.get(timeout=0)[0]

    with crew() as fork:
        assert 0 == fork(work).join()
    mailbox.put(b"after")
    assert b"after" == mailbox.get(timeout=DEADLINE)[0]


@pytest.mark.parametrize("size", [10, 5_000, 200_000])
def test_no_space_left(make: Make, size: int) -> None:
    """When memory runs out, put raises one OSError, adds nothing, and goes on afterwards."""
    mailbox = make()

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for _ in range(SLOTS):
            mailbox.put(b"fill the lane")
        resource.setrlimit(resource.RLIMIT_FSIZE, (mmap.PAGESIZE, resource.RLIM_INFINITY))
        for _ in range(3):
            with pytest.raises(OSError, match="too large"):
                mailbox.put(bytes(size))
        assert SLOTS == mailbox.size()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        mailbox.put(bytes(size))

    with crew() as fork:
        assert 0 == fork(work).join()
    bodies = [mailbox.get(timeout=0)[0] for _ in range(SLOTS + 1)]
    assert [b"fill the lane"] * SLOTS + [bytes(size)] == bodies


def all_free_descriptors() -> list[int]:
    """Use up every descriptor that this process may have."""
    fds = []
    try:
        while True:
            fds.append(os.dup(1))
    except OSError:
        return fds


def test_no_descriptors_left() -> None:
    """When descriptors run out, making and using a mailbox raises OSError and leaks none."""

    def work() -> None:
        mailbox = PacketMailbox(short_lane())
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, 4096))
        fillers = all_free_descriptors()
        for available in range(6):
            for _ in range(3):
                with pytest.raises(OSError, match="Too many open files"):
                    PacketMailbox(short_lane())
            # Those that are free can all be had, so none was leaked.
            for fd in [os.dup(1) for _ in range(available)]:
                os.close(fd)
            os.close(fillers.pop())
        PacketMailbox(short_lane()).close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 4096))
        for _ in range(SLOTS):
            mailbox.put(b"message")
        with pytest.raises(OSError, match="Too many open files"):
            mailbox.put(b"needs the lock")
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096))
        mailbox.put(b"message")
        assert SLOTS + 1 == mailbox.size()

    with crew() as fork:
        assert 0 == fork(work).join()


def test_export_and_attach(make: Make) -> None:
    """A copy built from the recipe is the same mailbox; each copy closes its own descriptors."""
    original = make(maxsize=20, joinable=True)
    handoff = LaunchHandoff()
    recipe = original.export(handoff)
    takeover = LaunchTakeover([os.dup(fd) for fd in handoff.descriptors])
    copy = PacketMailbox.attach(recipe, takeover)
    for body in (*[b"message"] * 10, bytes(100_000)):
        original.put(body)

    assert (20, 11) == (copy.maxsize, copy.size())
    for _ in range(11):
        copy.get()
        copy.task_done()
    assert original.join(0)
    copy.close()
    copy.close()
    original.put(b"message")
    assert 1 == original.size()


def test_a_failed_attach_leaks_nothing(make: Make) -> None:
    """When a descriptor cannot be taken, those that were are closed."""
    original = make(maxsize=1, joinable=True)
    handoff = LaunchHandoff()
    recipe = original.export(handoff)
    for available in range(len(handoff.descriptors)):
        takeover = LaunchTakeover([os.dup(fd) for fd in handoff.descriptors[:available]])
        with pytest.raises(IndexError):
            PacketMailbox.attach(recipe, takeover)


@pytest.mark.parametrize("get", [PacketMailbox.get, PacketMailbox.get_pickle])
def test_whoever_takes_a_message_wakes_who_waits_for_room(
    make: Make, get: Callable[[PacketMailbox], object]
) -> None:
    """At once, and not when a sleep is over."""
    mailbox = make(maxsize=1)
    mailbox.put(b"first")
    putter = threading.Thread(target=mailbox.put, args=(b"second",))
    putter.start()
    until(lambda: bool(mailbox._words[FULL]))
    get(mailbox)
    assert not mailbox._words[FULL]
    putter.join()
    get(mailbox)
