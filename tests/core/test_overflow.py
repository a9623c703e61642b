"""The parts of a mailbox's memory: padding, ledger, overflow log, spool, patience."""

from __future__ import annotations

import mmap
import os
import random
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("parts of files can be given back on Linux only", allow_module_level=True)

from procession._ground.anonymous_file import anonymous_file
from procession._mailboxes.mailbox_state import SIZE, Ledger, MailboxState
from procession._mailboxes.overflow_log import CHUNK, OverflowLog
from procession._mailboxes.packet_padding import MODULUS, capacity, count, padding, strip
from procession._mailboxes.patience import NAP, Patience
from procession._mailboxes.spool import Spool
from procession._messages.message_frame import frame, unframe

BASE = 1 << 16


@pytest.fixture
def fd() -> Iterator[int]:
    """A file with the state's page."""
    fd = anonymous_file("test", bytes(SIZE))
    yield fd
    os.close(fd)


@pytest.fixture
def state(fd: int) -> Iterator[MailboxState]:
    """The state in the file."""
    state = MailboxState(fd)
    yield state
    state.close()


def new_ledger(state: MailboxState) -> Ledger:
    """A ledger of an empty mailbox."""
    ledger = state.load()
    ledger.head = ledger.tail = ledger.freed = BASE
    Spool(-1, BASE, 0).begin(ledger)
    return ledger


def test_padding_makes_lengths_countable() -> None:
    """Every length is padded to -1 modulo 512 and stripped again, with its kind."""
    for length in range(2000):
        for kind in (0, 1):
            packet = b"p" * length
            padded = packet + padding(length, kind)
            assert MODULUS - 1 == len(padded) % MODULUS
            assert (packet, kind) == strip(padded)


def test_counts_are_right_below_the_modulus() -> None:
    """Sums of mixed lengths give the number of packets, up to 511."""
    total = 0
    for number in range(1, MODULUS):
        total += MODULUS * (1 + number % 7) - 1
        assert number == count(total)


def test_capacity_is_the_longest_that_fits() -> None:
    """One byte more would be padded beyond the longest packet."""
    for longest in (511, 4096, 32768):
        fits = capacity(longest)
        assert fits + len(padding(fits, 0)) <= longest
        assert fits + 1 + len(padding(fits + 1, 0)) > longest


def test_frame() -> None:
    """A framed message comes out as it went in; its buffers may be written to."""
    for buffers in ([], [b""], [b"one", b"", b"three" * 1000]):
        body, out = unframe(frame(b"body", buffers))
        assert (b"body", buffers) == (body, [bytes(each) for each in out])
        for each in out:
            assert not memoryview(each).readonly


def test_ledger_changes_only_by_commit(state: MailboxState) -> None:
    """Whoever is killed before the commit has changed nothing."""
    ledger = state.load()
    ledger.taken, ledger.done, ledger.shut = 5, 3, 1
    assert (0, 0, 0) == (state.load().taken, state.load().done, state.load().shut)
    state.commit(ledger)

    again = state.load()
    for name in Ledger.__slots__:
        assert getattr(ledger, name) == getattr(again, name)


def test_log_keeps_order_and_kinds(fd: int, state: MailboxState) -> None:
    """Records of every length come out in order, first looked at, then dropped."""
    log, ledger = OverflowLog(fd, BASE), new_ledger(state)
    records = [(bytes([number]) * (number * 97), number % 3) for number in range(200)]
    for packet, kind in records:
        log.append(ledger, packet, kind)

    assert 200 == ledger.logged
    for packet, kind in records:
        assert (packet, kind) == log.first(ledger) == log.first(ledger)
        log.drop(ledger, packet)
    assert 0 == ledger.logged


