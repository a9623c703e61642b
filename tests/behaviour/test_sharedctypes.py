"""Values and arrays of C types in shared memory: what they are, and that they are shared."""

from __future__ import annotations

import copy
import ctypes
import gc
import importlib
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from procession.testing import shared_payloads
from procession.testing.shared_payloads import Point, Triple

Make = Callable[..., Any]
per_method = pytest.mark.one_pair_per("method")
handing_over = pytest.mark.usefixtures("warm_handing_over")
DEADLINE = 30.0


@pytest.fixture(scope="module", autouse=True)
def warm_heap(subject: str) -> None:
    """Let the reference make the arena that it keeps for good."""
    if subject == "multiprocessing":
        importlib.import_module(subject).RawValue("i")


@pytest.fixture(autouse=True)
def nothing_allocated(nothing_left_behind: None) -> Iterator[None]:
    """Collect what a failed assertion or a cycle keeps, before descriptors are compared."""
    yield
    gc.collect()


@pytest.fixture
def types(subject: str) -> Any:
    """The module `sharedctypes` of the package under test."""
    return importlib.import_module(f"{subject}.sharedctypes")


@pytest.fixture
def ctx(library: Any) -> Any:
    """The package itself; the tests that start processes ask for a pair."""
    return library


class Lock:
    """A lock that counts how often it was taken."""

    def __init__(self) -> None:
        self.taken = 0
        self.held = False

    def acquire(self) -> bool:
        assert not self.held
        self.held = True
        self.taken += 1
        return True

    def release(self) -> None:
        assert self.held
        self.held = False

    __enter__ = acquire

    def __exit__(self, *error: object) -> None:
        self.release()


@pytest.mark.parametrize(
    ("code", "value", "kind"),
    [
        ("c", b"x", ctypes.c_char),
        ("u", "é", ctypes.c_wchar),
        ("b", -5, ctypes.c_byte),
        ("B", 250, ctypes.c_ubyte),
        ("h", -500, ctypes.c_short),
        ("H", 50_000, ctypes.c_ushort),
        ("i", -(2**31), ctypes.c_int),
        ("I", 2**32 - 1, ctypes.c_uint),
        ("l", -(2**31), ctypes.c_long),
        ("L", 2**32 - 1, ctypes.c_ulong),
        ("q", -(2**63), ctypes.c_longlong),
        ("Q", 2**64 - 1, ctypes.c_ulonglong),
        ("f", 0.5, ctypes.c_float),
        ("d", 1e300, ctypes.c_double),
    ],
)
def test_type_codes(ctx: Any, types: Any, code: str, value: Any, kind: Any) -> None:
    """Every type code stands for its C type, in values and in arrays."""
    assert types.typecode_to_type[code] is kind
    raw = ctx.RawValue(code, value)
    assert (value, type(raw)) == (raw.value, kind)
    array = ctx.RawArray(code, [value] * 3)
    assert [value] * 3 == list(array)
    assert isinstance(array, ctypes.Array)
    assert not any(bytes(ctx.RawArray(kind, 5)))


@pytest.mark.parametrize("wrong", ["z", 3, object])
@pytest.mark.parametrize("factory", ["RawValue", "Value"])
def test_not_a_type(ctx: Any, factory: str, wrong: object) -> None:
    """What has no size in C is refused as multiprocessing refuses it."""
    with pytest.raises(TypeError, match="this type has no size"):
        getattr(ctx, factory)(wrong)
    with pytest.raises(TypeError):
        ctx.RawArray(wrong, 3)


def test_arguments_that_do_not_fit(ctx: Any) -> None:
    """The errors are those of ctypes."""
    with pytest.raises(TypeError):
        ctx.RawValue("i", "x")
    with pytest.raises(TypeError, match="at most 1 argument"):
        ctx.RawValue("i", 1, 2)
    with pytest.raises(ValueError, match="Array length must be >= 0"):
        ctx.RawArray("i", -1)
    with pytest.raises(TypeError):
        ctx.RawArray("i", None)
    with pytest.raises(OverflowError):
        ctx.RawArray("i", 2**62)
    with pytest.raises(IndexError, match="invalid index"):
        ctx.RawArray("i", 3)[3]


