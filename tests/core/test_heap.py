"""The heap below values and arrays: packs, frees, reuses, and never mixes two owners.

``PROCESSION_HEAP_SECONDS`` sets how long the random test fills and frees (a minute shows what
three seconds may not), ``PROCESSION_SEED`` replays it.
"""

from __future__ import annotations

import gc
import os
import random
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("these tests fork, and count descriptors in /proc", allow_module_level=True)

import resource

from procession._ground.handoff import LaunchHandoff, LaunchTakeover
from procession._memory.heap import ALIGNMENT, LARGE_BLOCK, SMALLEST_ARENA, Block, heap
from procession._memory.shared_map import SharedMap
from procession.errors import ResourceError
from procession.testing import leaks
from procession.testing.forked import crew

pytestmark = pytest.mark.once

SECONDS = float(os.environ.get("PROCESSION_HEAP_SECONDS", "3"))
SIZES = [1, 8, 16, 24, 100, 1000, 5000, 40_000, LARGE_BLOCK, LARGE_BLOCK + 100]


@pytest.fixture(autouse=True)
def nothing_allocated() -> Iterator[None]:
    """What a test allocates is given back by its end, to the last descriptor."""
    gc.collect()
    before = heap.blocks, heap.arenas, heap.reserved, len(leaks.descriptors())
    yield
    gc.collect()
    assert before == (heap.blocks, heap.arenas, heap.reserved, len(leaks.descriptors()))


class Filled:
    """A block full of one number, which it can check."""

    def __init__(self, size: int, number: int) -> None:
        self.block = heap.allocate(size)
        self.number = number
        with self.block.view() as view:
            assert not any(view[: min(size, 100)])
            assert not any(view[-100:])
            view[:] = bytes([number]) * size

    def check(self) -> None:
        """Fail if somebody else has written into it."""
        with self.block.view() as view:
            assert bytes([self.number]) * self.block.size == view


