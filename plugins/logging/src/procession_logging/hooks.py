# ruff: noqa: E402 - the type checkers must see the platform first
"""What procession learns about this plugin."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

assert sys.platform == "linux", "procession-logging needs Linux"

from procession.plugin import hookimpl

from . import _child
from ._relay import relay

if TYPE_CHECKING:
    from procession.process import Process

    from ._child import Baggage


@hookimpl
def procession_launching(process: Process) -> Baggage:
    """Give the child a line to this process's relay, or to the one that this one has."""
    own = _child.handler
    line = relay.new_line(process) if own is None or _has_handlers() else own.line
    levels = {
        each.name: each.level for each in _child.loggers() if each.level or each.parent is None
    }
    return line, levels, logging.root.manager.disable


def _has_handlers() -> bool:
    """Return whether this child has configured handlers of its own."""
    return any(
        not isinstance(handler, _child.RelayHandler | logging.NullHandler)
        for logger in _child.loggers()
        for handler in logger.handlers
    )


@hookimpl
def procession_started(process: Process) -> None:
    """Relay what the child logs."""
    relay.started(process)


@hookimpl
def procession_ended(process: Process) -> None:
    """Have everything handled that the child has logged."""
    relay.ended(process)


procession_child_starting = hookimpl(_child.starting)
procession_child_ending = hookimpl(_child.ending)
