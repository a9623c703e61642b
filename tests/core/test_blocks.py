"""`Blocks`: memory that is used again when nobody looks at it, and never before."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator

import pytest

from procession._messages import blocks as _blocks
from procession._messages.blocks import SMALLEST_BLOCK, Blocks
from procession.testing.forked import crew

MIB = 1 << 20


@pytest.fixture
def blocks() -> Iterator[Blocks]:
    """Blocks of this test's own, of which 32 MiB are kept."""
    blocks = Blocks(32 * MIB)
    yield blocks
    blocks.forget()  # what looks after forks keeps it


def memory_of(view: memoryview) -> int:
    """Tell one block from another."""
    return id(view.obj)


@pytest.mark.parametrize(
    "length", [0, 1, SMALLEST_BLOCK - 1, SMALLEST_BLOCK, MIB + 1, 2 * MIB, 5 * MIB + 3]
)
def test_memory_is_writable_and_as_long_as_asked(blocks: Blocks, length: int) -> None:
    """What `take` returns can be filled to its last byte."""
    view = blocks.take(length)
    assert (length, "B", False) == (len(view), view.format, view.readonly)
    view[:] = b"x" * length

    assert b"x" * length == view


def test_used_again_when_free(blocks: Blocks) -> None:
    """The same memory serves the next buffer, since it is there already."""
    view = blocks.take(4 * MIB)
    first = memory_of(view)
    del view

    assert first == memory_of(blocks.take(4 * MIB))


@pytest.mark.parametrize("size", [4 * MIB, 40 * MIB])
@pytest.mark.parametrize("keep", ["view", "part", "part of part", "array"])
def test_never_used_again_while_looked_at(blocks: Blocks, keep: str, size: int) -> None:
    """Any view of a block, however it was made, keeps its content."""
    view = blocks.take(size)
    view[:4] = b"kept"
    kept: object = view
    if keep == "part":
        kept = view[:10]
    elif keep == "part of part":
        kept = view[:100][:48].cast("I")
    elif keep == "array":
        numpy = pytest.importorskip("numpy")
        kept = numpy.frombuffer(view, dtype="u1")[:16].reshape(4, 4)
    del view
    for _ in range(20):
        other = blocks.take(size)
        other[:4] = b"new!"

    assert b"kept" == bytes(kept)[:4]  # type: ignore[call-overload]


def test_recycled_after_the_last_part_is_gone(blocks: Blocks) -> None:
    """A block comes back when its last view goes, not when its first does."""
    view = blocks.take(4 * MIB)
    first = memory_of(view)
    part = view[5:9]
    del view
    other = blocks.take(4 * MIB)
    assert first != memory_of(other)
    del part

    assert first == memory_of(blocks.take(4 * MIB))


def test_what_is_kept_is_bounded(blocks: Blocks) -> None:
    """However many and large the buffers were, little memory stays for the next ones."""
    held = [blocks.take(size * MIB) for size in (1, 3, 9, 27, 2, 40, 100, 1, 1)]
    assert blocks.kept <= 32 * MIB
    del held

    assert blocks.kept <= 32 * MIB


def test_number_of_blocks_is_bounded() -> None:
    """Many short blocks do not pile up either."""
    blocks = Blocks(1 << 40)
    held = [blocks.take(SMALLEST_BLOCK) for _ in range(3 * _blocks.MOST_BLOCKS)]

    assert blocks.kept <= _blocks.MOST_BLOCKS * 2 * MIB
    del held


