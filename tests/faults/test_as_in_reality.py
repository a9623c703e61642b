"""The same program, with processes that are really killed and with threads that play it.

What it sees has to be the same: classes, attributes and texts, but for process ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import procession
from procession.errors import NoPluginError
from procession.testing import falling
from procession.testing.faults import Faults, FaultScript

# Workers are numbered through, and named after their context.
_WORKER = re.compile(r"\w*PoolWorker-\d+")


def _seen(action: Callable[[], Any]) -> tuple[Any, ...]:
    """Return what a program can tell of the error that *action* raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is compared
        action()
    error: Any = caught.value
    return (
        [kind.__name__ for kind in type(error).__mro__],
        _WORKER.sub("worker", getattr(error, "process", None) or ""),
        getattr(error, "exitcode", None),
        _WORKER.sub("worker", re.sub(r"pid \d+", "pid", str(error))),
    )


def connections(context: Any, really: bool) -> list[Any]:
    """Receive from the dead, send to the dead, and join with a check."""
    ours, theirs = context.Pipe()
    process = context.Process(target=falling.echo_and_fall, args=(theirs, 1, really), name="echo")
    process.start()
    theirs.close()
    ours.send("x")
    seen = [ours.recv(), _seen(ours.recv)]
    seen.append(_seen(lambda: [ours.send("y") for _ in range(2)]))
    seen.append(_seen(lambda: process.join(check=True)))
    ours.close()
    return seen


def kept_ends(context: Any, really: bool) -> list[Any]:
    """Wait for the dead with their end open here, too."""
    ours, theirs = context.Pipe()
    process = context.Process(target=falling.echo_and_fall, args=(theirs, 0, really), name="echo")
    process.start()
    seen = [_seen(ours.recv)]
    process.join()
    ours.close()
    theirs.close()
    return seen


def empty_queues(context: Any, really: bool) -> list[Any]:
    """Get what nobody will put."""
    queue = context.Queue()
    process = context.Process(target=falling.put_and_fall, args=(queue, 2, really), name="producer")
    process.start()
    seen = [queue.get(), queue.get(), _seen(queue.get)]
    process.join()
    queue.close()
    return seen


def full_queues(context: Any, really: bool) -> list[Any]:
    """Put what nobody will get."""
    queue = context.Queue(maxsize=1)
    process = context.Process(
        target=falling.take_and_fall, args=(queue, 1, really), name="consumer"
    )
    process.start()
    queue.put(1)
    process.join()
    queue.put(2)
    seen = [_seen(lambda: queue.put(3))]
    queue.close()
    return seen


def undone_work(context: Any, really: bool) -> list[Any]:
    """Wait for what only the dead could report as done."""
    queue = context.JoinableQueue()
    process = context.Process(
        target=falling.take_and_fall, args=(queue, 1, really), name="consumer"
    )
    process.start()
    queue.put(1)
    seen = [_seen(queue.join)]
    process.join()
    queue.close()
    return seen


def pools(context: Any, really: bool) -> list[Any]:
    """Lose the worker that has begun the second task."""
    with context.Pool(1) as pool:
        results = [
            pool.apply_async(falling.answer_or_fall, (number, 1, really)) for number in range(3)
        ]
        seen = [results[0].get(), _seen(results[1].get), results[2].get()]
    return seen


SCRIPTS: dict[Callable[[Any, bool], list[Any]], FaultScript] = {
    connections: FaultScript().kill("echo", after_messages=2),
    kept_ends: FaultScript().kill("echo", after_messages=0),
    empty_queues: FaultScript().kill("producer", after_messages=2),
    full_queues: FaultScript().kill("consumer", after_messages=1),
    undone_work: FaultScript().kill("consumer", after_messages=1),
    pools: FaultScript().kill_in("PoolWorker-*", falling.answer_or_fall, call=2),
}


@pytest.fixture
def real() -> Any:
    """A context with processes, of what is the default here."""
    try:
        return procession.get_context(procession.get_start_method())
    except NoPluginError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("program", SCRIPTS, ids=lambda program: program.__name__)
def test_a_program_sees_the_same(real: Any, program: Callable[[Any, bool], list[Any]]) -> None:
    """A test with faults is worth something only if reality is no different."""
    expected = program(real, True)

    with Faults() as faults:
        faults.play(SCRIPTS[program])
        assert expected == program(procession.get_context(), False)