def test_log_gives_memory_back(fd: int, state: MailboxState) -> None:
    """What was read is freed chunk by chunk, and an empty log keeps one chunk."""
    log, ledger = OverflowLog(fd, BASE), new_ledger(state)
    for _ in range(100):
        log.append(ledger, bytes(50_000), 0)
    full = os.fstat(fd).st_blocks
    for dropped in range(100):
        log.drop(ledger, bytes(50_000))
        if log.has_garbage(ledger):
            log.reclaim(ledger)
        assert os.fstat(fd).st_blocks * 512 <= (99 - dropped) * 50_008 + 2 * CHUNK
    log.append(ledger, b"first again", 0)

    assert full * 512 >= 100 * 50_000
    assert os.fstat(fd).st_blocks * 512 <= CHUNK + SIZE
    assert BASE == ledger.head
    assert (b"first again", 0) == log.first(ledger)


def test_an_uncommitted_record_is_overwritten(fd: int, state: MailboxState) -> None:
    """What a killed process appended and did not commit is nobody's message."""
    log = OverflowLog(fd, BASE)
    state.commit(new_ledger(state))
    log.append(state.load(), b"killed before the commit", 0)
    ledger = state.load()
    assert 0 == ledger.logged
    log.append(ledger, b"mine", 1)

    assert (b"mine", 1) == log.first(ledger)


def put(spool: Spool, ledger: Ledger, body: bytes, buffers: list[bytes]) -> bytes:
    """Put a message into the spool; return its token."""
    place = spool.find(ledger, len(body) + sum(map(len, buffers)))
    token = spool.write(place, body, buffers, memory_end=ledger.window_end)
    spool.add(ledger, token)
    return token


def test_spool_is_first_in_first_out(fd: int, state: MailboxState) -> None:
    """Messages come out as they went in, and behind the window their memory is freed."""
    spool, ledger = Spool(fd, BASE, 0), new_ledger(state)
    messages = [(bytes([n]) * 10_000 * n, [bytes([n]) * 70_000, b"", b"x"]) for n in range(1, 6)]
    tokens = [put(spool, ledger, body, buffers) for body, buffers in messages]
    for token, (body, buffers) in zip(tokens, messages, strict=True):
        got, views = spool.read(token)
        assert (body, buffers) == (bytes(got), [bytes(view) for view in views])
        before = os.fstat(fd).st_blocks
        spool.remove(ledger, token)
        spool.reclaim(ledger)
        assert os.fstat(fd).st_blocks < before

    assert os.fstat(fd).st_blocks * 512 <= 2 * SIZE
    assert BASE == spool.find(ledger, 1)


def test_spool_reuses_what_a_killed_writer_left(fd: int, state: MailboxState) -> None:
    """A message that was written and not added is overwritten; its memory is not lost."""
    spool, ledger = Spool(fd, BASE, 0), new_ledger(state)
    spool.write(spool.find(ledger, 1 << 20), bytes(1 << 20), (), memory_end=BASE)
    assert os.fstat(fd).st_blocks * 512 >= 1 << 20
    place = spool.find(ledger, 4)
    assert os.fstat(fd).st_blocks * 512 <= 2 * SIZE
    token = spool.write(place, b"mine", (), memory_end=BASE)

    assert b"mine" == bytes(spool.read(token)[0])
    assert BASE == struct.unpack_from("=Q", token)[0]


