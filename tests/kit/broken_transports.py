"""Transports that break one promise each, and which tests of the kit have to fail for it."""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from typing import Any, ClassVar

import pytest

if sys.platform != "linux":
    pytest.skip("the conformance kit looks into /proc", allow_module_level=True)

from tests.kit.breaking import breaks

from procession._channels.stream_channel import StreamChannel
from procession.errors import EndOfConnectionError
from procession.plugin import (
    Channel,
    Mailbox,
    PacketMailbox,
    PacketSocketChannel,
    PacketSocketLane,
    Transport,
    TransportFeatures,
)


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
