"""What is known about a process that has failed. Only parents import this.

They do so before the first child is started: when one has failed, there may be no descriptor to
import anything with.
"""

from __future__ import annotations

from procession._ground.value import Value

try:
    from _pickle import loads
except ImportError:  # an interpreter without the C accelerator
    from pickle import loads

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import Any

    from procession._starting.limit_watch import LimitExceeded

__all__ = ["ExceptionReport", "FailureReport"]


class ExceptionReport(Value):
    """An exception of another process."""

    _hidden = frozenset({"traceback", "cause", "context", "suppress_context", "pickled"})
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    type_name: str
    """The name of its class, with the module unless it is a built-in."""

    message: str
    """What ``str`` made of it."""

    traceback: str
    """Its own traceback as the interpreter shows it, empty for an exit; without those of
    `cause` and `context`."""

    notes: tuple[str, ...] = ()
    """What was added to it by ``add_note``."""

    cause: ExceptionReport | None = None
    """The exception that it was raised from, its ``__cause__``."""

    context: ExceptionReport | None = None
    """The exception that was being handled when it was raised, its ``__context__``."""

    suppress_context: bool = False
    """Whether `context` is not to be shown."""

    pickled: bytes | None = None
    """The exception itself; None if it could not be pickled, or was too large."""

    @property
    def exception(self) -> BaseException | None:
        """The exception itself, with its causes and notes; None if it cannot be had here.

        Unpickled when it is first asked for: that runs code of the program.
        """
        if "exception" not in self.__dict__:
            self.__dict__["exception"] = self._unpickle()
        found: BaseException | None = self.__dict__["exception"]
        return found

    def _unpickle(self) -> BaseException | None:
        if self.pickled is None:
            return None
        try:
            found = loads(self.pickled)
        except KeyboardInterrupt:
            raise  # of the user, who need not wait for it
        except BaseException:
            return None  # a class that is not here, or whose __init__ wants other arguments
        if not isinstance(found, BaseException):
            return None
        for link, report in (("__cause__", self.cause), ("__context__", self.context)):
            if report is not None and report.exception is not found:
                setattr(found, link, report.exception)
        found.__suppress_context__ = self.suppress_context
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without what was unpickled: that it can be pickled is the other side's word."""
        return {name: value for name, value in self.__dict__.items() if name != "exception"}

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class FailureReport(Value):
    """How a process failed. Its text, `str`, is for people and says all of it.

    Can be pickled, whatever the exception is.
    """

    _hidden = frozenset({"traceback", "dump"})
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    process: str
    """The name of the process."""

    pid: int
    """Its process id."""

    exitcode: int
    """Its exit code, -N when signal N ended it; never 0."""

    signal: str | None = None
    """The name of the signal that ended it, such as ``SIGSEGV``."""

    error: ExceptionReport | None = None
    """The exception that ended it; also `SystemExit`, when it said how it is to end."""

    traceback: str | None = None
    """What was printed about it on stderr, causes included; None if nothing was."""

    dump: str | None = None
    """The Python stacks of all threads at a fatal signal, as faulthandler writes them."""

    limit_exceeded: LimitExceeded | None = None
    """The limit of ours that it was killed for."""

    hint: str | None = None
    """The likely cause, when the rest does not say it."""

    @property
    def exception(self) -> BaseException | None:
        """The exception itself, as far as it could be pickled there and unpickled here."""
        return None if self.error is None else self.error.exception

    @property
    def summary(self) -> str:
        """Which process it was and how it ended, on one line."""
        who = f"process {self.process!r} (pid {self.pid})"
        if self.signal is not None:
            return f"{who} was ended by {self.signal}"
        if self.error is not None and self.error.type_name != "SystemExit":
            first, *more = str(self.error).splitlines() or [""]
            return f"{who} failed with {first}{' ...' if more else ''}"
        return f"{who} ended with exit code {self.exitcode}"

    def __str__(self) -> str:
        parts = [self.summary]
        if self.hint:
            parts.append(self.hint)
        if self.traceback:
            parts.append(self.traceback.rstrip("\n"))
        elif (
            self.error is not None
            and self.error.type_name == "SystemExit"
            and self.error.message not in ("", str(self.exitcode))
        ):
            parts.append(self.error.message)
        if self.dump:
            parts.append(self.dump.rstrip("\n"))
        return "\n\n".join(parts)