@pytest.mark.parametrize("factory", ["Value", "Array"])
def test_not_a_lock(ctx: Any, factory: str) -> None:
    """A wrong lock is an AttributeError that names the method."""
    with pytest.raises(AttributeError, match="3 has no method 'acquire'"):
        getattr(ctx, factory)("i", 3, lock=3)


def test_without_a_lock(ctx: Any) -> None:
    """``lock=False`` gives the ctypes objects themselves."""
    assert isinstance(ctx.Value("i", 5, lock=False), ctypes.c_int)
    assert isinstance(ctx.Array("i", 5, lock=False), ctypes.Array)


def test_value_takes_its_lock(ctx: Any) -> None:
    """Every access takes the lock once; `get_lock` and `get_obj` give the parts."""
    lock = Lock()
    value = ctx.Value("i", 3, lock=lock)
    value.value = value.value + 1

    assert (4, lock) == (value.get_obj().value, value.get_lock())
    assert (lock.taken, lock.held) == (2, False)
    with value:
        assert lock.held
        assert value.get_obj().value == 4
    value.acquire()
    value.release()
    assert (lock.taken, lock.held) == (4, False)
    assert "<Synchronized wrapper for c_int(4)>" == repr(value)
    with pytest.raises(TypeError):
        value.value = "x"
    assert not lock.held


def test_array_takes_its_lock(ctx: Any) -> None:
    """An array has a length, items and slices."""
    lock = Lock()
    array = ctx.Array("i", [1, 2, 3], lock=lock)
    array[0] = array[2]
    array[1:3] = [8, 9]

    assert ([3, 8, 9], 3) == (array[:], len(array))
    assert [3, 8, 9] == list(array)
    assert (8, 9) == tuple(array.__getslice__(1, 3))
    array.__setslice__(0, 2, [5, 5])
    assert [5, 5, 9] == array.get_obj()[:]
    assert repr(array).startswith("<SynchronizedArray wrapper for <")
    with pytest.raises(IndexError, match="invalid index"):
        array[3]
    with pytest.raises(ValueError, match="same size"):
        array[0:2] = [1]
    assert not lock.held


def test_bytes_have_value_and_raw(ctx: Any) -> None:
    """An array of characters is a string up to its first zero byte, and all its bytes."""
    text = ctx.Array("c", b"hello", lock=Lock())
    text.value = b"ab"

    assert (b"ab", b"ab\0lo", b"ab\0lo") == (text.value, text.raw, text[:])
    text.raw = b"12345"
    assert b"12345" == text.value
    with pytest.raises(ValueError, match="too long"):
        text.value = b"123456"
    assert repr(text).startswith("<SynchronizedString wrapper for <")


def test_structures(ctx: Any, types: Any) -> None:
    """A structure's wrapper has its fields; classes are made once per type."""
    point = ctx.Value(Point, 1, 2.5, lock=Lock())
    point.x = point.x + 6

    assert (7, 2.5) == (point.x, point.y)
    assert (7, 2.5) == (point.get_obj().x, point.get_obj().y)
    assert "SynchronizedPoint" == type(point).__name__
    assert isinstance(point, types.SynchronizedBase)
    assert type(point) is type(ctx.Value(Point, lock=Lock()))
    points = ctx.Array(Point, [(1, 2), (3, 4)], lock=Lock())
    assert [(1, 2.0), (3, 4.0)] == [(each.x, each.y) for each in points]


def test_synchronized(ctx: Any, types: Any) -> None:
    """A wrapper can be made of any ctypes object, but not of a wrapper."""
    lock = Lock()
    wrapped = types.synchronized(ctx.RawValue("d", 1.5), lock)

    assert (1.5, lock) == (wrapped.value, wrapped.get_lock())
    with pytest.raises(AssertionError, match="object already synchronized"):
        types.synchronized(wrapped)
    with pytest.raises(AttributeError, match="_fields_"):
        types.synchronized(3, lock)


