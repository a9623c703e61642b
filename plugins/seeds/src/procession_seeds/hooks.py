"""What procession learns about this plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procession.plugin import hookimpl

from . import _seed

if TYPE_CHECKING:
    from ._seed import Baggage


@hookimpl
def procession_launching() -> Baggage:
    """Give the child its place in the family."""
    return _seed.next_child()


procession_child_starting = hookimpl(_seed.begin)
