"""Leases: messages that are looked at where they lie, whoever is killed, forks or closes."""

from __future__ import annotations

import gc
import os
import resource
import select
import struct
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from queue import Empty, Full

import pytest

if sys.platform != "linux":
    pytest.skip("packet pipes are a Linux thing", allow_module_level=True)

import fcntl

from procession._contracts.channel import Buffer, Message
from procession._mailboxes import shelves as _shelves
from procession._mailboxes.packet_lane import PacketLane
from procession._mailboxes.packet_mailbox import PacketMailbox
from procession._mailboxes.shelves import MOST, AllLent, Shelves
from procession._mailboxes.spool import WINDOW
from procession.errors import LeaseWarning, ShutDown
from procession.testing import shortage
from procession.testing.forked import DEADLINE, crew, until
from procession.testing.killing import chosen_kills, chosen_seed
from procession.testing.killing_lenders import LenderTrial

KILLS = chosen_kills(20)
KIBI, MIB = 1 << 10, 1 << 20
Make = Callable[..., PacketMailbox]


def slow_copy(target: Buffer, source: Buffer) -> None:
    """Copy as a lane's own function does."""
    memoryview(target)[:] = source


def new_mailbox(*, maxsize: int = 0, joinable: bool = False, copies: bool = True) -> PacketMailbox:
    """Return a mailbox on a short lane, which *copies* as the ring has it, or by itself."""
    reader, writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4 * 4096)
    lane = PacketLane(reader, writer)
    mailbox = PacketMailbox(lane, maxsize=maxsize, joinable=joinable)
    if copies:
        mailbox._memory.spool._copy = slow_copy
        shelves = mailbox._memory.shelves
        assert shelves is not None
        shelves._copy = slow_copy
    return mailbox


