"""What cannot be pickled is found, named by its path, and said in the place that raised it."""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import threading
import time
from collections import OrderedDict, namedtuple
from typing import Any

import pytest

import procession
from procession._choosing import selection
from procession._ground import unpicklable
from procession.errors import MaybeEncodingError
from procession.testing import serialized
from procession.testing.serialized import Holder, Slotted, adder

LOCK = threading.Lock()
Point = namedtuple("Point", "x y")


def notes(error: BaseException) -> list[str]:
    """Return the notes of *error*."""
    return list(getattr(error, "__notes__", ()))


def path(obj: Any) -> str:
    """Return the path that sending *obj* is said to have failed at."""
    receiver, sender = procession.Pipe(duplex=False)
    with receiver, sender, pytest.raises(Exception, match=r"pickle|wild") as caught:
        sender.send(obj)
    first, *_ = notes(caught.value)
    return first.removeprefix("what cannot be pickled is ").partition(": ")[0]


class WithState:
    """Says itself what is to be pickled."""

    def __getstate__(self) -> Any:
        """Return no mapping."""
        return [1, LOCK]

    def __setstate__(self, state: Any) -> None:
        """Take nothing."""


def node() -> Holder:
    """Return an object that refers to itself through another one."""
    top = Holder(None)
    top.callback = [Holder(top), LOCK]
    return top


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (LOCK, "obj"),
        ([1, 2, LOCK], "obj[2]"),
        ((1, {"a": {"b": [LOCK]}}), "obj[1]['a']['b'][0]"),
        ({LOCK: 1}, f"obj.keys()[{LOCK!r}]"),
        ({adder: 1, "x": {1, LOCK}}, f"obj['x'][{LOCK!r}]"),
        (Holder(Holder(LOCK)), "obj.callback.callback"),
        (Slotted([LOCK]), "obj.inner[0]"),
        (Point(1, LOCK), "obj[1]"),
        (OrderedDict(a=1, b=LOCK), "obj['b']"),
        (functools.partial(print, 1, sep=LOCK), "obj.keywords['sep']"),
        (functools.partial(adder(1)), "obj.func"),
        (Holder(LOCK).get, "obj.__self__.callback"),
        (ValueError("x", LOCK), "obj.args[1]"),
        (WithState(), "obj.__getstate__()[1]"),
        (node(), "obj.callback[1]"),
        ([serialized.Wild()], "obj[0]"),
        (sys, "obj"),
        ([list(range(5000)), *[{"k": n} for n in range(5000)], {"k": LOCK}], "obj[5001]['k']"),
    ],
)
def test_path(obj: Any, expected: str) -> None:
    """Through containers, attributes, slots, arguments and what a class says of itself."""
    assert expected == path(obj)


def test_arguments_of_a_process() -> None:
    """A process names its arguments as it was given them."""
    ctx = procession.get_context("spawn")

    def error(**given: Any) -> str:
        process = ctx.Process(**given)
        with pytest.raises((AttributeError, TypeError)) as caught:
            process.start()
        return notes(caught.value)[0].partition(": ")[0].rpartition(" ")[2]

    assert "target" == error(target=adder(1))
    assert "args[1].callback" == error(target=print, args=(1, Holder(adder(1))))
    assert "kwargs['file']" == error(target=print, kwargs={"file": LOCK})


def test_attributes_of_a_process() -> None:
    """A process of a class of its own may have anything as an attribute."""
    receiver, sender = procession.Pipe(duplex=False)
    with receiver, sender, procession.use(start_method="spawn"):
        process = serialized.Callback(adder(1), sender)
        with pytest.raises(AttributeError) as caught:
            process.start()

    assert notes(caught.value)[0].startswith("what cannot be pickled is self.callback: <function")


def test_queues() -> None:
    """All kinds of queues."""
    for queue in (procession.Queue(), procession.SimpleQueue(), procession.JoinableQueue()):
        with pytest.raises(TypeError) as caught:
            queue.put((1, [LOCK]))
        assert "what cannot be pickled is obj[1][0]: <unlocked" in notes(caught.value)[0]
        queue.close()


