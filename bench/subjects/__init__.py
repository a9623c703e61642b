"""What is measured: one module per subject, each with a `SUBJECT`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from subject import Subject

#: In the order in which they are run and shown.
NAMES = (
    "start",
    "memory",
    "imports",
    "queues",
    "connections",
    "locks",
    "shared",
    "managers",
    "network",
    "pools",
)


def load(name: str) -> Subject:
    """Return the subject called *name*; `KeyError` if there is none."""
    if name not in NAMES:
        raise KeyError(name)
    return cast("Subject", importlib.import_module(f"subjects.{name}").SUBJECT)
