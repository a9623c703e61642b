"""What runs in children that share locks and their relatives; see `procession.testing.payloads`."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any

_SIGKILL = 9


def acquire_and_hold(lock: Any, connection: Any) -> None:
    """Acquire, say so, and hold it until a message comes; then release."""
    lock.acquire()
    connection.send("held")
    connection.recv()
    lock.release()


def acquire_and_die(lock: Any, connection: Any) -> None:
    """Acquire, and be killed with it."""
    lock.acquire()
    connection.send("held")
    os.kill(os.getpid(), _SIGKILL)


def acquire_and_exit(lock: Any, code: int) -> None:
    """Acquire, and end in an orderly way, without a release."""
    lock.acquire()
    sys.exit(code)


def try_lock(lock: Any) -> tuple[bool, str]:
    """Acquire without waiting; return whether that was possible and how the lock looks."""
    return lock.acquire(False), repr(lock)


def release_error(lock: Any) -> str:
    """Return what a release raises."""
    try:
        lock.release()
    except (AssertionError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def release(lock: Any) -> None:
    """Release, whoever acquired."""
    lock.release()


def use_sent(connection: Any) -> None:
    """Receive a lock, say so, acquire it and say so, release it at a message."""
    lock = connection.recv()
    connection.send("received")
    with lock:
        connection.send("held")
        connection.recv()


def add_under_lock(lock: Any, path: str, times: int) -> None:
    """Count in a file, which needs the lock to come out right."""
    for _ in range(times):
        with lock:
            with open(path) as file:
                number = int(file.read())
            with open(path, "w") as file:
                file.write(str(number + 1))


def wait_for_event(event: Any, connection: Any) -> None:
    """Say what an event's wait returned."""
    connection.send("waits")
    connection.send(event.wait(60))


def wait_for_condition(condition: Any, connection: Any) -> None:
    """Say what a condition's wait returned, and wait for a message with the lock held."""
    with condition:
        connection.send("waits")
        connection.send(condition.wait(60))
        connection.recv()


def wait_at_barrier(barrier: Any, connection: Any) -> None:
    """Say what a barrier's wait returned, or why it is broken."""
    import threading

    connection.send("comes")
    try:
        connection.send(barrier.wait(60))
    except threading.BrokenBarrierError as error:
        connection.send((type(error).__name__, getattr(error, "process", None), str(error)))


def notify_and_die(condition: Any) -> None:
    """Notify one, and be killed with the condition's lock."""
    condition.acquire()
    condition.notify()
    os.kill(os.getpid(), _SIGKILL)


def append(path: str) -> None:
    """Write a line at the end of a file: a barrier's action."""
    with open(path, "a") as file:
        file.write("passed\n")
