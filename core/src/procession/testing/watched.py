"""A program whose processes all wait for something, to be looked at from outside.

``python -m procession.testing.watched METHOD TRANSPORT`` prints one line of JSON with the pids
of its processes, waits for a line on stdin, lets all of them go on, and prints a line with their
exit codes, which are 0 when everybody was woken by what they waited for.
"""

from __future__ import annotations

import json
import sys

from procession import get_context

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Any


def get_one(queue: Any) -> None:
    """Wait for an item."""
    assert queue.get() == "item"


def put_two(queue: Any) -> None:
    """Wait for room, in a queue with room for one."""
    queue.put(1)
    queue.put(2)


def receive_end(connection: Any) -> None:
    """Wait for the end of the connection."""
    try:
        connection.recv()
    except EOFError:
        return
    raise AssertionError("something was received")


def hold_lock(queue: Any, connection: Any) -> None:
    """Hold the lock of *queue* until something is received."""
    queue._mailbox._memory.lock.run(connection.recv)


def join_child(method: str, transport: str, queue: Any, pids: Any) -> None:
    """Start a child that waits for an item, tell its pid, and wait for its end."""
    child = get_context(method, transport=transport).Process(
        target=get_one, args=(queue,), name="grandchild"
    )
    child.start()
    pids.send(child.pid)
    pids.close()
    child.join()
    assert child.exitcode == 0


def main(method: str, transport: str) -> None:
    """Be the program."""
    ctx = get_context(method, transport=transport)
    empty, full, counted, locked = ctx.Queue(), ctx.Queue(1), ctx.JoinableQueue(), ctx.Queue()
    backlog = ctx.Queue()
    for number in range(7):
        backlog.put(number)
    counted.put("work")
    reader, writer = ctx.Pipe(duplex=False)
    told, telling = ctx.Pipe(duplex=False)
    released, releasing = ctx.Pipe(duplex=False)

    def start(name: str, target: Any, *args: Any) -> Any:
        child = ctx.Process(target=target, args=args, name=name)
        child.start()
        children[name] = child
        return child

    children: dict[str, Any] = {}
    # First, and with nothing of what comes later: a copy of the writing end would keep the
    # connection open for the receiver.
    start("receiver", _receive_end_alone, reader, writer if method == "fork" else None)
    start("getter", get_one, empty)
    start("putter", put_two, full)
    start("joiner", counted.join)
    start("holder", hold_lock, locked, released)
    start("parent", join_child, method, transport, empty, telling)
    pids = {name: child.pid for name, child in children.items()}
    pids["grandchild"] = told.recv()
    print(json.dumps(pids), flush=True)
    sys.stdin.readline()
    empty.put("item")
    empty.put("item")
    full.get()
    full.get()
    counted.get()
    counted.task_done()
    releasing.send(None)
    for name in set(children) - {"receiver"}:
        children[name].join()
    writer.close()
    children["receiver"].join()
    print(json.dumps({name: child.exitcode for name, child in children.items()}), flush=True)


def _receive_end_alone(reader: Any, writer: Any) -> None:
    if writer is not None:
        writer.close()
    receive_end(reader)


if __name__ == "__main__":
    main(*sys.argv[1:])
