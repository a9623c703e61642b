"""What every transport promises."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

import errno
import os
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from procession._choosing import selection
from procession._choosing.negotiation import obstacle
from procession._contracts.channel import Channel
from procession._contracts.child_handle import Child
from procession._contracts.features import StartFeatures
from procession._contracts.mailbox import Mailbox
from procession._contracts.start_method import StartMethod
from procession._contracts.transport import Transport
from procession._ground.handoff import Exportable, Handoff, Recipe, Takeover
from procession._starting.launch_plan import LaunchPlan
from procession.testing.forked import DEADLINE, crew
from procession.testing.shortage import free_descriptors
from procession.testing.suites.channel import ChannelPromises, Pair
from procession.testing.suites.channel_signals import ChannelSignalPromises
from procession.testing.suites.mailbox import MailboxSuite, Make
from procession.testing.suites.suite import Declined, nothing_stays_open

#: In bytes, and such as any transport with a choice can have.
_SIZE = 64 << 10
#: More descriptors than any pair or mailbox is made of.
_PLENTY = 24


class Crossing(Handoff, Takeover):
    """A crossing into this same process: the tokens are the numbers of duplicates.

    *most*: how many of them can be taken, as if the giver had gone then.
    """

    def __init__(self, most: int = _PLENTY) -> None:
        self.given: list[int] = []
        self.taken: list[int] = []
        self._most = most

    def give(self, fd: int, /) -> int:
        """See `Handoff.give`."""
        self.given.append(os.dup(fd))
        return len(self.given) - 1

    def take(self, token: int, /) -> int:
        """See `Takeover.take`."""
        if len(self.taken) == self._most:
            raise ConnectionResetError(errno.ECONNRESET, "the giver has gone")
        self.taken.append(token)
        return self.given[token]

    def close(self) -> None:
        """Close what nobody has taken."""
        for token, fd in enumerate(self.given):
            if token not in self.taken:
                os.close(fd)


def crossed(exported: Any, most: int = _PLENTY) -> Any:
    """Return what another process gets that is handed *exported*, attached in this one."""
    crossing = Crossing(most)
    try:
        recipe: Recipe = pickle.loads(pickle.dumps(exported.export(crossing)))
        kind: Any = pickle.loads(pickle.dumps(type(exported)))
        return kind.attach(recipe, crossing)
    finally:
        crossing.close()


def room(reader: Channel, writer: Channel) -> int:
    """Return how many bytes *writer* can send while nobody receives; closes both."""
    body, sent = bytes(1000), 0
    while writer.wait_for_room(len(body), 0):
        writer.send(body)
        sent += len(body)
    writer.close()
    reader.close()
    return sent


class Elsewhere(StartMethod):
    """Starts children on another host, which can be given descriptors all the same."""

    name: ClassVar[str] = "elsewhere"
    features: ClassVar[StartFeatures] = StartFeatures(carries_descriptors=True, same_host=False)

    def launch(self, plan: LaunchPlan, /) -> Child:
        """See `StartMethod.launch`."""
        raise OSError("it is there to be refused")


class TransportSuite(ChannelPromises, ChannelSignalPromises, MailboxSuite):
    """The contract of a transport, its channels and its mailboxes.

    Override the fixture `transport`: it returns the class.
    """

    @pytest.fixture
    def make_mailbox(self, transport: type[Transport], pair: Pair) -> Make:
        """Make a mailbox of the transport."""
        return transport().mailbox

    @pytest.fixture
    def survives_putters(self, transport: type[Transport]) -> bool:
        """Whether it is declared that short messages are atomic."""
        return transport.features.atomic_up_to > 0

    @pytest.fixture
    def makers(self, transport: type[Transport]) -> dict[str, Callable[[], list[Any]]]:
        """Everything that a transport makes."""
        made = transport()

        def pair() -> list[Channel]:
            return list(made.pair(duplex=made.features.duplex))

        def mailbox() -> list[Mailbox]:
            return [made.mailbox(maxsize=3, joinable=True)]

        return {
            "one-way pair": lambda: list(made.pair(duplex=False)),
            "pair": pair,
            "mailbox": mailbox,
        }

    # -- the transport ---------------------------------------------------------------------

    def test_its_name_leads_to_it(self, transport: type[Transport]) -> None:
        """Users choose it by a name, which is the class's own.

        `Transport.name`: "The name users select; equals the name of the entry point."
        """
        assert transport is selection.registry().load("transport", transport.name)
        assert isinstance(transport.details(), str)

    def test_it_holds_no_descriptors(self, transport: type[Transport], pair: Pair) -> None:
        """Whoever only has the transport has nothing to close.

        `Transport`: "Core makes one instance, without arguments, per process that uses it; it
        holds no descriptors of its own."
        """
        with nothing_stays_open():
            made = transport()
            for each in made.pair(duplex=False):
                each.close()
            assert isinstance(made, Transport)

    def test_its_size_can_be_chosen_if_it_says_so(
        self, transport: type[Transport], declined: Declined
    ) -> None:
        """How much can be on its way is the user's choice, where there is one.

        `Transport.pair`: "A transport whose features have `sizes` takes a keyword *size*, too,
        here and in `mailbox`"
        """
        made: Any = transport()
        if not transport.features.sizes:
            declined("sizes")
            with pytest.raises(TypeError):
                made.pair(duplex=False, size=_SIZE)
            with pytest.raises(TypeError):
                made.mailbox(size=_SIZE)
            return
        made.mailbox(size=_SIZE).close()
        small, large = (room(*made.pair(duplex=False, size=size)) for size in (_SIZE, 8 * _SIZE))
        assert small < large, "the size makes no difference"
        with pytest.raises(ValueError, match="size"):
            made.pair(duplex=False, size=-1)

    def test_other_hosts_are_served_or_refused(
        self, transport: type[Transport], pair: Pair, declined: Declined
    ) -> None:
        """What needs one host is refused with others; what does not crosses by other means.

        `TransportFeatures.same_host`: "Both ends must be on one machine."
        """
        reason = obstacle(Elsewhere, transport)
        if transport.features.same_host:
            declined("other hosts")
            assert reason is not None
            return
        assert reason is None
        crosses = type(pair(duplex=False)[0]).__reduce__
        assert crosses is not Exportable.__reduce__ or not transport.features.needs_descriptors, (
            "its ends are sent as those are that must stay on their host: they have no "
            "`__reduce__` of their own"
        )

    def test_messages_stay_in_this_process_or_leave_it(
        self, transport: type[Transport], ends: tuple[Channel, Channel], declined: Declined
    ) -> None:
        """What another process sends arrives, unless it is declared that it does not.

        `TransportFeatures.shares_memory`: "Messages stay in the memory of one process: both ends
        must be in it."
        """
        reader, writer = ends
        with crew() as fork:
            code = fork(lambda: writer.send(b"from a process")).join()
        if transport.features.shares_memory:
            declined("other processes")
            assert obstacle(Elsewhere, transport) is not None
            assert not reader.wait(0), "the message of another process has come"
            return
        assert 0 == code
        assert reader.wait(DEADLINE)
        assert b"from a process" == bytes(reader.receive()[0])

    @pytest.mark.parametrize("what", ["one-way pair", "pair", "mailbox"])
    def test_nothing_stays_open_when_descriptors_run_out(
        self, makers: dict[str, Callable[[], list[Any]]], pair: Pair, what: str
    ) -> None:
        """What cannot be made whole is not made at all.

        `Transport.pair`: "Raises `OSError` when descriptors or memory have run out, and leaves
        nothing open then."
        """
        for each in makers[what]():
            each.close()  # what it needs is imported
        made = False
        for free in range(_PLENTY):
            with nothing_stays_open(), free_descriptors(free):
                try:
                    for each in makers[what]():
                        each.close()
                    made = True
                except OSError as error:
                    assert error.errno in (errno.EMFILE, errno.ENFILE), error  # noqa: PT017
                    assert not made, "with more descriptors it could not be made any more"
        assert made

    # -- crossing into another process -----------------------------------------------------

    @pytest.mark.parametrize("what", ["one-way pair", "pair", "mailbox"])
    def test_descriptors_are_given_as_declared(
        self,
        transport: type[Transport],
        makers: dict[str, Callable[[], list[Any]]],
        pair: Pair,
        declined: Declined,
        what: str,
    ) -> None:
        """What needs no descriptors gives none; no descriptor is inheritable.

        `TransportFeatures.needs_descriptors`: "An end reaches another process as open
        descriptors: the start method must hand these over"
        """
        for each in makers[what]():
            crossing = Crossing()
            recipe = each.export(crossing)
            assert isinstance(pickle.loads(pickle.dumps(recipe)), tuple)
            if transport.features.needs_descriptors:
                assert crossing.given
            else:
                declined("needs_descriptors")
                assert [] == crossing.given
            assert not any(map(os.get_inheritable, crossing.given))
            crossing.close()
            assert not os.get_inheritable(each.fileno())
            each.close()

    def test_a_copy_of_an_end_is_the_same_end(self, ends: tuple[Channel, Channel]) -> None:
        """It receives what is sent there, goes on when the original is closed, and closes its own.

        `Exportable.attach`: "Build the object from *recipe*; it owns every descriptor taken for
        it."
        """
        reader, writer = ends

        def use_copies() -> None:
            other_reader, other_writer = crossed(reader), crossed(writer)
            other_writer.send(b"by the copy")
            assert b"by the copy" == bytes(reader.receive()[0])
            writer.send(b"for the copy")
            assert b"for the copy" == bytes(other_reader.receive()[0])
            other_reader.close()
            other_writer.close()

        use_copies()  # what the originals open when they are first used stays theirs
        with nothing_stays_open():
            use_copies()
        writer.send(b"goes on")
        assert b"goes on" == bytes(reader.receive()[0])

    def test_the_end_comes_with_the_last_copy(self, ends: tuple[Channel, Channel]) -> None:
        """As long as anybody can send there is no end, and as long as anybody receives no error.

        `Channel.receive`: "Raises `EOFError` when the peer has closed and every message was
        received"
        """
        reader, writer = ends
        copy = crossed(writer)
        writer.close()
        assert not reader.wait(0)
        copy.send(b"last")
        assert b"last" == bytes(reader.receive()[0])
        assert not reader.wait(0)
        copy.close()
        assert reader.wait(0)
        with pytest.raises(EOFError):
            reader.receive()

    def test_a_copy_of_a_mailbox_is_the_same_mailbox(self, mailbox: Make) -> None:
        """What is put into one is taken from the other, and is counted once.

        `Exportable.export`: "Return the recipe from which `attach` builds this object elsewhere."
        """
        original = mailbox(maxsize=20, joinable=True)

        def use_copy() -> None:
            copy = crossed(original)
            for body in (*[b"message"] * 10, bytes(3000)):
                original.put(body)
            assert (20, 11) == (copy.maxsize, copy.size())
            for _ in range(11):
                copy.get()
                copy.task_done()
            assert original.join(0)
            copy.close()

        use_copy()  # what the original opens when it is first used stays its own
        with nothing_stays_open():
            use_copy()
        original.put(b"goes on")
        assert b"goes on" == bytes(original.get()[0])

    @pytest.mark.parametrize("what", ["one-way pair", "pair", "mailbox"])
    def test_a_failed_attach_leaks_nothing(
        self, makers: dict[str, Callable[[], list[Any]]], pair: Pair, what: str
    ) -> None:
        """When a descriptor cannot be taken, those that were are closed.

        `Takeover.take`: "Raises `OSError` (or a `procession.errors` subclass of it) when the
        giver has gone before the descriptor could be fetched."
        """
        for each in makers[what]():
            crossing = Crossing()
            each.export(crossing)
            crossing.close()
            for most in range(len(crossing.given)):
                with nothing_stays_open(), pytest.raises(OSError, match="the giver has gone"):
                    crossed(each, most)
            each.close()
