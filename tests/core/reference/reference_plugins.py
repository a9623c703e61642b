"""A start method without operating system processes, which shows what a plugin is given.

It keeps the contract with a thread that does whatever a test likes. For a child that behaves as
a process, and for a transport in memory, there is `procession.testing.faults`.
"""

from __future__ import annotations

import os
import threading
from typing import Any, ClassVar

from procession.plugin import (
    Child,
    LaunchPlan,
    StartFeatures,
    StartMethod,
    hookimpl,
    wait_readable,
)


class ReferenceChild(Child):
    """A thread in the place of a process."""

    def __init__(self, plan: LaunchPlan) -> None:
        self.pid = 1_000_000 + plan.process._identity[-1]
        self.sentinel, self._end = os.pipe()
        self.signals: list[int] = []
        self._code: int | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, args=(plan,))
        self._thread.start()

    def _work(self, plan: LaunchPlan) -> None:
        try:
            Reference.body(plan)
            self._code = 0
        except SystemExit as error:
            self._code = int(error.code or 0)
        os.close(self._end)

    def poll(self) -> int | None:
        return self._code if wait_readable(self.sentinel, 0) else None

    def signal(self, number: int, /) -> None:
        self.signals.append(number)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._thread.join()
            os.close(self.sentinel)


class Reference(StartMethod):
    """Carries a plan out in a thread, and records what it was asked."""

    name: ClassVar[str] = "reference"
    features: ClassVar[StartFeatures] = StartFeatures(inherits_memory=True, shares_memory=True)

    #: What a child does; tests replace it.
    body: ClassVar[Any] = staticmethod(lambda plan: plan.process.run())
    #: What the next launch raises instead of launching.
    refusal: ClassVar[Exception | None] = None
    plans: ClassVar[list[LaunchPlan]] = []
    closed: ClassVar[int] = 0

    def launch(self, plan: LaunchPlan, /) -> Child:
        refusal = type(self).refusal
        if refusal is not None:
            raise refusal
        self.plans.append(plan)
        return ReferenceChild(plan)

    def close(self) -> None:
        type(self).closed += 1


@hookimpl
def procession_start_method() -> type[StartMethod]:
    return Reference
