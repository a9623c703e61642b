"""What procession learns about this plugin: the class to use for the name `bubblewrap`."""

from __future__ import annotations

from procession.plugin import StartMethod, hookimpl

from ._start_method import Bubblewrap


@hookimpl
def procession_start_method() -> type[StartMethod]:
    """Give procession the start method `bubblewrap`."""
    return Bubblewrap
