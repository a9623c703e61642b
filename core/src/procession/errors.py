"""The exceptions of procession. Every one is a `ProcessError`.

Where multiprocessing raises a built-in class, ours derives from it too, so that
programs which catch the built-in keep working.
"""

from __future__ import annotations

from queue import Empty, Full

__all__ = [
    "AuthenticationError",
    "BufferTooShort",
    "Empty",
    "EndOfConnectionError",
    "ForeignProcessError",
    "Full",
    "MessageTooLongError",
    "ProcessClosedError",
    "ProcessError",
    "ProcessNotStartedError",
    "ProcessRunningError",
    "ProcessStartedError",
    "ProcessStateError",
    "ShutDown",
    "TimeoutError",
]


class ProcessError(Exception):
    """What every exception of procession derives from."""


class BufferTooShort(ProcessError):
    """The buffer given to receive into is too small; ``args[0]`` is the whole message."""


class AuthenticationError(ProcessError):
    """The two sides of a connection do not share the key."""


class TimeoutError(ProcessError):
    """A result was not there in time."""


class ShutDown(ProcessError):
    """The queue was shut down."""


class MessageTooLongError(ProcessError, OSError):
    """A message is longer than the receiver accepts."""


class ProcessStateError(ProcessError):
    """An operation on a process in the wrong state."""


class ProcessStartedError(ProcessStateError, AssertionError):
    """The process was started already."""


class ProcessNotStartedError(ProcessStateError, ValueError):
    """The process was not started yet."""


class ProcessRunningError(ProcessStateError, ValueError):
    """The process has not ended yet."""


class ProcessClosedError(ProcessStateError, ValueError):
    """The process object was closed."""


class ForeignProcessError(ProcessStateError, AssertionError):
    """The process object belongs to another process."""
