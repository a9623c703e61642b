"""Primitives that break one promise each, and which tests of the kit have to fail for it."""

from __future__ import annotations

import mmap
import sys
import time
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from tests.kit.breaking import breaks

from procession._locks.kernel_primitive import KernelPrimitive


@breaks("test_releasing_too_much[lock]")
class GivesBackTooMuch(KernelPrimitive):
    def release(self) -> None:
        if not self.value():
            super().release()


@breaks("test_users_are_killed_at_random[lock]", "test_users_are_killed_at_random[semaphore]")
class CountsWhoComesAndGoes(KernelPrimitive):
    """Takes whoever came and did not go for a holder, though he was killed meanwhile."""

    __slots__ = ("_visitors",)
    _visitors: memoryview[int]

    @classmethod
    def make(cls, kind: int, value: int, maxvalue: int, /) -> Any:
        made = super().make(kind, value, maxvalue)
        made._visitors = memoryview(mmap.mmap(-1, 8)).cast("q")
        return made

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        self._visitors[0] += 1
        taken = False
        try:
            taken = super().acquire(block, timeout)
        finally:
            if not taken:
                self._visitors[0] -= 1
        time.sleep(0.001)  # so that nearly everybody is a visitor nearly always
        return taken

    def release(self) -> None:
        super().release()
        self._visitors[0] -= 1

    def value(self) -> int:
        return self.maxvalue - self._visitors[0]


@breaks("test_forked_child_holds_nothing[semaphore]")
class HoldsInAFork(KernelPrimitive):
    def count(self) -> int:
        return 1 - self.value()
