"""What procession learns about this plugin."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from procession.plugin import hookimpl

from . import _child

if TYPE_CHECKING:
    from coverage import Coverage

    from ._child import Baggage


@hookimpl
def procession_launching() -> Baggage | None:
    """Have the child measured as this process is, or as the environment asks for."""
    coverage = _running() or _asked_for()
    if coverage is None:
        return None
    return coverage.config.serialize(), _data_file(coverage)


def _running() -> Coverage | None:
    """Return what measures this process; nothing is imported for it."""
    if "coverage" not in sys.modules:
        return None
    from coverage import Coverage

    return Coverage.current()


def _asked_for() -> Coverage | None:
    """Return what coverage's own variables ask to be started in child processes."""
    config = os.environ.get("COVERAGE_PROCESS_CONFIG")
    file = os.environ.get("COVERAGE_PROCESS_START")
    if not config and not file:
        return None
    from coverage import Coverage

    return Coverage(config_file=f":data:{config}" if config else file or True)


def _data_file(coverage: Coverage) -> str:
    # Where it was begun counts, not where the program is now. There is no public way to ask
    # that saves and warns of nothing.
    data = coverage._data
    if data is not None:
        return data.base_filename()
    return os.path.abspath(coverage.config.data_file)


procession_child_starting = hookimpl(_child.starting)
procession_child_ending = hookimpl(_child.ending)
