"""Waiting in asyncio for processes, connections and queues.

No thread waits: everything has a descriptor, which the event loop watches. `Process.wait`, and
``async for`` over a connection or a queue, are made of these functions.

They need a loop that can watch descriptors (`add_reader`), which all have but the proactor of
Windows. Cancelling a wait is safe: nothing was taken.
"""

from __future__ import annotations

import asyncio
import os
from queue import Empty
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from procession.abc import Connection, Process, Queue

__all__ = ["get", "receive", "wait"]

# A descriptor need not become readable when it is closed in this very process, or when a queue
# is shut down: it is looked again after so many seconds.
_LONGEST_SLEEP = 1.0
# The sentinel of a child can be a moment earlier than its exit code, which somebody else
# reports. In seconds.
_SHORT_SLEEP = 0.001


async def wait(process: Process) -> int:
    """Wait until *process*, a child of this one, has ended; join it and return its exit code.

    Any number of tasks may wait for one process. Raises what `Process.join` raises.
    """
    while process.is_alive():
        if await _readable(process.sentinel, _LONGEST_SLEEP):
            process.join(_SHORT_SLEEP)
            if process.exitcode is None:
                await asyncio.sleep(_SHORT_SLEEP)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


async def receive(connection: Connection) -> Any:
    """Wait for an object from *connection* and return it.

    Any number of tasks of one loop may receive from one connection, but no other thread or
    process meanwhile: what it takes first would be waited for here without the loop. So is the
    rest of a message that has begun to come, which for a long one takes its time.

    Raises what `Connection.recv` raises. Unlike that, it does not find out who has died while
    the other end is still open in this process: close here what a child has been given.
    """
    await asyncio.sleep(0)  # messages may come so fast that nobody else would ever run
    while not connection.poll():
        await _readable(connection.fileno(), _LONGEST_SLEEP)
    return connection.recv()


async def get(queue: Queue) -> Any:
    """Wait for the next object in *queue* and take it.

    Any number of tasks, threads and processes may get from one queue. Raises what `Queue.get`
    raises, but, like that with a timeout, does not find out that nobody is left who could put
    anything. A shutdown is noticed within a second.
    """
    await asyncio.sleep(0)  # as in `receive`
    while True:
        descriptor = _descriptor_of(queue)
        try:
            return queue.get_nowait()
        except Empty:
            await _readable(descriptor, _LONGEST_SLEEP)


async def received(connection: Connection) -> AsyncIterator[Any]:
    """Yield what comes from *connection* until the other end has been closed."""
    while True:
        try:
            received = await receive(connection)
        except EOFError:
            return
        yield received


async def got(queue: Queue) -> AsyncIterator[Any]:
    """Yield what is in *queue* until it has been shut down and is empty."""
    from procession.errors import ShutDown

    while True:
        try:
            found = await get(queue)
        except ShutDown:
            return
        yield found


def _descriptor_of(queue: Queue) -> int:
    fileno = getattr(queue, "fileno", None)
    if fileno is None:
        raise TypeError(f"{type(queue).__name__} has no fileno(), which asyncio would watch")
    descriptor: int = fileno()
    return descriptor


async def _readable(fd: int, longest: float) -> bool:
    """Wait until *fd* is readable, up to *longest* seconds; return whether it is."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()
    # A loop watches a descriptor for one only, and must not be left with the number of one that
    # somebody closes meanwhile.
    own = os.dup(fd)
    try:
        loop.add_reader(own, _settle, ready, True)
        timer = loop.call_later(longest, _settle, ready, False)
        try:
            return await ready
        finally:
            timer.cancel()
            loop.remove_reader(own)
    finally:
        os.close(own)


def _settle(ready: asyncio.Future[bool], result: bool) -> None:
    if not ready.done():
        ready.set_result(result)
