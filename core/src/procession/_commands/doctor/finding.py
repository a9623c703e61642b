"""What a check says: how bad it is, what was found, and what to do."""

from __future__ import annotations

from enum import StrEnum

import attrs

__all__ = ["Finding", "Level"]


class Level(StrEnum):
    """How bad a finding is. In the order in which findings are shown."""

    #: As it should be.
    OK = "ok"
    #: Worth knowing; nothing needs to be done.
    NOTE = "note"
    #: Works, and may fail, or be slow, under load.
    WARNING = "warning"
    #: Something does not work.
    PROBLEM = "problem"


@attrs.frozen
class Finding:
    """One thing that a check has found."""

    level: Level
    #: What was looked at, in a few words.
    subject: str
    #: How it is.
    found: str
    #: What to do about it; empty when there is nothing to do.
    advice: str = ""
