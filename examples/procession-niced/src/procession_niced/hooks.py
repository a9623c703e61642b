"""What procession learns about this plugin: the class to use for the name `niced`."""

from __future__ import annotations

from procession.plugin import StartMethod, hookimpl

from ._start_method import Niced


@hookimpl
def procession_start_method() -> type[StartMethod]:
    """Give procession the start method `niced`."""
    return Niced