@pytest.mark.parametrize(
    "original", [ctypes.c_int(4), Point(1, 2.0), (ctypes.c_int * 3)(1, 2, 3), Triple(1, 2, 3)]
)
def test_copy(types: Any, original: Any) -> None:
    """A copy has the same content and its own memory."""
    made = types.copy(original)

    assert (type(original), bytes(original)) == (type(made), bytes(made))
    ctypes.memset(ctypes.addressof(made), 0xFF, ctypes.sizeof(made))
    assert bytes(original) != bytes(made)


def test_module_copy_copies_the_value(ctx: Any) -> None:
    """`copy.copy` gives an object of its own, in memory of its own, with the same content."""
    value, array = ctx.RawValue("i", 3), ctx.RawArray("i", [1, 2])
    copies = copy.copy(value), copy.copy(array)
    copies[0].value, copies[1][0] = 9, 9

    assert (3, [1, 2]) == (value.value, array[:])
    assert (type(value), type(array)) == tuple(map(type, copies))


@pytest.mark.beyond("multiprocessing raises TypeError")
def test_deep_copies_are_of_the_value_too(ctx: Any) -> None:
    """`copy.deepcopy` does the same for whatever contains shared objects, once for each."""
    point = ctx.RawValue(Point, 1, 2)
    one, other = copy.deepcopy([point, point])
    one.x = 7

    assert one is other
    assert (1, 2.0) == (point.x, point.y)


def test_signatures_of_the_module(types: Any) -> None:
    """The module has the same names as the standard library's."""
    names = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]
    assert names == sorted(types.__all__)
    assert isinstance(types.Value("i", 5, lock=False), ctypes.c_int)
    assert isinstance(types.Array("i", 5, lock=False), ctypes.Array)
    with pytest.raises(TypeError):
        types.Array("i", 5, False)


def test_buffers(ctx: Any) -> None:
    """numpy and memoryview see the memory itself, and keep it when the array is gone."""
    numpy = pytest.importorskip("numpy")
    array = ctx.RawArray("d", 5)
    seen = numpy.frombuffer(array)
    seen[2] = 3.5
    assert [0, 0, 3.5, 0, 0] == array[:]
    other = numpy.ctypeslib.as_array(array)
    view = memoryview(array).cast("B").cast("d")
    del array
    gc.collect()
    others = [ctx.RawArray("d", [9] * 5) for _ in range(100)]
    other[4] = 1.0

    assert [0, 0, 3.5, 0, 1.0] == seen.tolist() == view.tolist()
    assert len(others) == 100
    wrapped = ctx.Array("i", 3, lock=Lock())
    assert 3 == numpy.frombuffer(wrapped.get_obj(), "i4").size


def test_parts_keep_the_memory(ctx: Any) -> None:
    """An item of an array of structures outlives the array."""
    points = ctx.RawArray(Point, [(1, 2), (3, 4)])
    part = points[1]
    del points
    gc.collect()
    others = [ctx.RawArray(Point, [(9, 9), (9, 9)]) for _ in range(100)]

    assert (3, 4.0) == (part.x, part.y)
    assert len(others) == 100


