"""The names of multiprocessing that are somewhere else in procession."""

from __future__ import annotations

__all__ = ["MOVED"]

MOVED = {
    "connection.AuthenticationError": "procession.AuthenticationError",
    "connection.BufferTooShort": "procession.BufferTooShort",
    "connection.Pipe": "procession.Pipe",
    "context.AuthenticationError": "procession.AuthenticationError",
    "context.BufferTooShort": "procession.BufferTooShort",
    "context.ProcessError": "procession.ProcessError",
    "context.TimeoutError": "procession.TimeoutError",
    "context.Process": "procession.process.Process",
    "queues.Empty": "queue.Empty",
    "queues.Full": "queue.Full",
    "spawn.freeze_support": "procession.freeze_support",
    "spawn.set_executable": "procession.set_executable",
    "forkserver.set_forkserver_preload": "procession.set_forkserver_preload",
    "util.log_to_stderr": "procession.log_to_stderr",
    "util.get_logger": "procession.get_logger",
}
"""Their names without ``multiprocessing.``, and where they are instead."""
