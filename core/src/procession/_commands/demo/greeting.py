"""What the children of the three classic programs do. Imports nothing."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession.connection import Connection
    from procession.queues import Queue

__all__ = ["answer_in_queue", "answer_through_pipe", "hello"]


def hello(name: str) -> None:
    """Greet *name*; the parent, which shares the output, completes the line."""
    print("hello", name, end="", flush=True)


def answer_in_queue(queue: Queue) -> None:
    """Put a list into *queue*."""
    queue.put([42, None, "hello"])


def answer_through_pipe(connection: Connection) -> None:
    """Send a list through *connection* and close it."""
    connection.send([42, None, "hello"])
    connection.close()
