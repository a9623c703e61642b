"""The fixture that is shipped, as users get it."""

from __future__ import annotations

from procession.testing.faults.fixture import faults as faults
