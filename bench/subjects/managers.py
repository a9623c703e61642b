"""Managers: how often a second a proxy can be asked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from subject import NOTHING, Case, Figure, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contenders import Contender
    from subject import Effort


def dictionary(contender: Contender, effort: Effort) -> Mapping[str, float]:
    """Set and get items of a manager's dictionary by turns."""
    count = effort.of(5_000, 200)
    with contender.context().Manager() as manager:
        mapping = manager.dict()
        mapping["warm"] = mapping.copy()
        begin = time.perf_counter()
        for number in range(count):
            mapping["key"] = number
            if mapping["key"] != number:
                raise RuntimeError("an item was lost")
        elapsed = time.perf_counter() - begin
    return {"get and set": 2 * count / elapsed / 1e3}


SUBJECT = Subject(
    name="managers",
    title="Managers",
    cases=(Case("dict", (Figure("get and set", "k/s", "more"),), dictionary, NOTHING),),
)
