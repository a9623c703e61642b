"""Waiting in asyncio: processes, connections and queues, without a thread for it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from procession import aio
from procession.testing import payloads

DEADLINE = 30.0
Make = Callable[..., Any]
methods = pytest.mark.one_pair_per("method")
transports = pytest.mark.one_pair_per("transport")
pytestmark = pytest.mark.beyond("multiprocessing has nothing for asyncio")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run *work* in a loop with a deadline, and return its result; no thread may be started."""

    async def within_deadline() -> Any:
        return await asyncio.wait_for(work, DEADLINE)

    threads = threading.active_count()
    result = asyncio.run(within_deadline())
    assert threads == threading.active_count()
    return result


async def turns_meanwhile(work: Coroutine[Any, Any, Any], until: Callable[[], Any]) -> int:
    """Return how often another task ran while *work* was waiting; *until* lets it end."""
    task = asyncio.ensure_future(work)
    turns = 0
    for _ in range(10):
        await asyncio.sleep(0)
        turns += not task.done()
    until()
    await task
    return turns


@methods
def test_wait_returns_the_exit_code(start: Make) -> None:
    """`Process.wait` waits for the end, joins, and returns the exit code; again at once."""

    async def work() -> tuple[int, int]:
        process = start(payloads.exit_with, 7)
        return await process.wait(), await process.wait()

    assert (7, 7) == run(work())


@methods
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signals_of_a_child_are_not_those_of_the_loop(
    start: Make, pipe: Make, number: signal.Signals
) -> None:
    """They end the child, also a copy of this process, and the loop hears of none."""
    here, there = pipe()
    told: list[object] = []

    async def work() -> int:
        if number == signal.SIGTERM:  # asyncio.run has seen to the other
            asyncio.get_running_loop().add_signal_handler(number, told.append, number)
        process = start(payloads.hold, there)
        assert "ready" == await aio.receive(here)
        os.kill(process.pid, number)
        code: int = await process.wait()
        await asyncio.sleep(0)
        return code

    code = run(work())

    assert (1 if number == signal.SIGINT else -number) == code
    assert not told


@methods
def test_wait_leaves_the_loop_to_others(start: Make, pipe: Make) -> None:
    """While a child runs, other tasks do; several tasks may wait for one child."""
    here, there = pipe()
    process = start(payloads.hold, there)
    assert "ready" == here.recv()

    async def both() -> Any:
        return await asyncio.gather(process.wait(), process.wait())

    assert 10 == run(turns_meanwhile(both(), lambda: here.send("go")))
    assert 0 == process.exitcode


@methods
def test_wait_learns_of_a_kill(start: Make, pipe: Make) -> None:
    """A child that is killed ends the wait."""
    here, there = pipe()
    process = start(payloads.hold, there)
    assert "ready" == here.recv()

    assert 10 == run(turns_meanwhile(process.wait(), process.kill))
    assert -9 == process.exitcode


def test_iterating_over_a_connection(start: Make, pipe: Make) -> None:
    """``async for`` yields every message in order, and ends with the connection."""
    here, there = pipe(False)
    wanted = [*range(500), b"\0" * 300_000, "last"]
    process = start(payloads.send_all, there, wanted)
    there.close()

    async def work() -> list[Any]:
        return [message async for message in here]

    assert wanted == run(work())
    assert 0 == run(process.wait())


@transports
def test_a_flood_leaves_the_loop_to_others(pipe: Make) -> None:
    """Even when a message is always there, other tasks run between two of them."""
    here, there = pipe(False)
    for number in range(20):
        there.send(number)
    there.close()
    order: list[str] = []

    async def tick() -> None:
        for _ in range(5):
            order.append("tick")
            await asyncio.sleep(0)

    async def work() -> None:
        ticking = asyncio.ensure_future(tick())
        async for _ in here:
            order.append("message")
        await ticking

    run(work())
    assert order.count("tick") == 5
    assert order.index("message") < 2
    assert order[:12].count("tick") == 5


@transports
def test_tasks_share_a_connection(pipe: Make) -> None:
    """Several tasks that receive from one end get each message once."""
    here, there = pipe(False)

    async def work() -> list[int]:
        tasks = [asyncio.ensure_future(aio.receive(here)) for _ in range(5)]
        await asyncio.sleep(0)
        for number in range(5):
            there.send(number)
        return sorted(await asyncio.gather(*tasks))

    assert [0, 1, 2, 3, 4] == run(work())


@transports
def test_a_cancelled_receive_takes_nothing(pipe: Make) -> None:
    """What comes after a receive was cancelled is there for the next one."""
    here, there = pipe(False)

    async def work() -> Any:
        task = asyncio.ensure_future(aio.receive(here))
        await asyncio.sleep(0)  # it has run as far as it can: to where it waits
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        there.send("kept")
        return await aio.receive(here)

    assert "kept" == run(work())


@transports
def test_closing_here_ends_a_receive(pipe: Make) -> None:
    """A connection that another task closes ends the wait with the usual error."""
    here, _there = pipe(False)

    async def work() -> None:
        task = asyncio.ensure_future(aio.receive(here))
        await asyncio.sleep(0.01)
        here.close()
        with pytest.raises(OSError, match="closed"):
            await task

    run(work())


def test_iterating_over_a_queue(start: Make, queue: Make) -> None:
    """``async for`` yields what children put, and ends with a shutdown."""
    items = queue()
    processes = [start(payloads.put_numbered, items, who, 100) for who in range(2)]

    async def work() -> list[Any]:
        async def end() -> None:
            await asyncio.gather(*(process.wait() for process in processes))
            items.shutdown()

        ending = asyncio.ensure_future(end())
        found = [item async for item in items]
        await ending
        return found

    found = run(work())
    for who in range(2):
        assert [(who, number) for number in range(100)] == [
            each for each in found if each[0] == who
        ]
    assert 200 == len(found)


@transports
def test_get_waits_for_a_put(queue: Make) -> None:
    """`aio.get` leaves the loop to others until something was put."""
    items = queue()

    assert 10 == run(turns_meanwhile(aio.get(items), lambda: items.put("x")))


@transports
def test_a_shutdown_ends_a_get(queue: Make) -> None:
    """A task that waits in `aio.get` learns of a shutdown, a closed queue raises at once."""
    items = queue()

    async def work(library_error: type[BaseException]) -> None:
        task = asyncio.ensure_future(aio.get(items))
        await asyncio.sleep(0.01)
        items.shutdown()
        with pytest.raises(library_error):
            await task
        items.close()
        with pytest.raises((ValueError, OSError), match="closed"):
            await aio.get(items)

    import procession

    run(work(procession.ShutDown))


@transports
def test_nothing_is_left_behind(pipe: Make) -> None:
    """A wait that is over has given its descriptor back, however it ended."""
    here, there = pipe(False)
    here.fileno()  # a transport may make it only now
    before = payloads.open_descriptors()

    async def work() -> None:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(aio.receive(here), 0.01)
        there.send(1)
        await aio.receive(here)

    run(work())
    assert before == payloads.open_descriptors()


def test_what_cannot_be_watched_is_refused() -> None:
    """A queue without a descriptor gives a clear error."""
    import queue as queue_module

    things: Any = queue_module.Queue()
    with pytest.raises(TypeError, match="Queue has no fileno"):
        run(aio.get(things))
