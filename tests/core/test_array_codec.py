"""Plain numpy arrays are pickled without a pickler, and nobody can tell but by the clock."""

from __future__ import annotations

import copyreg
import pickle
import subprocess
import sys
from typing import Any

import pytest

import procession
from procession._messages.pickling import SHORTEST_BUFFER, dumps, join, loads

sends = pytest.mark.skipif(not procession.get_all_transports(), reason="no transport is installed")

numpy = pytest.importorskip("numpy")

LARGE = SHORTEST_BUFFER
PLAIN = [
    *"?bBhHiIlLqQefdgFDG",
    "<f8", ">f8", ">i2", ">c16", "S5", "U3", ">U3",
]  # fmt: skip


class Sub(numpy.ndarray):  # type: ignore[misc,name-defined]  # numpy may be missing
    """An array of another type."""


@pytest.fixture(autouse=True)
def learnt() -> None:
    """Have an array been seen: the first one is pickled by numpy."""
    dumps(numpy.zeros(1))


def is_ours(array: Any) -> bool:
    """Whether the codec writes it."""
    return dumps(array)[0][2:3] == b"("


def contents(array: Any) -> object:
    """What is in it, to compare: bytes, or objects, which are elsewhere in every copy."""
    return array.tolist() if array.dtype.hasobject else array.tobytes()


def check(array: Any) -> Any:
    """Compare with what numpy's own pickling makes of it, twice, as the second time is quick."""
    usual = pickle.loads(pickle.dumps(array, 5))
    received = None
    for _ in range(2):
        body, buffers = dumps(array)
        copies = [bytearray(buffer) for buffer in buffers]
        for received in (loads(body, copies), loads(body + b"\0", copies)):
            assert type(usual) is type(received)
            assert (usual.dtype, usual.shape, usual.strides) == (
                received.dtype,
                received.shape,
                received.strides,
            )
            assert usual.dtype.metadata == received.dtype.metadata
            assert usual.flags.writeable is received.flags.writeable
            assert usual.flags.aligned is received.flags.aligned
            assert contents(usual) == contents(received)
        by_others = pickle.loads(join(body, buffers) if buffers else body)
        assert contents(usual) == contents(by_others)
        assert usual.dtype == by_others.dtype
    return received


@pytest.mark.parametrize("dtype", PLAIN)
@pytest.mark.parametrize("length", [1, 7, LARGE])
def test_plain_types(dtype: str, length: int) -> None:
    """Numbers, bytes and text in either byte order, short and long."""
    array = numpy.frombuffer(numpy.random.default_rng(1).bytes(length * 32)[: length * 32], "u1")
    array = (array[:length] % 2).astype(dtype)
    assert is_ours(array)
    check(array)


@pytest.mark.parametrize("size", [1, 100])
def test_shapes_and_orders(size: int) -> None:
    """No, one and many dimensions; both orders; parts, which become whole."""
    base = numpy.arange(24 * size, dtype="f8").reshape(2, 3, 4 * size)
    for array in (
        numpy.array(3.5),
        base,
        numpy.asfortranarray(base),
        base.T,
        base[0],
        base[1:],
        base.reshape((1,) * 20 + base.shape),
        numpy.zeros((70_000, 1)),
    ):
        assert is_ours(array)
        received = check(array)
        received[...] = 1


def test_what_is_left_to_numpy() -> None:
    """Types whose name does not say all, what has gaps, and what must not be written to."""
    constant = numpy.arange(4)
    constant.flags.writeable = False
    for array in (
        numpy.array(["text", None], dtype=object),
        numpy.array([(1, 2.5)], dtype=[("a", "i4"), ("b", ">f8")]),
        numpy.rec.array([(1, 2.5)], names="a,b"),
        numpy.array(["2026-01-01"], dtype="M8[D]"),
        numpy.array([5], dtype="m8[ms]"),
        numpy.array([b"\0\1"], dtype="V2"),
        numpy.zeros((0, 4)),
        numpy.zeros(3, numpy.dtype("f8", metadata={"unit": "m"})),
        numpy.zeros((1,) * 32 + (3,)),
        numpy.ma.masked_array([1, 2], [True, False]),
        numpy.zeros(3).view(Sub),
        numpy.arange(100)[::3],
        numpy.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
        numpy.arange(24).reshape(2, 3, 4)[:, :, ::-1],
        constant,
        numpy.broadcast_to(constant[:1], (5,)),
    ):
        if array.ndim < 32:
            assert not is_ours(array)
        check(array)


def test_types_that_are_equal_and_not_the_same() -> None:
    """A remembered type without metadata is not taken for one with."""
    bare, annotated = numpy.dtype("f4"), numpy.dtype("f4", metadata={"unit": "m"})
    assert bare == annotated
    for dtype in (bare, annotated, bare):
        check(numpy.zeros(3, dtype))


def test_a_reducer_of_the_program_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has registered one for arrays gets it."""
    monkeypatch.setitem(copyreg.dispatch_table, numpy.ndarray, lambda array: (len, ("abc",)))
    assert 3 == loads(*dumps(numpy.zeros(9)))


@sends
def test_a_reducer_of_the_standard_package_comes_first() -> None:
    """So does who has registered one with the standard package's pickler, as PyTorch does."""
    program = (
        "import multiprocessing, numpy, procession\n"
        "from multiprocessing.reduction import ForkingPickler\n"
        "receiver, sender = procession.Pipe(False)\n"
        "sender.send(numpy.zeros(9))\n"
        "assert 9 == len(receiver.recv())\n"
        "ForkingPickler.register(numpy.ndarray, lambda array: (len, ('abc',)))\n"
        "sender.send(numpy.zeros(9))\n"
        "sender.send([numpy.zeros(100_000)])\n"
        "print(receiver.recv(), receiver.recv())\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert "3 [3]" == told.strip()


def test_more_shapes_than_are_remembered() -> None:
    """The memory for shapes is bounded, and forgetting harms nobody."""
    from procession._messages import array_codec

    for length in range(1, 700):
        check(numpy.ones(length, "u1"))
    assert len(array_codec._heads) <= array_codec._MOST_HEADS
    assert len(array_codec._meanings) <= array_codec._MOST_HEADS


def test_a_cut_message_is_an_error() -> None:
    """Less data than the head promises is never read behind their end."""
    array = numpy.zeros(100)
    check(array)
    body, _ = dumps(array)
    for end in range(3, len(body) - 3):
        with pytest.raises((pickle.UnpicklingError, EOFError, TypeError, IndexError)):
            loads(body[:end])


def test_nobody_imports_numpy_for_it() -> None:
    """A process that sends no arrays never sees numpy, nor this codec."""
    program = (
        "import sys\n"
        "from procession._messages.pickling import dumps, loads\n"
        "assert loads(*dumps({'a': [1, b'x' * 100_000]}))\n"
        "print('numpy' in sys.modules, 'procession._messages.array_codec' in sys.modules)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert "False False" == told.strip()
