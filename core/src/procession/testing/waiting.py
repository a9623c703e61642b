"""What runs in children of tests of waits: dying at the wrong moment, and waiting for the dead."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def die(*_: Any) -> None:
    """Be killed at once, with whatever was handed over."""
    _kill_oneself()


def take_and_die(queue: Any) -> None:
    """Take one object and be killed before it is done."""
    queue.get()
    _kill_oneself()


def take_and_forget(queue: Any) -> None:
    """Take one object and end well, without a word about it."""
    queue.get()


def use_and_die(connection: Any) -> None:
    """Receive one message, send one, and be killed."""
    connection.recv()
    connection.send("used")
    _kill_oneself()


def send_half_and_die(connection: Any, size: int) -> None:
    """Be killed in the middle of a long message, which nobody receives meanwhile."""
    import threading

    threading.Thread(target=connection.send_bytes, args=(bytes(size),), daemon=True).start()
    connection.poll(None)
    _kill_oneself()


def close_and_go_on(connection: Any, orders: Any) -> None:
    """Close an end and live until told otherwise."""
    connection.close()
    orders.recv()


def put_when_told(queue: Any, orders: Any) -> None:
    """Put what is received."""
    queue.put(orders.recv())


def close_at_once(queue: Any) -> None:
    """End well, without having put anything."""
    queue.close()


def report_wait(report: Any, wait: Any, *args: Any) -> None:
    """Wait, and send what the wait ended with: class names, text and attributes."""
    try:
        result: Any = wait(*args)
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        result = kinds, str(error), getattr(error, "process", None), getattr(error, "pid", None)
    report.send(result)


def get(queue: Any) -> Any:
    """Wait for an object, looking around ten times a second, where it would be once."""
    from procession._mailboxes import packet_waits

    packet_waits._LONGEST_SLEEP = 0.1
    return queue.get()


def receive(connection: Any) -> Any:
    """Wait for a message."""
    return connection.recv()


def raise_children_and_hold(
    spec: tuple[str, str, str], report: Any, wait: Any, objects: tuple[Any, ...], count: int
) -> None:
    """Start *count* children that wait, send their pids, and live on."""
    from procession.testing import payloads

    ctx = payloads.context(spec)
    children = [
        ctx.Process(target=report_wait, args=(report, wait, *objects), daemon=False)
        for _ in range(count)
    ]
    for child in children:
        child.start()
    report.send([child.pid for child in children])
    _hold()


def make_and_raise_children(spec: tuple[str, str, str], report: Any, kind: str, count: int) -> None:
    """Make a queue or a pipe, start children that wait for us with it, and live on."""
    from procession.testing import payloads

    ctx = payloads.context(spec)
    if kind == "queue":
        queue = ctx.Queue()
        raise_children_and_hold(spec, report, get, (queue,), count)
    else:
        here, there = ctx.Pipe()
        raise_children_and_hold(spec, report, receive, (there,), count)
        here.close()


def _hold() -> None:
    if sys.platform == "win32":
        raise OSError("there is no pause on Windows")
    while True:
        signal.pause()


def _kill_oneself() -> None:
    os.kill(os.getpid(), getattr(signal, "SIGKILL", 9))
    _hold()