@pytest.mark.parametrize("seed", range(20))
def test_spool_s_window_is_a_circle(fd: int, state: MailboxState, seed: int) -> None:
    """Messages never overlap, also while one is written, come out in order, and reuse memory."""
    chance = random.Random(seed)
    window = 40 * mmap.PAGESIZE
    copied = 0

    def copy(target: Any, source: Any) -> None:
        nonlocal copied
        copied += len(source)
        target[:] = source

    spool, ledger = Spool(fd, BASE, window, copy if seed % 2 else None), new_ledger(state)
    spool.begin(ledger)
    waiting: list[tuple[bytes, bytes]] = []
    inside = 0
    for number in range(400):
        if waiting and chance.random() < 0.5:
            token, body = waiting.pop(0)
            assert body == bytes(spool.read(token)[0])
            spool.remove(ledger, token)
            spool.reclaim(ledger)
        body = bytes([number & 255]) * chance.randrange(1, 12 * mmap.PAGESIZE)
        place = spool.find(ledger, len(body))
        inside += spool.is_inside(place)
        token = spool.write(place, body, (), memory_end=ledger.window_end)
        # While it was written, getters went on; and sometimes its writer was killed.
        for _ in range(chance.randrange(3)):
            if waiting:
                first, wanted = waiting.pop(0)
                assert wanted == bytes(spool.read(first)[0])
                spool.remove(ledger, first)
                spool.reclaim(ledger)
        if chance.random() < 0.9:
            spool.add(ledger, token)
            waiting.append((token, body))
        for token, body in waiting:
            assert body == bytes(spool.read(token)[0])
    assert inside > 100
    assert bool(copied) is bool(seed % 2)
    for token, body in waiting:
        assert body == bytes(spool.read(token)[0])
        spool.remove(ledger, token)
        spool.reclaim(ledger)
    assert BASE == spool.find(ledger, 1)
    assert os.fstat(fd).st_blocks * 512 <= window + 2 * SIZE


def test_what_stays_in_a_cache_is_the_beginning_of_the_window(fd: int, state: MailboxState) -> None:
    """It is a circle of its own, which short messages do not leave; long ones have more of it."""
    mib = 1 << 20
    spool, ledger = Spool(fd, BASE), new_ledger(state)
    spool.begin(ledger)
    waiting: list[bytes] = []
    for _ in range(1000):
        place = spool.find_near(ledger, mib)
        if place is None:
            token = waiting.pop(0)
            spool.remove(ledger, token)
            continue
        assert BASE <= place <= BASE + 8 * mib
        token = struct.pack("=QQ", place, mib)
        spool.add(ledger, token)
        waiting.append(token)
    assert 7 <= len(waiting) <= 9
    # Others go on behind it, and it is found again as soon as there is room.
    assert spool.find(ledger, 9 * mib) >= BASE + 8 * mib
    assert spool.find_near(ledger, 9 * mib) == spool.find(ledger, 9 * mib)
    token = struct.pack("=QQ", spool.find(ledger, 30 * mib), 30 * mib)
    assert spool.is_inside(struct.unpack_from("=Q", token)[0])
    spool.add(ledger, token)
    for each in waiting:
        assert spool.find_near(ledger, 8 * mib) in (None, BASE)
        spool.remove(ledger, each)
    assert BASE == spool.find_near(ledger, 8 * mib)
    assert spool.find_near(ledger, 72 * mib) is None


def test_a_cleared_spool_begins_again(fd: int, state: MailboxState) -> None:
    """Inside the window and behind it."""
    spool, ledger = Spool(fd, BASE, 8 * mmap.PAGESIZE), new_ledger(state)
    spool.begin(ledger)
    for _ in range(5):
        put(spool, ledger, bytes(3 * mmap.PAGESIZE), [])
    spool.clear(ledger)
    spool.reclaim(ledger)
    assert BASE == spool.find(ledger, 1)
    assert os.fstat(fd).st_blocks * 512 <= 8 * mmap.PAGESIZE + 2 * SIZE
    spool.give_all_back()
    assert os.fstat(fd).st_blocks * 512 <= 2 * SIZE


def test_patience_lasts_while_messages_are_taken() -> None:
    """Naps go on for ever when receivers are quick, and cost next to nothing when not."""
    quick, idle = Patience(), Patience()
    now = slept = 0.0
    for _ in range(10_000):
        now += NAP
        assert quick.allows(now)
        quick.record(now, NAP, 100)
        if idle.allows(now):
            idle.record(now, NAP, 0)
            slept += NAP

    assert now * 0.005 < slept < 0.02 + now * 0.02


def test_patience_comes_back() -> None:
    """A nap that found receivers at work makes up for those that did not."""
    patience = Patience()
    patience.record(0.0, 1.0, 0)
    assert not patience.allows(0.001)
    assert patience.allows(1.0)
    patience.record(1.0, NAP, 100)

    assert patience.allows(1.0)
