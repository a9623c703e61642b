"""The logger of procession itself."""

from __future__ import annotations

import logging
import sys

NAME = "procession"
FORMAT = "[%(levelname)s/%(processName)s] %(message)s"

_writes_to_stderr = False


class _ProcessName(logging.Filter):
    """Writes our name of this process into each record.

    `logging` itself asks the standard library's package for it, and only if that is
    imported.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Name the process; let every record pass."""
        from procession.process import current_process

        record.processName = current_process().name
        return True


def get_logger() -> logging.Logger:
    """Return the logger that procession itself writes to.

    Its level is NOTSET, it has no handler, and its records do not reach the root logger.
    """
    logger = logging.getLogger(NAME)
    if logger.propagate:
        logger.propagate = False
        logger.addFilter(_ProcessName())
    return logger


def log_to_stderr(level: int | str | None = None) -> logging.Logger:
    """Let procession's logger write to stderr; return it.

    *level*: the logger's new level; None leaves it. Children that are started
    afterwards do the same.
    """
    global _writes_to_stderr
    logger = get_logger()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    logger.addHandler(handler)
    if level is not None:
        logger.setLevel(level)
    _writes_to_stderr = True
    return logger


def settings() -> tuple[int, bool]:
    """Return the level that counts for the logger and whether it writes to stderr, for a child.

    The level is NOTSET where it is what the child would have anyway.
    """
    level = get_logger().getEffectiveLevel()
    is_default = get_logger().level == logging.NOTSET and level == logging.WARNING
    return logging.NOTSET if is_default else level, _writes_to_stderr


def adopt(parent: tuple[int, bool]) -> None:
    """Log as the parent does."""
    level, to_stderr = parent
    get_logger().setLevel(level)
    if to_stderr:
        log_to_stderr()