def test_fill_and_free_at_random() -> None:
    """Three threads fill and free, with cycles, forks, and signals that do the same."""
    seed = int(os.environ.get("PROCESSION_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"replay with PROCESSION_SEED={seed}")
    start = heap.blocks
    end = time.monotonic() + SECONDS
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        source = random.Random(seed)
        live: list[Filled] = []
        try:
            while time.monotonic() < end:
                if live and source.random() < 0.5:
                    filled = live.pop(source.randrange(len(live)))
                    filled.check()
                    if source.random() < 0.2:  # for the collector, at some time
                        cycle: list[Any] = [filled]
                        cycle.append(cycle)
                else:
                    live.append(Filled(source.choice(SIZES), source.randrange(1, 256)))
                if len(live) > 200:
                    for filled in live:
                        filled.check()
                    live.clear()
        except BaseException as error:
            failures.append(error)

    handled: list[Filled] = []

    def interrupt(number: int, frame: object) -> None:
        for filled in handled:
            filled.check()
        handled[:] = [Filled(random.choice(SIZES), 77), *handled[:3]]

    threads = [threading.Thread(target=work, args=(seed + number,)) for number in range(2)]
    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        for thread in threads:
            thread.start()
        work(seed + 2)
        for thread in threads:
            thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

    assert [] == failures
    assert len(handled) == 4
    handled.clear()
    gc.collect()
    assert start == heap.blocks


def test_blocks_are_aligned_and_packed() -> None:
    """A double lies where the processor wants it, and a thousand numbers in one arena."""
    arenas = heap.arenas
    blocks = [heap.allocate(size) for size in [1, 3, 8, 15, 16, 17] * 200]

    assert {0} == {block.start % ALIGNMENT for block in blocks}
    assert heap.arenas - arenas <= 2
    places = sorted((id(block.map), block.start, block.size) for block in blocks)
    for (map, start, size), (next_map, next_start, _) in pairwise(places):
        assert map != next_map or start + size <= next_start


def test_memory_is_used_again_and_cleared() -> None:
    """What nobody else has seen is given out again, all zero."""
    first = heap.allocate(64)
    keep = heap.allocate(16)
    with first.view() as view:
        view[:] = b"x" * 64
    place = first.map, first.start
    del first
    again = heap.allocate(64)

    assert place == (again.map, again.start)
    assert bytes(64) == again.view()
    assert keep.map is again.map


def test_freed_neighbours_become_one_piece() -> None:
    """Fragments join: a hundred small ones make room for a large one."""
    small = [heap.allocate(256) for _ in range(100)]
    guard = heap.allocate(16)
    arenas = heap.arenas
    random.Random(1).shuffle(small)
    del small[:]
    large = heap.allocate(100 * 256)

    assert arenas == heap.arenas
    assert guard.map is large.map


def test_empty_arenas_are_given_back() -> None:
    """Memory and descriptors go as soon as the last block is gone."""
    before = len(leaks.descriptors()), heap.reserved
    blocks = [heap.allocate(1000) for _ in range(1000)]
    large = heap.allocate(10 << 20)
    assert before[1] + 1000 * 1000 + (10 << 20) < heap.reserved
    del blocks, large

    assert before == (len(leaks.descriptors()), heap.reserved)


def test_a_handed_over_block_is_not_used_again() -> None:
    """Another process may look at it for as long as it likes; only its arena goes."""
    keep = heap.allocate(16)
    handed = heap.allocate(64)
    start, stop = handed.start, handed.start + 64
    constructor, recipe = handed.__reduce__()
    there = constructor(*recipe)
    with there.view() as view:
        view[:] = b"y" * 64
    del handed
    others = [heap.allocate(64) for _ in range(SMALLEST_ARENA // 64)]

    assert b"y" * 64 == there.view()
    overlapping = [
        block
        for block in others
        if block.map is there.map and block.start < stop and block.start + block.size > start
    ]
    assert [] == overlapping
    assert keep.map is there.map


def test_waste_is_limited_to_arenas_in_use() -> None:
    """Handing over a block and dropping it again and again does not eat up the memory."""
    keep = heap.allocate(16)
    before = heap.reserved
    for _ in range(SMALLEST_ARENA // 16 * 4):
        heap.allocate(16).__reduce__()

    assert heap.reserved <= before + SMALLEST_ARENA
    assert keep.size == 16


def test_an_inherited_block_is_not_used_again() -> None:
    """A forked child goes on seeing its block, whatever the parent drops and allocates."""
    filled = Filled(64, 5)
    keep = heap.allocate(16)
    reader, writer = os.pipe()
    with crew() as fork:

        def child() -> None:
            os.close(writer)
            os.read(reader, 1)  # the end: the parent has done its worst
            filled.check()
            del filled.block
            Filled(64, 9).check()

        member = fork(child)
        os.close(reader)
        filled.block = keep  # the last reference to the block here
        others = [Filled(64, 6) for _ in range(SMALLEST_ARENA // 64)]
        os.close(writer)
        assert 0 == member.join()
    for other in others:
        other.check()


def test_parent_and_child_allocate_apart() -> None:
    """After a fork both allocate and free at will, and neither sees the other's."""
    kept = [Filled(40, 1) for _ in range(50)]

    def work(number: int) -> None:
        for filled in kept:
            filled.check()
        mine = [Filled(size, number) for size in SIZES * 20]
        for filled in mine:
            filled.check()
        if number == 2:
            failed: list[object] = []
            sys.unraisablehook = failed.append
            arenas = heap.arenas
            kept.clear()  # inherited: freeing it here frees nothing of the parent's
            assert arenas == heap.arenas
            assert [] == failed
        del mine
        for filled in kept:
            filled.check()

    with crew() as fork:
        member = fork(lambda: work(2))
        work(3)
        assert 0 == member.join()


def test_fork_while_other_threads_allocate() -> None:
    """The child's heap works, whoever held the lock and in the middle of what."""
    stop = threading.Event()

    def churn() -> None:
        live: list[Block] = []
        while not stop.is_set():
            live.append(heap.allocate(random.choice([16, 500, 3000])))
            if len(live) > 50:
                live.clear()

    def fill() -> None:
        for _ in range(20):
            Filled(100, 3).check()

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        with crew() as fork:
            for _ in range(40):
                member = fork(fill)
                assert 0 == member.join()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


class Allocating:
    """Takes memory when it is finalized."""

    partner: Writing

    def __init__(self, others: list[Block]) -> None:
        self.others = others

    def __del__(self) -> None:
        self.others += [heap.allocate(64) for _ in range(5)]


class Writing:
    """Writes to its memory when it is finalized."""

    def __init__(self, memory: Any, partner: Allocating) -> None:
        self.memory = memory
        self.partner = partner
        partner.partner = self  # a cycle

    def __del__(self) -> None:
        self.memory.raw = b"z" * 64


def test_finalizers_of_a_cycle_still_have_their_memory() -> None:
    """A block is free only when nothing can write to it any more, also not a finalizer."""
    import ctypes

    others: list[Block] = []
    keep = heap.allocate(16)
    for _ in range(5):
        # In this order, in which the collector finalizes them: were the block freed with
        # them, the second would be given the memory that the third writes to.
        block = heap.allocate(64)
        memory: Any = (ctypes.c_char * 64).from_buffer(block.view())
        memory.block = block
        Writing(memory, Allocating(others))
        del block, memory
        gc.collect()
        assert len(others) == 5
        for other in others:
            assert bytes(64) == other.view()
        del other
        others.clear()
    assert keep.size == 16


def test_interrupted_at_every_line() -> None:
    """A handler or finalizer may allocate and free in the middle of an allocation."""
    inner: list[Filled] = []
    interruptions = 0

    def interrupt(frame: Any, event: str, argument: object) -> Any:
        nonlocal interruptions
        if frame.f_code.co_filename != heap.allocate.__code__.co_filename:
            return None
        interruptions += 1
        # Not each time: what is freed has to be worked off faster than it comes.
        if not interruptions % 29:
            inner.append(Filled(48, 7))
        if len(inner) > 5:
            inner.pop(0).check()
        return interrupt

    outer: list[Filled] = []
    blocks = heap.blocks
    previous = sys.gettrace()
    sys.settrace(interrupt)
    try:
        for round in range(300):
            outer.append(Filled(48 + 16 * (round % 7), 8))
            if round % 3:
                outer.pop(round % len(outer)).check()
    finally:
        sys.settrace(previous)
    for filled in outer + inner:
        filled.check()

    assert interruptions > 3000
    assert blocks + len(outer) + len(inner) == heap.blocks


def test_views_keep_the_memory() -> None:
    """A view outlives the block's arena, and even the heap's record of it."""
    block = heap.allocate(LARGE_BLOCK)
    view = block.view()
    view[:3] = b"abc"
    del block

    assert b"abc" == bytes(view[:3])
    view.release()


def test_an_arena_is_attached_once() -> None:
    """What comes to a process twice is mapped once: same object, no descriptor more."""
    original = SharedMap(100)
    handoff = LaunchHandoff()
    recipes = [original.export(handoff) for _ in range(2)]
    descriptors = [os.dup(fd) for fd in handoff.descriptors]
    takeover = LaunchTakeover(descriptors)
    before = len(leaks.descriptors())
    assert original is SharedMap.attach(recipes[0], takeover)
    assert before == len(leaks.descriptors())
    takeover.close()

    assert before == len(leaks.descriptors()) + 2


def test_memory_cannot_be_cut_off() -> None:
    """Nobody who gets the descriptor can shorten the file, which would kill the others."""
    shared = SharedMap(8192)
    handoff = LaunchHandoff()
    shared.export(handoff)

    with pytest.raises(PermissionError):
        os.ftruncate(handoff.descriptors[0], 0)


def test_no_more_descriptors() -> None:
    """The error names the resource and its limit, and the heap works on afterwards."""

    def child() -> None:
        keep = [heap.allocate(16)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(leaks.descriptors()) + 4,) * 2)
        with pytest.raises(ResourceError, match=r"open files \(RLIMIT_NOFILE is"):
            keep += [heap.allocate(LARGE_BLOCK) for _ in range(20)]
        Filled(100, 1).check()
        del keep[1:]
        Filled(LARGE_BLOCK, 1).check()

    with crew() as fork:
        assert 0 == fork(child).join()


@pytest.mark.parametrize(
    ("limit", "words"),
    [(resource.RLIMIT_FSIZE, "RLIMIT_FSIZE is"), (resource.RLIMIT_AS, "RLIMIT_AS is")],
)
def test_limits_of_memory(limit: int, words: str) -> None:
    """Memory that a limit denies is an error that says so, and nothing stays reserved."""

    def child() -> None:
        in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: SIM115
        most = (1 << 20) if limit == resource.RLIMIT_FSIZE else in_use + (50 << 20)
        resource.setrlimit(limit, (most, most))
        before = heap.reserved
        with pytest.raises(ResourceError, match=words):
            heap.allocate(100 << 20)
        assert before == heap.reserved
        Filled(100, 1).check()

    with crew() as fork:
        assert 0 == fork(child).join()


def test_more_than_the_machine_has() -> None:
    """It is refused before the kernel has to kill somebody."""
    with pytest.raises(ResourceError, match="can be had") as caught:
        heap.allocate(1 << 46)
    assert caught.value.errno == 12


def test_signals_do_not_stop_a_long_reservation() -> None:
    """A signal undoes the reservation of one piece, never of the whole."""
    previous = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        block = heap.allocate(200 << 20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert 200 << 20 == block.size


def test_killed_while_allocating_and_holding() -> None:
    """Children killed at any moment leave nothing, and the parent's memory is as it was."""
    source = random.Random(7)
    mine = [Filled(size, 11) for size in SIZES]

    def churn() -> None:
        live: list[Filled] = []
        os.write(writer, b"x")
        while True:
            live.append(Filled(source.choice(SIZES), 12))
            if len(live) > 30:
                live.clear()

    with crew() as fork:
        for _ in range(30):
            reader, writer = os.pipe()
            member = fork(churn)
            os.close(writer)
            assert b"x" == os.read(reader, 1)
            os.close(reader)
            select.select([], [], [], source.random() / 50)
            member.kill()
            for filled in mine:
                filled.check()
            Filled(source.choice(SIZES), 13).check()
