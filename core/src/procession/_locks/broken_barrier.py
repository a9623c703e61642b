"""`BrokenBarrierError`, apart from the other errors because of what it has to import."""

from __future__ import annotations

import threading

from procession.errors import ProcessError


class BrokenBarrierError(ProcessError, threading.BrokenBarrierError):
    """A barrier was broken, reset or left: not all parties will come.

    If that is because one of them died while it waited, `process`, `pid` and `exitcode` say
    who and how, as in `PeerDiedError`; else they are None.
    """

    def __init__(
        self,
        message: str = "",
        *,
        process: str | None = None,
        pid: int | None = None,
        exitcode: int | None = None,
    ) -> None:
        super().__init__(message)
        self.process = process
        self.pid = pid
        self.exitcode = exitcode


# The public home: tracebacks print it and pickles refer to it.
BrokenBarrierError.__module__ = "procession.errors"
