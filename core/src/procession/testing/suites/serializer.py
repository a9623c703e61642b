"""What every serializer promises."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

import io
import pickle
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

import procession
from procession._choosing import selection
from procession._contracts.serializer import Serializer
from procession._messages.pickling import SHORTEST_BUFFER
from procession.errors import NoPluginError
from procession.testing import payloads
from procession.testing.forked import DEADLINE
from procession.testing.suites.over_pairs import use_once
from procession.testing.suites.suite import Declined, Fork, Suite

_PROTOCOL = 5
#: Opens the pickle of a function in an interpreter that knows nothing of us, and calls it.
_OPEN = "import pickle, sys; print(pickle.load(sys.stdin.buffer)(20))"

_OBJECTS: list[Any] = [
    *(None, True, 42, 1.5, 3j, "text", b"bytes", bytearray(b"more")),
    *([1, [2, []]], (1, (2,)), {"k": {1: "v"}}, {1, 2}, frozenset({3}), range(9)),
    *(ValueError("wrong"), payloads.nothing, payloads.Reference, len),
]


class Buffered:
    """Has one out-of-band buffer."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the class and its buffer."""
        return bytearray, (pickle.PickleBuffer(self.memory),)


class SerializerSuite(Suite):
    """The contract of a serializer. Override the fixture `serializer`: it returns the class."""

    @pytest.fixture
    def serializer(self) -> type[Serializer]:
        """The class of the serializer under test. Override this."""
        raise NotImplementedError(
            f"{type(self).__name__} has to override the fixture `serializer`, with the class"
        )

    @pytest.fixture
    def warmed_up(self, serializer: type[Serializer]) -> None:
        """Start one child, if there is a start method: what serves it stays for good."""
        reason = serializer.unavailable()
        if reason is not None:
            pytest.skip(f"NOT TESTED: {serializer.name} cannot work here: {reason}")
        with suppress(NoPluginError):
            use_once(procession.get_context(serializer=serializer.name))

    @pytest.fixture
    def dumps(self, serializer: type[Serializer]) -> Callable[[Any], bytes]:
        """Pickle an object as core does."""
        return lambda obj: serializer.dumps(obj, _PROTOCOL)

    def test_its_name_leads_to_it(self, serializer: type[Serializer]) -> None:
        """Users choose it by a name, which is the class's own.

        `Serializer.name`: "The name users select; equals the name of the entry point."
        """
        assert serializer is selection.registry().load("serializer", serializer.name)

    @pytest.mark.parametrize("obj", _OBJECTS, ids=lambda obj: type(obj).__name__)
    def test_the_other_side_needs_pickle_alone(
        self, dumps: Callable[[Any], bytes], obj: Any
    ) -> None:
        """Whatever `pickle` takes comes back equal, from a pickle of the protocol asked for.

        `Serializer`: "What it makes is a pickle of protocol 5: the other side opens it by
        `pickle` alone"
        """
        data = dumps([obj, obj])
        assert bytes([0x80, _PROTOCOL]) == data[:2]
        first, second = pickle.loads(data)

        assert (type(obj), repr(obj)) == (type(first), repr(first))
        assert first is second or first == second

    def test_buffers_stay_outside(self, serializer: type[Serializer]) -> None:
        """Large memory is given to whoever sends it, and not copied into the pickle.

        `Serializer.pickler`: "It takes the arguments *file*, *protocol* and *buffer_callback*."
        """
        memory = bytearray(b"b" * SHORTEST_BUFFER)
        for file in (None, io.BytesIO()):
            buffers: list[pickle.PickleBuffer] = []
            if file is None:
                data = serializer.dumps(Buffered(memory), _PROTOCOL, buffer_callback=buffers.append)
            else:
                pickler = serializer.pickler()(file, _PROTOCOL, buffer_callback=buffers.append)
                pickler.dump(Buffered(memory))
                data = file.getvalue()
            assert len(data) < SHORTEST_BUFFER
            assert [memory] == [buffer.raw() for buffer in buffers]
            assert memory == pickle.loads(data, buffers=buffers)

    def test_core_can_derive_from_its_pickler(self, serializer: type[Serializer]) -> None:
        """So that descriptors cross, whatever pickles what is around them.

        `Serializer.pickler`: "Return the class of picklers: `pickle.Pickler` or a subclass of
        it."
        """
        assert issubclass(serializer.pickler(), pickle.Pickler)
        try:
            ctx = procession.get_context(serializer=serializer.name)
            receiver, sender = ctx.Pipe(duplex=False)
        except NoPluginError as error:
            pytest.skip(f"NOT TESTED: {error}")
        process = ctx.Process(target=payloads.send_all, args=(sender, ["through a pipe"]))
        with receiver, sender:
            process.start()
            assert receiver.poll(DEADLINE)
            assert "through a pipe" == receiver.recv()
        process.join(DEADLINE)
        process.close()

    def test_functions_go_by_value_or_are_refused(
        self, serializer: type[Serializer], dumps: Callable[[Any], bytes], declined: Declined
    ) -> None:
        """What cannot be imported arrives where it is declared, and otherwise is an error.

        `SerializerFeatures.by_value`: "Functions and classes that the other side cannot import
        (lambdas, closures, what was defined in an interactive session) are pickled with their
        code"
        """
        amount = 22
        function = lambda number: number + amount  # noqa: E731 - this is what is tested
        if not serializer.features.by_value:
            declined("by_value")
            with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
                dumps(function)
            return
        opened = subprocess.run(
            [sys.executable, "-c", _OPEN], input=dumps(function), capture_output=True
        )
        assert b"42\n" == opened.stdout, opened.stderr.decode()

    def test_what_cannot_be_pickled_raises(self, dumps: Callable[[Any], bytes]) -> None:
        """With the error of the object, and the next one is pickled as if nothing had been.

        `Serializer.dumps`: "Raises what pickling raises."
        """
        with pytest.raises(TypeError, match="cannot pickle Unpicklable"):
            dumps([1, payloads.Unpicklable()])
        assert [1] == pickle.loads(dumps([1]))

    def test_threads_and_forks(self, dumps: Callable[[Any], bytes], fork: Fork) -> None:
        """Any number of threads pickle at once, and a child forked meanwhile does, too.

        `Serializer`: "Threads: any number at once. Fork: a forked child goes on using it."
        """

        def work(number: int) -> None:
            for _ in range(50):
                assert [number] * 100 == pickle.loads(dumps([number] * 100))

        with ThreadPoolExecutor(4) as threads:
            futures = [threads.submit(work, number) for number in range(4)]
            assert 0 == fork(lambda: work(9)).join()
            for future in futures:
                future.result(DEADLINE)
