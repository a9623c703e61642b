"""Core's own primitive, who holds one, and which implementation is chosen."""

from __future__ import annotations

import os
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("these tests need fork and /proc", allow_module_level=True)

from procession._choosing import selection
from procession._choosing.primitive_choice import choose, primitive_class
from procession._contracts.primitives import SEMAPHORE, Primitive
from procession._ground.process_status import start_of
from procession._locks.holder import Holder, has_died, myself
from procession._locks.kernel_primitive import KernelPrimitive
from procession.errors import UnknownPluginError
from procession.testing import PrimitiveSuite
from procession.testing.forked import crew, until


def _implementations() -> list[type[Primitive]]:
    registry = selection.registry()
    names = [n for n in registry.names("primitive") if registry.problem("primitive", n) is None]
    return [KernelPrimitive, *(registry.load("primitive", name) for name in names)]


class TestKernelPrimitive(PrimitiveSuite):
    """The contract of a primitive, on core's own."""

    @pytest.fixture
    def primitive(self) -> type[KernelPrimitive]:
        """The class under test."""
        return KernelPrimitive


def test_start_tells_processes_apart() -> None:
    """A process is alive as long as it is the same; a number alone is taken on trust."""
    pid, start = myself()
    assert (os.getpid(), start_of(os.getpid())) == (pid, start)
    assert not has_died(pid, start)
    assert not has_died(pid, 0)
    assert has_died(pid, start + 1)
    assert Holder(pid, start + 1, "", 0, 1).has_died()


def test_zombie_has_died() -> None:
    """A process that has ended and was not collected holds nothing any more."""
    with crew() as fork:
        end, begin = os.pipe()
        child = fork(lambda: os.read(end, 1))
        start = start_of(child.pid)
        assert not has_died(child.pid, start)
        os.write(begin, b"x")
        until(child.stopped)
        assert has_died(child.pid, start)
        os.close(end)
        os.close(begin)


def test_out_of_descriptors() -> None:
    """Making one fails with an error that says so, and leaves nothing open."""
    import resource

    def make_many() -> None:
        while True:
            kept.append(KernelPrimitive.make(SEMAPHORE, 1, 1))

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept: list[Primitive] = []
    before = len(os.listdir("/proc/self/fd"))
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            make_many()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for each in kept:
        each.close()
    kept.clear()
    assert before == len(os.listdir("/proc/self/fd"))


def test_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable decides; without it, an installed one comes before core's own."""
    monkeypatch.setenv("PROCESSION_PRIMITIVE", "python")
    assert (KernelPrimitive, "PROCESSION_PRIMITIVE") == choose()
    monkeypatch.setenv("PROCESSION_PRIMITIVE", "pyhton")
    with pytest.raises(UnknownPluginError, match="chosen by PROCESSION_PRIMITIVE"):
        primitive_class()
    monkeypatch.setenv("PROCESSION_PRIMITIVE", "")
    installed = _implementations()
    assert (installed[1] if installed[1:] else KernelPrimitive) is primitive_class()
