"""Functions and classes that cannot be imported travel, on every start method and transport."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import procession
from procession.testing import serialized

PAIRS = [
    (method, transport)
    for method in procession.get_all_start_methods()
    for transport in procession.get_all_transports()
]


@pytest.fixture(params=PAIRS, ids="-".join)
def ctx(request: pytest.FixtureRequest) -> Any:
    """A context of each pair, for this serializer."""
    method, transport = request.param
    return procession.get_context(method, transport=transport, serializer="cloudpickle")


def test_targets_arguments_connections_and_queues(ctx: Any) -> None:
    """A lambda is a target, a closure an argument, and functions come back on every way."""
    here, there = ctx.Pipe()
    queue, simple = ctx.Queue(), ctx.SimpleQueue()
    holder = serialized.Holder(serialized.adder(2))

    def work(connection: Any) -> None:
        connection.send(lambda: holder.callback(1))
        queue.put(connection.recv())
        simple.put(serialized.adder(7))

    process = ctx.Process(target=work, args=(there,))
    process.start()
    here.send(serialized.adder(5))

    assert 3 == here.recv()()
    assert 15 == queue.get()(10)
    assert 17 == simple.get()(10)
    process.join(check=True)
    process.close()
    for each in (here, there, queue, simple):
        each.close()


def test_pools(ctx: Any) -> None:
    """Functions, arguments, results and initializers of pools."""
    with ctx.Pool(1, lambda function: None, (serialized.adder(0),)) as pool:
        functions = pool.map(lambda amount: serialized.adder(amount), range(3))
        assert [10, 11, 12] == [function(10) for function in functions]
        assert 6 == pool.apply(lambda function: function(1), (serialized.adder(5),))
        amount = 1
        assert 1 == pool.apply(lambda: amount)
        # What the function refers to has changed: it must not be the one that was sent before.
        amount = 2
        assert 2 == pool.apply(lambda: amount)


def test_a_function_is_sent_as_it_is_now(ctx: Any) -> None:
    """One function, called twice: the second time with what it refers to by then."""
    numbers = [1]

    def total() -> int:
        return sum(numbers)

    with ctx.Pool(1) as pool:
        assert 1 == pool.apply(total)
        numbers.append(2)
        assert 3 == pool.apply(total)


def test_executor() -> None:
    """The executor takes what pools take."""
    from procession.futures import ProcessPoolExecutor

    ctx = procession.get_context("spawn", serializer="cloudpickle")
    with ProcessPoolExecutor(1, mp_context=ctx) as executor:
        assert 3 == executor.submit(lambda: 3).result()
        assert [2, 3] == list(executor.map(serialized.adder(1), [1, 2]))


def test_buffers_stay_out_of_band(ctx: Any) -> None:
    """A large array beside a lambda is received into memory that can be written to."""
    here, there = ctx.Pipe()
    array = np.arange(1 << 20)

    def work(connection: Any) -> None:
        function, received = connection.recv()
        received[0] = 9
        connection.send((function(received), received))

    process = ctx.Process(target=work, args=(there,))
    process.start()
    here.send((lambda got: int(got[0] + got[-1]), array))
    total, received = here.recv()
    process.join(check=True)
    process.close()

    assert 9 + array[-1] == total
    assert received.flags.writeable
    assert np.array_equal(array[1:], received[1:])
    here.close()
    there.close()


@pytest.mark.parametrize("method", procession.get_all_start_methods())
def test_a_child_loads_it_when_it_pickles(method: str) -> None:
    """A queue brings its serializer by name: the child loads that when it first puts."""
    ctx = procession.get_context(method, serializer="cloudpickle")
    receiver, sender = procession.get_context(method).Pipe(duplex=False)
    queue = ctx.Queue()
    process = ctx.Process(target=serialized.answer, args=(queue, sender))
    process.start()
    before, after = receiver.recv()
    process.join(check=True)
    process.close()

    assert method == "fork" or not before
    assert after
    assert 4 == queue.get()(1)
    for each in (receiver, sender, queue):
        each.close()


def test_an_object_of_a_process_class(ctx: Any) -> None:
    """A process object of a class of its own is pickled by the serializer, too."""
    receiver, sender = ctx.Pipe(duplex=False)
    with procession.use(
        start_method=ctx.get_start_method(),
        transport=ctx.get_transport(),
        serializer="cloudpickle",
    ):
        process = serialized.Callback(serialized.adder(1), sender)
        process.start()

    assert 2 == receiver.recv()
    process.join(check=True)
    process.close()
    receiver.close()
    sender.close()


PROGRAM = """
import procession

class Job(procession.Process):
    def __init__(self, sender):
        super().__init__()
        self.sender = sender
    def run(self):
        self.sender.send(helper(20))

def helper(number):
    return number + 1

receiver, sender = procession.Pipe(duplex=False)
procession.Process(target=lambda: sender.send(helper(1))).start()
print(receiver.recv())
Job(sender).start()
print(receiver.recv())
with procession.Pool(1) as pool:
    print(pool.map(lambda n: helper(n), range(3)))
"""


@pytest.mark.parametrize("method", procession.get_all_start_methods())
def test_an_interactive_session(method: str, tmp_path: Path) -> None:
    """What was typed in, and is in no file, works on every start method, chosen from outside."""
    ended = subprocess.run(
        [sys.executable, "-"],
        input=PROGRAM,
        env={"PROCESSION_SERIALIZER": "cloudpickle", "PROCESSION_START_METHOD": method},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ("2\n21\n[1, 2, 3]\n", "") == (ended.stdout, ended.stderr)


def test_what_even_this_cannot_pickle() -> None:
    """The path leads through closures; nothing is suggested, since this is what there is."""
    import threading

    lock = threading.Lock()

    def use() -> None:
        lock.acquire()

    queue = procession.get_context(serializer="cloudpickle").Queue()
    with pytest.raises((TypeError, pickle.PicklingError)) as caught:
        queue.put({"callback": use})
    queue.close()

    (note,) = caught.value.__notes__
    assert note.startswith("what cannot be pickled is obj['callback'].<locals>.lock: <unlocked")


def test_it_is_plain_pickle_for_who_opens_it() -> None:
    """The other side needs `cloudpickle` and neither the plugin nor a selection."""
    from procession_cloudpickle import Cloudpickle

    code = textwrap.dedent(
        """
        import pickle, sys
        print(pickle.loads(sys.stdin.buffer.read())(1))
        assert not any(name.startswith("procession") for name in sys.modules)
        """
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        input=Cloudpickle.dumps(lambda n: n + 1, 5),
        capture_output=True,
        check=True,
    )

    assert b"2\n" == ended.stdout
