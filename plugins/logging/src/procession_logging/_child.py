# ruff: noqa: E402 - the type checkers must see the platform first
"""What is done in a child: its records go to a relay, and nowhere else."""

from __future__ import annotations

import logging
import os
import sys

assert sys.platform == "linux", "the hooks look first"

from . import _records

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import TypeAlias

    from ._line import Line

    # The line to the relay, the levels of loggers by name, and that of `logging.disable`.
    Baggage: TypeAlias = tuple[Line, dict[str, int], int]

#: So long a record waits, in seconds, for a relay that does not read. Then it is dropped.
PATIENCE = 5.0

# procession's own logger: it writes to stderr in every process, if it was asked to.
_NOT_OURS = "procession"


class RelayHandler(logging.Handler):
    """Passes records on. It never raises, and never blocks for more than `PATIENCE`."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.line = line
        self._is_alone = False
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send *record*; after one that was dropped, the next ones do not wait."""
        try:
            packet = _records.pack(record)
        except Exception:
            self.handleError(record)
            return
        if not (self.tell_dropped(0) and self._send(packet, PATIENCE)):
            self._dropped += 1
        last_resort = logging.lastResort
        if self._is_alone and last_resort is not None and record.levelno >= last_resort.level:
            # Nobody else is there to write it; as in a program without handlers.
            last_resort.handle(record)

    def tell_dropped(self, patience: float) -> bool:
        """Tell how many records were dropped since it was last told; return whether it was."""
        if self._dropped:
            who = f"pid {os.getpid()}"
            text = f"{self._dropped} log records of {who} were dropped: the relay did not read"
            if not self._send(_records.pack(_records.note(logging.WARNING, text)), patience):
                return False
            self._dropped = 0
        return True

    def _send(self, packet: bytes, patience: float) -> bool:
        if self._is_alone:
            return True
        try:
            return self.line.send(packet, patience)
        except (BrokenPipeError, ConnectionResetError):
            self._is_alone = True
            return True
        except OSError:
            return False  # no memory, no descriptors: the count tells


#: The handler of this process, if it is a child with a relay.
handler: RelayHandler | None = None


def loggers() -> list[logging.Logger]:
    """Return the loggers that the plugin minds, the root first."""
    named = list(logging.root.manager.loggerDict.items())
    return [
        logging.root,
        *(
            logger
            for name, logger in named
            if isinstance(logger, logging.Logger) and name != _NOT_OURS
        ),
    ]


def starting(baggage: Baggage) -> None:
    """Send what is logged from now on to the relay."""
    global handler
    line, levels, disabled = baggage
    # A forked child has its parent's handlers; that these write once is the relay's business.
    for logger in loggers():
        for inherited in list(logger.handlers):
            logger.removeHandler(inherited)
        logger.propagate = True
    handler = RelayHandler(line)
    logging.root.addHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.disable(disabled)


def ending(baggage: Baggage) -> None:
    """Tell what was dropped, now that there is time."""
    if handler is not None:
        handler.acquire()
        try:
            handler.tell_dropped(PATIENCE)
        finally:
            handler.release()
