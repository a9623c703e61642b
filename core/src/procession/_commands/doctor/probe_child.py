"""What the doctor's children do. Imports nothing."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from procession.connection import Connection
    from procession.queues import Queue

__all__ = ["send_back"]


def send_back(connection: Connection, queue: Queue) -> None:
    """Send on what comes from *queue*."""
    connection.send(queue.get(timeout=30))
    connection.close()