@pytest.fixture(params=[False, True], ids=["in pieces", "by the lane"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make mailboxes that lend what they can; they are closed after the test."""
    made: list[PacketMailbox] = []

    def make(*, maxsize: int = 0, joinable: bool = False) -> PacketMailbox:
        mailbox = new_mailbox(copies=request.param, maxsize=maxsize, joinable=joinable)
        made.append(mailbox)
        with pytest.raises(Empty):
            mailbox.get_leased(timeout=0)
        return mailbox

    yield make
    for mailbox in made:
        mailbox.close()


@pytest.fixture
def mailbox(make: Make) -> PacketMailbox:
    """One mailbox."""
    return make()


def shelves_of(mailbox: PacketMailbox) -> Shelves:
    """Return the shelves, which every mailbox here has."""
    assert mailbox._memory.shelves is not None
    return mailbox._memory.shelves


def held(mailbox: PacketMailbox) -> list[int]:
    """Return which shelves somebody holds."""
    return [shelf for shelf in range(MOST) if shelves_of(mailbox)._is_held(shelf)]


def rooms(mailbox: PacketMailbox) -> list[int]:
    """Return the sizes of the shelves that have memory."""
    words = shelves_of(mailbox)._words()
    return [
        words[shelf * _shelves._WORDS] for shelf in range(MOST) if words[shelf * _shelves._WORDS]
    ]


def pattern(number: int, size: int = 100 * KIBI) -> bytes:
    """What message *number* has in it."""
    return struct.pack("=I", number) * (size // 4)


def put(mailbox: PacketMailbox, number: int, size: int = 100 * KIBI) -> None:
    """Put message *number*, which is large."""
    mailbox.put(b"%d" % number, [pattern(number, size)])


def lease(mailbox: PacketMailbox, number: int, size: int = 100 * KIBI) -> memoryview:
    """Get message *number* with a lease and return its buffer."""
    body, (buffer,) = mailbox.get_leased(timeout=DEADLINE)
    assert (b"%d" % number, pattern(number, size)) == (body, buffer)
    assert isinstance(buffer, memoryview)
    return buffer


def is_lent(buffer: memoryview) -> bool:
    """Return whether *buffer* lies on a shelf."""
    return hasattr(buffer.obj, "hold")


def test_memory_is_used_again_when_nobody_looks(mailbox: PacketMailbox) -> None:
    """One after the other, any number of messages of about one size need no more shelves."""
    for number in range(50):
        put(mailbox, number, 100 * KIBI + number % 7 * 800)
        assert is_lent(lease(mailbox, number, 100 * KIBI + number % 7 * 800))
        assert [] == held(mailbox)
    assert len(rooms(mailbox)) <= 2, rooms(mailbox)


def test_a_lease_lasts_as_long_as_the_last_view(mailbox: PacketMailbox) -> None:
    """A part of a part of the memory keeps it, and writing to it is writing to nothing else."""
    put(mailbox, 1)
    buffer = lease(mailbox, 1)
    part = memoryview(buffer)[400:500].cast("I")[3:]
    del buffer
    for number in range(2, 9):
        put(mailbox, number)
    part[0] = 77
    assert 1 == len(held(mailbox))
    for number in range(2, 9):
        lease(mailbox, number)
    assert [77, *[1] * 21] == part.tolist()
    del part
    assert [] == held(mailbox)


def test_a_lease_in_a_cycle_ends_with_it(mailbox: PacketMailbox) -> None:
    """The collector of garbage ends leases like everybody else."""
    put(mailbox, 1)
    cycle: list[object] = [lease(mailbox, 1)]
    cycle.append(cycle)
    assert 1 == len(held(mailbox))
    del cycle
    gc.collect()
    assert [] == held(mailbox)


def test_who_wants_no_lease_gets_copies(mailbox: PacketMailbox) -> None:
    """Consumers of both kinds can share a queue, in any order."""
    for number in range(12):
        put(mailbox, number)
    leases = []
    for number in range(12):
        if number % 3:
            body, (buffer,) = mailbox.get_pickle()
            assert (b"%d" % number, pattern(number)) == (body, buffer)
            assert isinstance(buffer, memoryview)
            assert not is_lent(buffer)
            assert not buffer.readonly
        else:
            leases.append(lease(mailbox, number))
    assert 4 == len(held(mailbox))
    assert [pattern(number) for number in range(0, 12, 3)] == leases


def test_nothing_is_put_on_shelves_before_somebody_asks(make: Make) -> None:
    """Who never leases pays nothing for it."""
    plain = new_mailbox()
    put(plain, 1)
    put(plain, 2)
    assert not is_lent(lease(plain, 1))
    put(plain, 3)
    assert not is_lent(lease(plain, 2))
    assert is_lent(lease(plain, 3))
    plain.close()


def test_several_buffers_begin_where_instructions_want_them(mailbox: PacketMailbox) -> None:
    """Each at a multiple of 64 bytes, whatever the length of the one before."""
    import ctypes

    parts = [b"a" * 70_001, b"", b"b" * 65_537, b"c"]
    mailbox.put(b"body", parts)
    body, buffers = mailbox.get_leased()
    assert b"body" == body
    assert parts == buffers
    for buffer in buffers:
        if len(buffer):
            assert 0 == ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % 64


def test_a_forked_child_keeps_what_it_can_look_at(mailbox: PacketMailbox) -> None:
    """A fork while a lease is held: the memory is used again when both have let go of it."""
    put(mailbox, 1)
    buffer = lease(mailbox, 1)
    ready, telling = os.pipe()
    go, starting = os.pipe()

    def look() -> None:
        nonlocal buffer
        os.write(telling, b"x")
        os.read(go, 1)
        assert pattern(1) == buffer
        del buffer
        os.write(telling, b"x")
        os.read(go, 1)

    with crew() as fork:
        child = fork(look)
        os.read(ready, 1)
        (shelf,) = held(mailbox)
        del buffer
        assert [shelf] == held(mailbox)
        for number in range(2, 8):
            put(mailbox, number)
            lease(mailbox, number)
        os.write(starting, b"x")
        os.read(ready, 1)
        until(lambda: not held(mailbox))
        os.write(starting, b"x")
        assert 0 == child.join()
    for fd in (ready, telling, go, starting):
        os.close(fd)


def test_a_killed_holder_has_no_leases(mailbox: PacketMailbox) -> None:
    """The kernel ends the leases of whoever is killed, and of its children with them."""
    for number in range(3):
        put(mailbox, number)
    ready, telling = os.pipe()

    def hold() -> None:
        leases = [lease(mailbox, number) for number in range(3)]
        os.write(telling, b"x")
        select.select([], [], [], DEADLINE)
        del leases

    with crew() as fork:
        holder = fork(hold)
        os.read(ready, 1)
        os.close(ready)
        os.close(telling)
        assert 3 == len(held(mailbox))
        holder.kill()
        assert [] == held(mailbox)


def test_a_lease_outlives_the_queue(make: Make) -> None:
    """Arrays do not depend on the queue's being open, here or anywhere."""
    mailbox = new_mailbox()
    with pytest.raises(Empty):
        mailbox.get_leased(timeout=0)
    put(mailbox, 1)
    buffer = lease(mailbox, 1)
    mailbox.close()
    gc.collect()
    assert is_lent(buffer)
    assert pattern(1) == buffer
    buffer[:4] = b"abcd"


def test_immediate_shutdown_leaves_leases_alone(mailbox: PacketMailbox) -> None:
    """What was dropped is gone; what was got stays."""
    for number in range(4):
        put(mailbox, number)
    buffer = lease(mailbox, 0)
    mailbox.shutdown(immediate=True)
    assert 0 == mailbox._memory.state.load().shelved
    assert pattern(0) == buffer
    with pytest.raises(ShutDown):
        mailbox.get_leased()


def test_counts_and_limits_hold(make: Make) -> None:
    """A message on a shelf counts as any other, for `maxsize`, `task_done` and `join`."""
    mailbox = make(maxsize=2, joinable=True)
    put(mailbox, 0)
    memory = mailbox.reserve(100 * KIBI)
    assert memory is not None
    memory[:] = pattern(1)
    mailbox.put_reserved(b"1", memory, timeout=0)
    assert 2 == mailbox.size()
    with pytest.raises(Full):
        mailbox.put(b"2", [pattern(2)], timeout=0.01)
    other = mailbox.reserve(100 * KIBI)
    assert other is not None
    with pytest.raises(Full):
        mailbox.put_reserved(b"2", other, timeout=0.01)
    for number in range(2):
        lease(mailbox, number)
        assert not mailbox.join(0)
        mailbox.task_done()
    assert mailbox.join(DEADLINE)


# -- when something has run out


def test_all_that_there_is_to_lend_is_lent(mailbox: PacketMailbox) -> None:
    """Then nobody waits: who puts is told who holds the leases, and objects are copied."""
    mailbox.lend_at_most(MIB)
    leases = []
    for number in range(2):
        put(mailbox, number, 500 * KIBI)
        leases.append(lease(mailbox, number, 500 * KIBI))
    with pytest.warns(
        LeaseWarning, match=rf"keep 1024 of 1024 KiB.*held by '\w+' \(pid {os.getpid()}\)"
    ):
        put(mailbox, 2, 500 * KIBI)
    put(mailbox, 3, 500 * KIBI)  # once is enough
    for number in (2, 3):
        assert not is_lent(lease(mailbox, number, 500 * KIBI))
    assert sum(rooms(mailbox)) <= MIB
    leases.clear()
    put(mailbox, 4, 500 * KIBI)
    leases.append(lease(mailbox, 4, 500 * KIBI))
    assert is_lent(leases[0])
    with pytest.warns(LeaseWarning, match="keep 512 of 1024 KiB"):
        put(mailbox, 5, 900 * KIBI)


def test_a_warning_that_is_an_error(mailbox: PacketMailbox) -> None:
    """Nothing was put then, and the mailbox is as it was."""
    mailbox.lend_at_most(MIB)
    put(mailbox, 0, 900 * KIBI)
    buffer = lease(mailbox, 0, 900 * KIBI)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeaseWarning)
        with pytest.raises(LeaseWarning, match=r"del what get\(lease=True\) has returned"):
            put(mailbox, 1, 900 * KIBI)
        assert 0 == mailbox.size()
        put(mailbox, 2, 900 * KIBI)
    lease(mailbox, 2, 900 * KIBI)
    del buffer


def test_small_shelves_make_way_for_large_ones(mailbox: PacketMailbox) -> None:
    """Memory that nobody has is given back when it is needed in another size."""
    mailbox.lend_at_most(MIB)
    for number in range(8):
        put(mailbox, number)
    for number in range(8):
        lease(mailbox, number)
    assert 8 == len(rooms(mailbox))
    put(mailbox, 9, 900 * KIBI)
    assert is_lent(lease(mailbox, 9, 900 * KIBI))
    assert sum(rooms(mailbox)) <= MIB
    put(mailbox, 10, 2 * MIB)  # more than there ever is
    assert not is_lent(lease(mailbox, 10, 2 * MIB))


def test_a_backlog_is_no_reason_to_warn(mailbox: PacketMailbox) -> None:
    """Where more waits than there are shelves, the rest goes elsewhere, in order."""
    for number in range(MOST + 5):
        put(mailbox, number)
    for number in range(MOST + 5):
        assert is_lent(lease(mailbox, number)) == (number < MOST)
    put(mailbox, 0)
    kept = lease(mailbox, 0)
    for number in range(MOST):  # nor is one lease beside it
        put(mailbox, number)
    for number in range(MOST):
        assert is_lent(lease(mailbox, number)) == (number < MOST - 1)
    assert pattern(0) == kept


def test_no_descriptor_for_a_lease(mailbox: PacketMailbox) -> None:
    """A copy does as well."""
    put(mailbox, 0)
    lease(mailbox, 0)
    put(mailbox, 1)
    with shortage.free_descriptors(0):
        buffer = lease(mailbox, 1)
    assert not is_lent(buffer)
    assert [] == held(mailbox)
    put(mailbox, 2)
    assert is_lent(lease(mailbox, 2))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_no_descriptor_from_the_beginning(number: int) -> None:
    """Who has looked at nothing yet puts and gets all the same, with a lease or without."""
    mailbox = new_mailbox()
    put(mailbox, 0)
    assert not is_lent(lease(mailbox, 0))
    put(mailbox, 1)

    def use() -> None:
        mailbox._memory.lock.run(lambda: None)  # which needs one for itself
        with shortage.free_descriptors(number):
            for each in range(1, 5):
                put(mailbox, each + 1)
                body, (buffer,) = (mailbox.get_leased if each % 2 else mailbox.get)(
                    timeout=DEADLINE
                )
                assert (b"%d" % each, pattern(each)) == (bytes(body), bytes(buffer))
                del buffer

    with crew() as fork:
        assert 0 == fork(use).join()
    assert [] == held(mailbox)
    mailbox.close()


def test_no_memory_for_a_shelf(mailbox: PacketMailbox) -> None:
    """Where the kernel refuses it, the message goes elsewhere."""
    with shortage.limited(resource.RLIMIT_FSIZE, 1 << 41):
        put(mailbox, 1)
        assert mailbox.reserve(100 * KIBI) is None
        assert not is_lent(lease(mailbox, 1))
    assert [] == rooms(mailbox)
    put(mailbox, 2)
    assert is_lent(lease(mailbox, 2))


def test_files_must_not_become_long(make: Make) -> None:
    """A mailbox made under a limit on files lends nothing and works."""
    with shortage.limited(resource.RLIMIT_FSIZE, 1 << 30):
        short = new_mailbox(copies=False)
        with pytest.raises(Empty):
            short.get_leased(timeout=0)
        put(short, 1)
        assert not is_lent(lease(short, 1))
        assert short.reserve(100 * KIBI) is None
    short.close()


# -- filling in place


def test_reserved_memory_is_put_as_it_is(mailbox: PacketMailbox) -> None:
    """No other message comes into it, while it is filled and while it waits."""
    memory = mailbox.reserve(100 * KIBI)
    assert memory is not None
    memory[:] = pattern(3)
    put(mailbox, 1)
    put(mailbox, 2)
    mailbox.put_reserved(b"3", memory)
    del memory
    put(mailbox, 4)
    for number in range(1, 5):
        lease(mailbox, number)
    assert [] == held(mailbox)


def test_a_filler_that_lets_go_of_nothing_is_named(mailbox: PacketMailbox) -> None:
    """What was filled, put and taken belongs to its filler as long as that can look at it."""
    mailbox.lend_at_most(MIB)
    ready, telling = os.pipe()

    def fill() -> None:
        kept = []
        for number in range(2):
            memory = mailbox.reserve(500 * KIBI)
            assert memory is not None
            memory[:] = pattern(number, 500 * KIBI)
            mailbox.put_reserved(b"%d" % number, memory)
            kept.append(memory)
        os.write(telling, b"x")
        select.select([], [], [], DEADLINE)

    with crew() as fork:
        filler = fork(fill)
        os.read(ready, 1)
        for number in range(2):
            body, (buffer,) = mailbox.get(timeout=DEADLINE)
            assert (b"%d" % number, pattern(number, 500 * KIBI)) == (body, buffer)
        with pytest.warns(LeaseWarning, match=rf"\(pid {filler.pid}\)"):
            put(mailbox, 2, 500 * KIBI)
        filler.kill()
    put(mailbox, 3, 500 * KIBI)
    for number in (2, 3):
        assert is_lent(lease(mailbox, number, 500 * KIBI)) is (number == 3)
    os.close(ready)
    os.close(telling)


def test_a_killed_filler_leaves_nothing(mailbox: PacketMailbox) -> None:
    """Memory that was reserved and not put is free when its process is gone."""

    def fill() -> None:
        memory = mailbox.reserve(100 * KIBI)
        assert memory is not None
        mailbox.put(b"filling")
        select.select([], [], [], DEADLINE)
        memory[0] = 1

    with crew() as fork:
        filler = fork(fill)
        assert b"filling" == mailbox.get(timeout=DEADLINE)[0]
        assert 1 == len(held(mailbox))
        filler.kill()
    assert [] == held(mailbox)
    assert 0 == mailbox.size()


def test_who_finds_everything_lent_is_told_once() -> None:
    """`Shelves` itself names each holder once, however many leases it has."""
    mailbox = new_mailbox()
    mailbox.lend_at_most(MIB)
    shelves = shelves_of(mailbox)
    lent = []
    for _ in range(4):
        shelf = shelves.find(0, 256 * KIBI)
        assert shelf is not None
        lent.append(shelves.lend(shelf, 256 * KIBI))
    with pytest.raises(AllLent) as caught:
        shelves.find(0, 256 * KIBI)
    assert [os.getpid()] == [holder.pid for holder in caught.value.holders]
    assert caught.value.size == MIB
    assert shelves.find(0, 2 * MIB) is None
    lent.clear()
    mailbox.close()


def test_memory_that_makes_no_sense(mailbox: PacketMailbox) -> None:
    """Lengths and numbers are checked against what there is before anything is looked at."""
    shelves = shelves_of(mailbox)
    for token in (
        _shelves.token_of(MOST, b"", [1]),
        _shelves.token_of(3, b"", [1]),  # a shelf without memory
    ):
        for with_lease in (False, True):
            with pytest.raises(OSError, match="bad message"):
                shelves.read(token, lease=with_lease)
    shelf = shelves.find(0, 64 * KIBI)
    assert shelf is not None
    for with_lease in (False, True):
        with pytest.raises(OSError, match="longer than the memory"):
            shelves.read(_shelves.token_of(shelf, b"", [MIB]), lease=with_lease)


# -- many at once


def test_threads_of_one_process(mailbox: PacketMailbox) -> None:
    """Each message to one of them, and what a thread looks at nobody changes."""
    count, workers = 60, 4
    got: Counter[int] = Counter()

    def consume() -> None:
        while True:
            body, buffers = mailbox.get_leased(timeout=DEADLINE)
            if not buffers:
                return
            number = int(bytes(body))
            got[number] += 1
            for _ in range(3):
                assert pattern(number) == buffers[0]

    failures: list[BaseException] = []

    def run() -> None:
        try:
            consume()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for number in range(count):
        put(mailbox, number)
    for _ in threads:
        mailbox.put(b"end")
    for thread in threads:
        thread.join(DEADLINE)
    assert [] == failures
    assert Counter(range(count)) == got
    assert [] == held(mailbox)


@pytest.mark.parametrize(
    ("maxsize", "joinable", "copies", "budget"),
    [
        pytest.param(0, False, True, 1 << 30, id="unbounded"),
        pytest.param(4, True, False, 1 << 30, id="bounded-counted"),
        pytest.param(0, False, True, 600 * KIBI, id="short of memory"),
    ],
)
def test_killed_users(maxsize: int, joinable: bool, copies: bool, budget: int) -> None:
    """Whoever is killed, what is held stays as it was, and what nobody holds is free.

    Accepted messages are taken once and in order, but for one for each dead getter.
    """
    seed = chosen_seed()
    try:
        mailbox = new_mailbox(maxsize=maxsize, joinable=joinable, copies=copies)
        mailbox.lend_at_most(budget)
        Trial(seed, mailbox).run(KILLS)
    except BaseException:
        print(f"replay with PROCESSION_SEED={seed}")
        raise


class Trial(LenderTrial):
    """A mailbox that is used with leases."""

    def __init__(self, seed: int, mailbox: PacketMailbox) -> None:
        super().__init__(seed, users=3, journal_size=1 << 22)
        self.mailbox = mailbox

    def send(self, body: bytes, buffer: bytes) -> None:
        """See `LenderTrial.send`."""
        warnings.simplefilter("ignore", LeaseWarning)
        self.mailbox.put(body, [buffer] if buffer else [], timeout=DEADLINE)

    def send_in_place(self, body: bytes, buffer: bytes) -> bool:
        """See `LenderTrial.send_in_place`."""
        memory = self.mailbox.reserve(len(buffer))
        if memory is None:
            return False
        memory[:] = buffer
        self.mailbox.put_reserved(body, memory, timeout=DEADLINE)
        return True

    def receive(self, lease: bool) -> Message:
        """See `LenderTrial.receive`."""
        get = self.mailbox.get_leased if lease else self.mailbox.get
        message = get(timeout=DEADLINE)
        if self.mailbox._waits.settled:
            self.mailbox.task_done()
        return message

    def rest(self) -> list[Message]:
        """See `LenderTrial.rest`."""
        assert [] == held(self.mailbox), "somebody dead has a lease"
        return [self.mailbox.get_leased(timeout=0) for _ in range(self.mailbox.size())]

    def close(self) -> None:
        """See `LenderTrial.close`."""
        assert 0 == self.mailbox._memory.state.load().shelved
        assert sum(rooms(self.mailbox)) <= shelves_of(self.mailbox).budget
        kept = sum(rooms(self.mailbox)) + WINDOW + MIB
        assert os.fstat(self.mailbox._memory.fd).st_blocks * 512 <= kept
        self.mailbox.close()