def test_pools() -> None:
    """A pool's functions, arguments and results, by the names of the call."""
    with procession.Pool(1) as pool:
        for call, expected in (
            (lambda: pool.apply(adder(1), (1,)), "func"),
            (lambda: pool.apply(print, (1,), {"file": LOCK}), "kwds['file']"),
            (lambda: pool.map(abs, [*range(9), Holder(LOCK)], 4), "iterable[9].callback"),
            (lambda: pool.starmap(print, [(1,), (2, LOCK)]), "iterable[1][1]"),
        ):
            with pytest.raises((AttributeError, TypeError)) as caught:
                call()
            assert notes(caught.value)[0].startswith(f"what cannot be pickled is {expected}: ")
        with pytest.raises(MaybeEncodingError) as failed:
            pool.map(adder, [1])
        assert "what cannot be pickled is result[0]: <function" in notes(failed.value)[0]


def test_a_serializer_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    """For functions and classes: that it is there, or how to install it. Not for anything else."""

    def suggestion(obj: Any) -> list[str]:
        queue = procession.SimpleQueue()
        with pytest.raises((AttributeError, TypeError)) as caught:
            queue.put(obj)
        queue.close()
        return notes(caught.value)[1:]

    pytest.importorskip("procession_cloudpickle")
    (note,) = suggestion(adder(1))
    assert note.endswith(": procession.set_serializer('cloudpickle')")
    assert suggestion([LOCK]) == []

    registry = selection.registry()
    monkeypatch.setattr(registry, "names", lambda kind: ["pickle"])
    note = unpicklable._suggestion()
    assert ": pip install procession-cloudpickle, and procession.set_serializer" in note


def test_the_error_is_the_same() -> None:
    """Its class and its text are what programs look at; and nothing of the message was sent."""
    queue = procession.Queue()
    with pytest.raises(TypeError) as caught:
        queue.put(LOCK)
    with pytest.raises(ValueError, match="wild") as wild:
        queue.put(serialized.Wild())

    assert ("cannot pickle '_thread.lock' object",) == caught.value.args
    assert "wild things cannot be pickled" == str(wild.value)
    assert 0 == queue.qsize()
    queue.close()


def test_the_search_hands_nothing_over() -> None:
    """Connections and queues beside the culprit are passed by: no descriptor is promised."""
    queue = procession.Queue()
    inner, other = procession.Pipe()
    with inner, other:
        before = len(os.listdir("/proc/self/fd"))
        search = unpicklable._Search(None, None)
        search.go([("obj", [inner, other, queue, LOCK])])
        assert "obj[3]" == search.path
        assert before == len(os.listdir("/proc/self/fd"))
    queue.close()


def test_the_search_offers_nothing_to_the_standard_package() -> None:
    """Its connections would be duplicated, for somebody who never comes for them."""
    theirs = multiprocessing.Pipe()
    receiver, sender = procession.Pipe(duplex=False)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(AttributeError) as caught:
            sender.send([{"k": [1, 2, adder(1)]}, theirs[0], 3])
        assert "obj[0]['k'][2]" in notes(caught.value)[0]
    assert before == len(os.listdir("/proc/self/fd"))
    for end in (*theirs, receiver, sender):
        end.close()


def test_a_search_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has to wait too long for the place is told how far the search has come."""

    class Slow:
        def __reduce__(self) -> Any:
            deadline = time.monotonic() + 0.05
            while time.monotonic() < deadline:
                pass
            raise TypeError("slow, and cannot be pickled")

    monkeypatch.setattr(unpicklable, "SECONDS", 0.07)
    assert path([[[[[Slow()]]]]]).startswith("obj")


def test_shortage_is_not_explained() -> None:
    """That descriptors have run out is not about what was to be pickled."""

    class Short:
        def __reduce__(self) -> Any:
            raise OSError(24, "too many open files")

    queue = procession.SimpleQueue()
    with pytest.raises(OSError, match="too many") as caught:
        queue.put(Short())
    queue.close()

    assert notes(caught.value) == []
