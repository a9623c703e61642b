"""What procession learns about this plugin: the class to use for the name `subinterpreter`."""

from __future__ import annotations

from procession.plugin import StartMethod, hookimpl

from ._start_method import Subinterpreter


@hookimpl
def procession_start_method() -> type[StartMethod]:
    """Give procession the start method `subinterpreter`."""
    return Subinterpreter
