"""Plugins that break one promise each, and which tests of the kit have to fail for it.

`test_teeth` runs this file in a process of its own: every test that is named here must fail.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import sys
import time
from collections import deque
from types import FunctionType
from typing import Any, ClassVar

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from procession import _selection
from procession._kernel_primitive import KernelPrimitive
from procession._plain_pickle import Pickle
from procession._registry import Registry
from procession._stream_channel import StreamChannel
from procession.errors import EndOfConnectionError
from procession.plugin import (
    Channel,
    Child,
    LaunchPlan,
    Mailbox,
    PacketMailbox,
    PacketSocketChannel,
    PacketSocketLane,
    Parcel,
    PidChild,
    Serializer,
    SerializerFeatures,
    StartFeatures,
    StartMethod,
    Transport,
    TransportFeatures,
    spawn_interpreter,
)
from procession.testing import (
    PrimitiveSuite,
    SerializerSuite,
    StartMethodSuite,
    TransportSuite,
)

#: The tests that have to fail, by the name of the class of the broken plugin.
HAS_TO_FAIL: dict[str, tuple[str, ...]] = {}


def _suite(kind: str, base: type, fixture: str, broken: type[Any], *tests: str) -> None:
    """Make the class of tests of *broken*, which pytest collects."""
    HAS_TO_FAIL[broken.__name__] = tests

    @pytest.fixture
    def plugin(self: object, monkeypatch: pytest.MonkeyPatch) -> type[Any]:
        registry = Registry()
        place = f"{broken.__module__}:{broken.__qualname__}"
        roster: Any = {(kind, broken.name): place}
        registry.adopt(roster)
        monkeypatch.setattr(_selection._selector, "registry", registry)
        return broken

    name = f"Test{broken.__name__}"
    globals()[name] = type(name, (base,), {fixture: plugin, "__module__": __name__})


def breaks(*tests: str) -> Any:
    """Decorate a broken plugin with the tests that have to fail."""

    def decorate(broken: Any) -> Any:
        if issubclass(broken, Transport):
            broken.name = broken.__name__.lower()
            _suite("transport", TransportSuite, "transport", broken, *tests)
        elif issubclass(broken, StartMethod):
            broken.name = broken.__name__.lower()
            _suite("start_method", StartMethodSuite, "start_method", broken, *tests)
        elif issubclass(broken, Serializer):
            broken.name = broken.__name__.lower()
            _suite("serializer", SerializerSuite, "serializer", broken, *tests)
        else:
            _suite("primitive", PrimitiveSuite, "primitive", broken, *tests)
        return broken

    return decorate


# -- transports ------------------------------------------------------------------------------


class Sockets(Transport):
    """A sound transport; those below differ from it in one thing."""

    name: ClassVar[str] = "sockets"
    features: ClassVar[TransportFeatures] = TransportFeatures(atomic_up_to=(64 << 10) - 1)
    channel: ClassVar[type[PacketSocketChannel]] = PacketSocketChannel

    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        return self.channel.pair(duplex=duplex)

    def mailbox(self, *, maxsize: int = 0, joinable: bool = False) -> Mailbox:
        return PacketMailbox(PacketSocketLane.create(), maxsize=maxsize, joinable=joinable)


class LosingChannel(PacketSocketChannel):
    def send(self, body: Any, buffers: Any = (), /) -> None:
        super().send(memoryview(body)[:-1], buffers)


@breaks("test_body_and_buffers_of_every_length[(4097,)]", "test_random_lengths_in_a_row")
class LosesTheLastByte(Sockets):
    channel = LosingChannel


class HastyChannel(PacketSocketChannel):
    def sender(self, body: bytes, /) -> Any:
        self.send(body)
        return lambda: None


@breaks("test_sender")
class SendsTooEarly(Sockets):
    channel = HastyChannel


class BodiesChannel(PacketSocketChannel):
    def send(self, body: Any, buffers: Any = (), /) -> None:
        super().send(body)


@breaks("test_body_and_buffers_of_every_length[(10, 100000)]")
class LosesBuffers(Sockets):
    channel = BodiesChannel


class GreedyChannel(PacketSocketChannel):
    """Has a place for what it reads ahead, which a forked process does not share."""

    __slots__ = ("ahead",)

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Any:
        ahead = getattr(self, "ahead", None)
        if ahead is None:
            ahead = self.ahead = deque[Any]()
        if not ahead:
            ahead.append(super().receive(into, limit))
            while super().wait(0):
                ahead.append(super().receive())
        return ahead.popleft()


@breaks("test_nothing_is_read_ahead")
class ReadsAhead(Sockets):
    channel = GreedyChannel


class TakingChannel(PacketSocketChannel):
    def wait(self, timeout: float | None = None, /) -> bool:
        there = super().wait(timeout)
        if there:
            self.receive()
        return there


@breaks("test_wait_takes_nothing")
class TakesInWait(Sockets):
    channel = TakingChannel


class BoundlessChannel(PacketSocketChannel):
    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Any:
        return super().receive(into)


@breaks("test_limit[True-5]", "test_limit[False-100000]")
class IgnoresTheLimit(Sockets):
    channel = BoundlessChannel


class QuietChannel(PacketSocketChannel):
    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Any:
        try:
            return super().receive(into, limit)
        except EOFError:
            raise
        except OSError as error:
            if "during message" in str(error):
                raise EndOfConnectionError from error
            raise


@breaks("test_sender_killed_in_the_middle", "test_interrupted_send_closes_the_end")
class TakesATornMessageForTheEnd(Sockets):
    channel = QuietChannel


class LeakyChannel(PacketSocketChannel):
    def close(self) -> None:
        if not self.closed and self.reader >= 0:
            os.dup(self.reader)
        super().close()


@breaks("test_close_is_idempotent")
class LeavesADescriptor(Sockets):
    channel = LeakyChannel


class InheritedChannel(PacketSocketChannel):
    def export(self, handoff: Any, /) -> Any:
        os.set_inheritable(self.fileno(), True)
        return super().export(handoff)


@breaks("test_descriptors_are_given_as_declared[one-way pair]")
class IsInheritable(Sockets):
    channel = InheritedChannel


class CarelessChannel(PacketSocketChannel):
    @classmethod
    def attach(cls, recipe: Any, takeover: Any, /) -> Any:
        (token,), others = recipe
        first = os.dup(takeover.take(token))  # a copy that nobody closes
        return cls((first,), (first,) if others is None else tuple(map(takeover.take, others)))


@breaks("test_a_copy_of_an_end_is_the_same_end")
class LeaksInAttach(Sockets):
    channel = CarelessChannel


@breaks("test_duplex_is_given_or_refused")
class DeniesDuplex(Sockets):
    features = TransportFeatures(duplex=False)


@breaks("test_duplex_is_given_or_refused", "test_directions")
class ClaimsDuplex(Sockets):
    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        return super().pair(duplex=False)


@breaks("test_descriptors_are_given_as_declared[one-way pair]")
class DeniesDescriptors(Sockets):
    features = TransportFeatures(needs_descriptors=False)


@breaks("test_other_hosts_are_served_or_refused")
class ClaimsToLeaveTheHost(Sockets):
    features = TransportFeatures(same_host=False)


@breaks("test_messages_stay_in_this_process_or_leave_it")
class ClaimsToStayInMemory(Sockets):
    features = TransportFeatures(shares_memory=True)


class NotingChannel(PacketSocketChannel):
    """Sends where in the memory of this process the message is."""

    kept: ClassVar[list[bytes]] = []

    def send(self, body: Any, buffers: Any = (), /) -> None:
        self.kept.append(bytes(body))
        super().send(b"%d" % (len(self.kept) - 1))

    def receive(self, into: memoryview | None = None, limit: int | None = None, /) -> Any:
        return bytearray(self.kept[int(bytes(super().receive()[0]))]), []


@breaks("test_messages_stay_in_this_process_or_leave_it")
class DeniesToStayInMemory(Sockets):
    channel = NotingChannel


@breaks("test_its_size_can_be_chosen_if_it_says_so")
class ClaimsSizes(Sockets):
    features = TransportFeatures(sizes=True)


@breaks("test_its_size_can_be_chosen_if_it_says_so")
class DeniesSizes(Sockets):
    def pair(self, *, duplex: bool = True, size: int = 0) -> tuple[Channel, Channel]:
        return super().pair(duplex=duplex)


@breaks("test_its_size_can_be_chosen_if_it_says_so")
class ForgetsSizes(Sockets):
    features = TransportFeatures(sizes=True)

    def pair(self, *, duplex: bool = True, size: int = 1) -> tuple[Channel, Channel]:
        if size < 1:
            raise ValueError("the size is not positive")
        return super().pair(duplex=duplex)

    def mailbox(self, *, maxsize: int = 0, joinable: bool = False, size: int = 0) -> Mailbox:
        return super().mailbox(maxsize=maxsize, joinable=joinable)


@breaks("test_atomic_messages_of_several_processes", "test_mailbox_of_a_putter_that_was_killed")
class ClaimsToBeAtomic(Transport):
    features: ClassVar[TransportFeatures] = TransportFeatures(atomic_up_to=400_000)

    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        if duplex:
            one, other = (end.detach() for end in socket.socketpair())
            return StreamChannel((one,), (one,)), StreamChannel((other,), (other,))
        reader, writer = os.pipe()
        return StreamChannel((reader,), ()), StreamChannel((), (writer,))


@breaks("test_nothing_stays_open_when_descriptors_run_out[pair]")
class LeaksWhenDescriptorsRunOut(Sockets):
    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        reader, writer = os.pipe()
        pair = super().pair(duplex=duplex)
        os.close(reader)
        os.close(writer)
        return pair


@breaks("test_it_holds_no_descriptors")
class HoldsADescriptor(Sockets):
    def __init__(self) -> None:
        self.lock = os.open("/dev/null", os.O_RDONLY)


@breaks("test_mailbox_is_full_at_once_or_in_time")
class ForgetsMaxsize(Sockets):
    def mailbox(self, *, maxsize: int = 0, joinable: bool = False) -> Mailbox:
        return super().mailbox(joinable=joinable)


class TwiceMailbox(PacketMailbox):
    """Counts a message as done that nobody has done."""

    __slots__ = ()

    def get(self, *, timeout: float | None = None) -> Any:
        message = super().get(timeout=timeout)
        try:
            self.task_done()
        except ValueError:
            return message
        return message


@breaks("test_mailbox_join_waits_for_what_was_taken")
class DoesNotWaitForTasks(Sockets):
    def mailbox(self, *, maxsize: int = 0, joinable: bool = False) -> Mailbox:
        return TwiceMailbox(PacketSocketLane.create(), maxsize=maxsize, joinable=joinable)


class LendingMailbox(PacketMailbox):
    """Lends, and reserves, the same memory to everybody."""

    __slots__ = ("_buffer",)

    def get_leased(self, *, timeout: float | None = None) -> Any:
        body, buffers = self.get(timeout=timeout)
        if not buffers:
            return body, buffers
        common = self._common()[: len(buffers[0])]
        common[:] = buffers[0]
        return body, [common, *buffers[1:]]

    def reserve(self, size: int, /) -> memoryview | None:
        return self._common()[:size]

    def put_reserved(
        self, body: Any, memory: memoryview, /, *, timeout: float | None = None
    ) -> None:
        self.put(body, (memory[:-1],), timeout=timeout)

    def _common(self) -> memoryview:
        if not hasattr(self, "_buffer"):
            self._buffer = memoryview(bytearray(1 << 20))
        return self._buffer


@breaks(
    "test_mailbox_lends_memory_that_nobody_else_writes_to",
    "test_mailbox_reserves_memory_for_a_message",
)
class LendsTwice(Sockets):
    def mailbox(self, *, maxsize: int = 0, joinable: bool = False) -> Mailbox:
        return LendingMailbox(PacketSocketLane.create(), maxsize=maxsize, joinable=joinable)


# -- start methods ---------------------------------------------------------------------------


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


# -- primitives ------------------------------------------------------------------------------


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


# -- serializers -----------------------------------------------------------------------------


@breaks("test_functions_go_by_value_or_are_refused")
class ClaimsToPickleByValue(Pickle):
    features = SerializerFeatures(by_value=True)


class FunctionPickler(pickle.Pickler):
    def reducer_override(self, obj: Any, /) -> Any:
        if isinstance(obj, FunctionType) and obj.__name__ == "<lambda>":
            return str, (obj.__qualname__,)
        return NotImplemented


@breaks("test_functions_go_by_value_or_are_refused")
class DeniesToPickleByValue(Pickle):
    @classmethod
    def pickler(cls) -> type[pickle.Pickler]:
        return FunctionPickler


class InlinePickler(pickle.Pickler):
    def __init__(self, file: Any, protocol: int, **options: Any) -> None:
        super().__init__(file, protocol)


@breaks("test_buffers_stay_outside")
class CopiesBuffers(Pickle):
    @classmethod
    def pickler(cls) -> type[pickle.Pickler]:
        return InlinePickler


@breaks("test_the_other_side_needs_pickle_alone[list]")
class UsesAnOldProtocol(Pickle):
    @classmethod
    def dumps(cls, obj: Any, protocol: int, **options: Any) -> bytes:
        return pickle.dumps(obj, 2)
