"""Start methods that break one promise each, and which tests of the kit have to fail for it."""

from __future__ import annotations

import os
import sys
from typing import ClassVar

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from tests.kit.breaking import breaks

from procession.plugin import (
    Child,
    LaunchPlan,
    Parcel,
    PidChild,
    StartFeatures,
    StartMethod,
    spawn_interpreter,
)


class Fresh(StartMethod):
    """A sound start method; those below differ from it in one thing."""

    name: ClassVar[str] = "fresh"
    features: ClassVar[StartFeatures] = StartFeatures(
        carries_descriptors=True, options=frozenset({"interpreter_env"})
    )
    handle: ClassVar[type[PidChild]] = PidChild

    def launch(self, plan: LaunchPlan, /) -> Child:
        return self.start(plan, plan.pack())

    def start(self, plan: LaunchPlan, parcel: Parcel) -> Child:
        file = parcel.open()
        try:
            pid = spawn_interpreter(
                lambda numbers: parcel.command(numbers[0], numbers[1:]),
                (file, *self.order(parcel.descriptors)),
                self.environment(plan),
            )
            return self.handle(pid)
        finally:
            os.close(file)

    def order(self, descriptors: tuple[int, ...]) -> tuple[int, ...]:
        return descriptors

    def environment(self, plan: LaunchPlan) -> dict[str, str] | None:
        return plan.environment


@breaks("test_exit_statuses[0]")
class LeaksADescriptor(Fresh):
    def launch(self, plan: LaunchPlan, /) -> Child:
        os.dup(0)
        return super().launch(plan)


@breaks("test_memory_is_inherited_or_refused")
class LeaksWhenItCannotPack(Fresh):
    def launch(self, plan: LaunchPlan, /) -> Child:
        kept = os.dup(0)
        child = super().launch(plan)
        os.close(kept)
        return child


@breaks("test_memory_is_inherited_or_refused")
class ClaimsMemory(Fresh):
    features = StartFeatures(inherits_memory=True, carries_descriptors=True)


@breaks("test_memory_is_inherited_or_refused")
class DeniesMemory(Fresh):
    """Forks when nothing else will do."""

    def launch(self, plan: LaunchPlan, /) -> Child:
        from procession.child import end_forked

        try:
            return super().launch(plan)
        except Exception:
            pid = os.fork()
            if pid == 0:
                end_forked(plan.run())
            return PidChild(pid)


@breaks("test_descriptors_arrive_or_are_refused")
class DeniesToCarryDescriptors(Fresh):
    features = StartFeatures()


@breaks("test_descriptors_arrive_or_are_refused")
class MixesDescriptorsUp(Fresh):
    def order(self, descriptors: tuple[int, ...]) -> tuple[int, ...]:
        return (*descriptors[:-2], descriptors[-1], descriptors[-2])


@breaks("test_it_is_on_the_same_host_or_elsewhere")
class DeniesTheHost(Fresh):
    features = StartFeatures(carries_descriptors=True, same_host=False)


@breaks("test_memory_is_shared_or_not")
class ClaimsToShareMemory(Fresh):
    features = StartFeatures(carries_descriptors=True, shares_memory=True)


@breaks("test_memory_is_shared_or_not")
class DeniesToShareMemory(Fresh):
    """Does what the child is to do in this process, and has a child do nothing."""

    def launch(self, plan: LaunchPlan, /) -> Child:
        plan.process.run()
        return super().launch(plan)


@breaks("test_options_of_the_method_work_or_are_refused[interpreter_env]")
class ClaimsAnOption(Fresh):
    def environment(self, plan: LaunchPlan) -> dict[str, str] | None:
        return None


class CheerfulChild(PidChild):
    def poll(self) -> int | None:
        code = super().poll()
        return None if code is None else 0


@breaks("test_exit_statuses[7]", "test_a_signal_is_a_negative_status[SIGTERM]")
class SaysThatAllIsWell(Fresh):
    handle = CheerfulChild


class ShellChild(PidChild):
    def poll(self) -> int | None:
        code = super().poll()
        return 128 - code if code is not None and code < 0 else code


@breaks("test_a_signal_is_a_negative_status[SIGKILL]")
class CountsSignalsAsShellsDo(Fresh):
    handle = ShellChild


class ForgetfulChild(PidChild):
    def poll(self) -> int | None:
        code = super().poll()
        if code is None:
            return None
        known, self.is_known = getattr(self, "is_known", False), True
        return 255 if known else code


@breaks("test_exit_statuses[1]")
class ForgetsTheStatus(Fresh):
    handle = ForgetfulChild


class LingeringChild(PidChild):
    def poll(self) -> int | None:
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        status: int = found.si_status
        return status if found.si_code == os.CLD_EXITED else -status


@breaks("test_a_child_that_has_ended_is_collected")
class LeavesAZombie(Fresh):
    handle = LingeringChild


class HastyChild(PidChild):
    def __init__(self, pid: int, sentinel: int | None = None) -> None:
        super().__init__(pid, os.open("/dev/null", os.O_RDONLY))


@breaks("test_sentinel_is_readable_from_the_end_on")
class IsReadyBeforeTheEnd(Fresh):
    handle = HastyChild


class BluntChild(PidChild):
    def signal(self, number: int, /) -> None:
        if self.poll() is not None:
            raise ProcessLookupError(3, "No such process")
        super().signal(number)


@breaks("test_a_signal_to_who_has_ended[True]")
class RefusesToSignalTheDead(Fresh):
    handle = BluntChild


class DeafChild(PidChild):
    def signal(self, number: int, /) -> None:
        super().signal(9)


@breaks("test_a_signal_reaches_the_child")
class SendsAnotherSignal(Fresh):
    handle = DeafChild


class MurderousChild(PidChild):
    def close(self) -> None:
        self.signal(9)
        super().close()


@breaks("test_close_gives_back_and_never_kills")
class KillsOnClose(Fresh):
    handle = MurderousChild


class OpenChild(PidChild):
    def close(self) -> None:
        return


@breaks("test_close_gives_back_and_never_kills", "test_what_is_collected_is_closed")
class NeverCloses(Fresh):
    handle = OpenChild