def test_dropped_blocks_are_freed(blocks: Blocks) -> None:
    """A block that is not kept is unmapped with its last view."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")

    def mapped() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * 4096

    gc.collect()
    before = mapped()
    view = blocks.take(_blocks.LONGEST_KEPT + MIB)
    assert mapped() >= before + _blocks.LONGEST_KEPT
    del view

    assert mapped() < before + 64 * MIB


def lazily_free(address: int) -> int:
    """How many bytes of the memory at *address* the system may take back."""
    with open("/proc/self/smaps") as file:
        inside = False
        for line in file:
            name = line.split()[0]
            if not name.endswith(":"):
                first, last = (int(part, 16) for part in name.split("-"))
                inside = first <= address < last
            elif inside and name == "LazyFree:":
                return int(line.split()[1]) * 1024
    raise AssertionError("there is no such memory")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("keep", ["view", "part", "array"])
def test_long_blocks_are_lent_to_the_system_between_uses(blocks: Blocks, keep: str) -> None:
    """What is longer than all that is kept is used again, and costs nothing meanwhile."""
    numpy = pytest.importorskip("numpy")
    view = blocks.take(40 * MIB)
    view[:] = b"x" * len(view)
    address = numpy.frombuffer(view, dtype="u1").ctypes.data
    kept: object = view
    if keep == "part":
        kept = view[3 * MIB :][5:].cast("B")
    elif keep == "array":
        kept = numpy.ndarray((len(view),), "u1", view)[3 * MIB :]
    del view
    assert 0 == lazily_free(address)
    other = blocks.take(40 * MIB)
    other[:] = b"y" * len(other)
    assert bytes(kept) == b"x" * len(bytes(kept))  # type: ignore[call-overload]
    del other
    del kept
    assert 0 == blocks.kept
    assert lazily_free(address) >= 38 * MIB

    views = [blocks.take(39 * MIB) for _ in range(2)]
    assert address in [numpy.frombuffer(view, dtype="u1").ctypes.data for view in views]
    for number, view in enumerate(views):
        view[:] = bytes([number]) * len(view)
    assert [bytes([number]) * 39 * MIB for number in range(2)] == views
    assert 0 == lazily_free(address)


def test_few_long_blocks_are_kept(blocks: Blocks) -> None:
    """Those in use are not given away; when they come back, most of them go."""
    held = [blocks.take(40 * MIB) for _ in range(5)]
    for number, view in enumerate(held):
        view[:4] = bytes([number]) * 4
    assert [bytes([number]) * 4 for number in range(5)] == [bytes(view[:4]) for view in held]
    assert not blocks._long
    del held, view
    assert len(blocks._long) <= _blocks.MOST_LONG
    assert not blocks._watches


def test_a_forked_child_keeps_no_long_block(blocks: Blocks) -> None:
    """It would be the parent's, and be touched twice."""
    view = blocks.take(40 * MIB)
    view[:4] = b"mine"
    blocks.take(40 * MIB)

    def child() -> None:
        nonlocal view
        assert not blocks._long
        other = blocks.take(40 * MIB)
        other[:4] = b"new!"
        assert b"mine" == bytes(view[:4])
        del view
        assert not blocks._long

    with crew() as fork:
        assert 0 == fork(child).join()


def test_a_long_block_is_not_spent_on_a_short_buffer(blocks: Blocks) -> None:
    """A short buffer that is kept must not keep a long block."""
    view = blocks.take(16 * MIB)
    long = memory_of(view)
    del view

    assert long != memory_of(blocks.take(MIB))


def test_oldest_goes_first(blocks: Blocks) -> None:
    """When all that is kept is in use, new blocks are seen coming back, not old ones."""
    held = [blocks.take(10 * MIB) for _ in range(5)]
    newest = memory_of(held[-1])
    del held[-1]

    assert newest == memory_of(blocks.take(10 * MIB))


def test_threads_never_share_a_block(blocks: Blocks) -> None:
    """Two threads that take at once get different memory."""
    wrong = []

    def work(number: int) -> None:
        for _ in range(300):
            view = blocks.take(SMALLEST_BLOCK)
            view[:8] = number.to_bytes(8, "little")
            view[-8:] = number.to_bytes(8, "little")
            if view[:8] != view[-8:] or view[:8] != number.to_bytes(8, "little"):
                wrong.append(number)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert [] == wrong


def test_forked_child_has_its_own(blocks: Blocks) -> None:
    """An array stays as it was in a forked child, whatever the parent receives, and
    the parent's in the child."""
    if sys.platform == "win32":
        pytest.skip("needs fork")
    import os

    view = blocks.take(MIB)
    view[:6] = b"before"
    asked, answer = os.pipe(), os.pipe()

    def child() -> None:
        view[6:11] = b"child"
        os.write(answer[1], b"!")
        os.read(asked[0], 1)
        assert b"beforechild" == bytes(view[:11])
        assert 0 == _blocks.blocks.kept

    _blocks.blocks.take(MIB)
    with crew() as fork:
        process = fork(child)
        os.read(answer[0], 1)
        assert b"child" != bytes(view[6:11])
        view[:6] = b"parent"
        os.write(asked[1], b"!")
        assert 0 == process.join()
    for fd in (*asked, *answer):
        os.close(fd)


def test_no_memory() -> None:
    """What no machine has is an ordinary error."""
    with pytest.raises((MemoryError, OSError, OverflowError)):
        Blocks().take(1 << 62)