class TestAcrossProcesses:
    """What a child writes is seen here, on every start method."""

    @pytest.fixture
    def ctx(self, pair: Any) -> Any:
        """A context of each start method."""
        return pair.ctx

    @per_method
    def test_raw_objects_as_arguments(self, ctx: Any, finish: Make) -> None:
        """Values, arrays, structures, and arrays of structures."""
        value, array, point = ctx.RawValue("i"), ctx.RawArray("d", 3), ctx.RawValue(Point)
        points = ctx.RawArray(Point, 2)
        for function, *args in (
            (shared_payloads.set_value, value, 5),
            (shared_payloads.set_item, array, 2, 1.5),
            (shared_payloads.set_field, point, "y", 2.5),
            (shared_payloads.set_field_of_item, points, 1, "x", 4),
        ):
            assert 0 == finish(function, *args).exitcode

        assert (5, [0, 0, 1.5], 2.5) == (value.value, array[:], point.y)
        assert 4 == points[1].x

    @pytest.mark.beyond("multiprocessing cannot pickle such types")
    @per_method
    def test_nested_arrays_as_arguments(self, ctx: Any, finish: Make) -> None:
        """Arrays of arrays, and array types that a module has by name."""
        nested, named = ctx.RawArray(ctypes.c_int * 2, 2), ctx.RawValue(Triple)
        assert 0 == finish(shared_payloads.set_item, nested, 1, (7, 8)).exitcode
        assert 0 == finish(shared_payloads.set_item, named, 0, 9).exitcode

        assert ([0, 0], [7, 8], 9) == (nested[0][:], nested[1][:], named[0])

    @per_method
    def test_one_object_given_twice_is_one(self, ctx: Any, ask: Make) -> None:
        """Two arguments that are the same memory are the same there."""
        array = ctx.RawArray("i", 2)

        assert ask(shared_payloads.are_same_memory, array, array)
        assert 41 == array[0]

    @pytest.mark.beyond("multiprocessing shares only through inheritance")
    @handing_over
    @pytest.mark.one_pair_per("transport")
    def test_raw_objects_through_queues(
        self, ctx: Any, pipe: Make, queue: Make, start: Make
    ) -> None:
        """An array that is put into a queue is the same memory where it is taken out."""
        receiver, sender = pipe(False)
        tasks = queue()
        process = start(shared_payloads.set_received, tasks, 1, 6, sender)
        array = ctx.RawArray("i", [1, 2, 3])
        tasks.put(array)

        assert 2 == receiver.recv()
        assert [1, 6, 3] == array[:]
        process.join(DEADLINE)

    @pytest.mark.beyond("multiprocessing shares only through inheritance")
    @handing_over
    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    @pytest.mark.one_pair_per("transport")
    def test_a_hundred_objects_of_one_arena(self, ctx: Any, pipe: Make, start: Make) -> None:
        """However many messages bring objects of an arena, a process maps it once."""
        here, there = pipe()
        process = start(shared_payloads.count_arenas, there)
        for _ in range(100):
            here.send(ctx.RawValue("i", 3))
        kept = [ctx.RawValue("i", 3) for _ in range(50)]
        for value in kept:
            here.send(value)
        here.send(kept)
        here.send(None)

        assert here.recv() <= 101
        process.join(DEADLINE)

    @pytest.mark.beyond("multiprocessing shares only through inheritance")
    @handing_over
    @pytest.mark.one_pair_per("transport")
    def test_dropped_while_it_travels(self, ctx: Any, queue: Make) -> None:
        """The memory lives in the message when the sender has forgotten it."""
        tasks = queue()
        tasks.put(ctx.RawArray("i", [4, 5]))
        gc.collect()
        others = [ctx.RawArray("i", [9, 9]) for _ in range(100)]

        assert [4, 5] == tasks.get()[:]
        assert len(others) == 100

    @per_method
    def test_default_lock(self, ctx: Any, start: Make) -> None:
        """Two processes count under the recursive lock that a value comes with."""
        value = ctx.Value("i", 0)
        with value, value.get_lock():
            value.value = 5
        processes = [start(shared_payloads.increment, value, 300) for _ in range(2)]
        for process in processes:
            process.join(DEADLINE)

        assert [0, 0] == [process.exitcode for process in processes]
        assert 605 == value.value


def test_private_objects_are_pickled_as_ever(ctx: Any) -> None:
    """A ctypes object outside shared memory is copied, also when its type is shared, too."""
    shared = ctx.RawArray("i", 3), ctx.RawValue("i", 4)
    plain = pickle.loads(pickle.dumps(ctypes.c_int(7)))

    assert 7 == plain.value
    assert len(shared) == 2
