"""`get(lease=True)`, `lease` and `put_empty`: arrays that a queue does not copy."""

from __future__ import annotations

import queue as queue_module
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from procession.errors import LeaseWarning
from procession.testing import queueing

numpy = pytest.importorskip("numpy")

DEADLINE = 30.0
SIZE = 1 << 17
Make = Callable[..., Any]
transports = pytest.mark.one_pair_per("transport")
pytestmark = pytest.mark.beyond("multiprocessing has no leases")


@pytest.fixture
def lending(queue: Make) -> Any:
    """A queue from which somebody has asked for a lease."""
    items = queue()
    with pytest.raises(queue_module.Empty):
        items.get(block=False, lease=True)
    return items


@transports
def test_objects_are_the_same_with_and_without(lending: Any) -> None:
    """Arrays of all kinds, in what they are sent in, small and large, and what is none."""
    constant = numpy.arange(SIZE)
    constant.flags.writeable = False
    for obj in (
        numpy.arange(SIZE, dtype="f8").reshape(1024, -1),
        numpy.asfortranarray(numpy.ones((300, 1000))),
        numpy.zeros(SIZE, dtype=[("a", "i4"), ("b", "f8")]),
        constant,
        numpy.arange(9),
    ):
        lending.put({"array": obj, "many": [obj, "text", bytearray(SIZE)]})
        lending.put(obj)
        message = lending.get(timeout=DEADLINE, lease=True)
        for array in (
            message["array"],
            message["many"][0],
            lending.get(timeout=DEADLINE, lease=True),
        ):
            assert obj.dtype == array.dtype
            assert obj.flags.writeable is array.flags.writeable
            assert numpy.array_equal(obj, array)
        assert "text" == message["many"][1]
        assert bytes(SIZE) == bytes(message["many"][2])
    for other in (None, "text", b"b" * SIZE):
        lending.put(other)
        assert other == lending.get(timeout=DEADLINE, lease=True)


@transports
def test_a_block_ends_the_lease(lending: Any) -> None:
    """With a view that is kept it cannot, and says what to do; the view stays good."""
    lending.put(numpy.ones(SIZE))
    with lending.lease(timeout=DEADLINE) as lease:
        assert float(SIZE) == lease.object.sum()
        assert lease.in_place is ("in place" in repr(lease))
        lent = lease.in_place
    with pytest.raises(ValueError, match="released"):
        lease.object  # noqa: B018
    assert "released" in repr(lease)
    lease.release()

    lending.put(numpy.ones(SIZE))
    kept: list[Any] = []
    expected = pytest.raises(BufferError, match="del the names") if lent else nullcontext()
    with expected, lending.lease(timeout=DEADLINE) as lease:
        kept.append(lease.object[5:9])
    assert [1.0] * 4 == kept[0].tolist()


@transports
def test_an_exception_in_the_block_comes_out_of_it(lending: Any) -> None:
    """And not the error that its own traceback still looks at the array."""
    lending.put(numpy.ones(SIZE))

    def look() -> None:
        with lending.lease(timeout=DEADLINE) as lease:
            array = lease.object
            raise KeyError(int(array[0]))

    with pytest.raises(KeyError):
        look()
    with pytest.raises(queue_module.Empty), lending.lease(block=False):
        pass


@transports
def test_an_array_is_filled_in_place(lending: Any) -> None:
    """It is put at the end of the block, and cannot be written to afterwards."""
    for shape, dtype in (((1000, 300), "f4"), (SIZE, "u1"), (3, "i8"), ((), float), ((0, 4), int)):
        with lending.put_empty(shape, dtype, timeout=DEADLINE) as array:
            array[...] = 7
            assert 0 == lending.qsize()
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 8
        for lease in (False, True):
            got = lending.get(timeout=DEADLINE, lease=lease)
            assert (numpy.dtype(dtype), array.shape) == (got.dtype, got.shape)
            assert numpy.array_equal(array, got)
            assert got.flags.writeable
            lending.put(got)
        lending.get(timeout=DEADLINE)


@transports
def test_what_is_not_filled_is_not_put(lending: Any, queue: Make) -> None:
    """An exception in the block, a queue that is full or closed, what no array can be of."""
    with pytest.raises(KeyError), lending.put_empty(SIZE):
        raise KeyError
    assert 0 == lending.qsize()
    for shape, dtype, error, message in (
        (3, object, TypeError, "references"),
        (-3, float, ValueError, "negative"),
        (3, "no such type", TypeError, "no such type"),
    ):
        with pytest.raises(error, match=message):
            lending.put_empty(shape, dtype)
    full = queue(1)
    full.put(1)
    with pytest.raises(queue_module.Full), full.put_empty(SIZE, block=False) as array:
        array[:] = 1
    full.close()
    with pytest.raises(ValueError, match="closed"):
        full.put_empty(SIZE)
    with pytest.raises(ValueError, match="closed"):
        full.lease()
    with pytest.raises(ValueError, match="closed"):
        full.get(lease=True)


def test_the_memory_of_a_killed_holder_is_used_again(lending: Any, pipe: Make, start: Make) -> None:
    """On every pair: a consumer that is killed with a lease keeps nothing."""
    ours, theirs = pipe()
    process = start(queueing.hold, lending, theirs)
    for number in range(3):
        lending.put(numpy.full(SIZE, number, "u1"))
        if not number:
            assert 0 == ours.recv()
    process.kill()
    process.join(DEADLINE)
    for number in range(1, 3):
        assert number == lending.get(timeout=DEADLINE, lease=True)[0]
    for number in range(100):
        lending.put(numpy.full(SIZE, number, "u1"))
        assert number == lending.get(timeout=DEADLINE, lease=True)[-1]


@transports
def test_the_warning_is_about_the_line_that_puts(lending: Any) -> None:
    """Who is warned that everything is lent sees where; the object arrives all the same."""
    lending.put(numpy.ones(SIZE))
    kept = lending.get(timeout=DEADLINE, lease=True)
    lending._mailbox.lend_at_most(kept.nbytes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LeaseWarning)
        lending.put(numpy.zeros(SIZE))
    assert not lending.get(timeout=DEADLINE, lease=True).any()
    assert [__file__] * len(caught) == [each.filename for each in caught]
    assert kept.all()


@transports
def test_other_serializers_and_reducers(lending: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes something else of an array has its way, also with one that was filled in place."""
    import copyreg

    monkeypatch.setitem(copyreg.dispatch_table, numpy.ndarray, lambda array: (len, ("abc",)))
    with lending.put_empty(SIZE) as array:
        array[:] = 1
    assert 3 == lending.get(timeout=DEADLINE, lease=True)
