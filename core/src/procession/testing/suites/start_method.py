"""What every start method promises."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from pickle import PicklingError
from typing import ClassVar

import pytest

from procession._choosing import selection
from procession._choosing.negotiation import obstacle
from procession._contracts.channel import Channel
from procession._contracts.child_handle import LOST_EXIT_CODE, Child
from procession._contracts.features import TransportFeatures
from procession._contracts.start_method import StartMethod
from procession._contracts.transport import Transport
from procession._starting import launch as _launch
from procession._starting.surroundings import NEED_THE_METHOD
from procession.connection import Connection
from procession.errors import ResourceError, UnsupportedOptionError
from procession.testing import launching, payloads
from procession.testing.forked import DEADLINE
from procession.testing.killing import KILLS, chosen_seed, run
from procession.testing.killing_scenarios import Starts
from procession.testing.shortage import free_descriptors
from procession.testing.suites.child import ChildPromises
from procession.testing.suites.suite import Declined, Fork, open_descriptors, readable
from procession.testing.suites.with_children import Launch, Make, Pipe, answer, handle_of

#: With so many descriptors to spare any start succeeds.
_PLENTY = 40
#: A start that has succeeded so often with few descriptors does with more of them.
_ENOUGH = 3


class OnOneHost(Transport):
    """A transport that can do with whatever a start method gives, but the same host."""

    name: ClassVar[str] = "on-one-host"
    features: ClassVar[TransportFeatures] = TransportFeatures(needs_descriptors=False)

    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        """See `Transport.pair`."""
        raise OSError("it is there to be refused")


class StartMethodSuite(ChildPromises):
    """The contract of a start method and of the handle of a child.

    Override the fixture `start_method`: it returns the class.
    """

    # -- the method ------------------------------------------------------------------------

    def test_its_name_leads_to_it(self, start_method: type[StartMethod]) -> None:
        """Users choose it by a name, which is the class's own.

        `StartMethod.name`: "The name users select; equals the name of the entry point."
        """
        assert start_method is selection.registry().load("start_method", start_method.name)

    def test_a_child_carries_out_the_plan(self, start: Make, pipe: Pipe) -> None:
        """It is who its parent has made, and knows whose child it is.

        `StartMethod.launch`: "Start a process that carries out *plan* and return its handle."
        """
        here, there = pipe()
        process = start(payloads.call, there, launching.be_known, name="bob", daemon=True)
        known = answer(here, handle_of(process))

        assert ("bob", True) == (known["name"], known["daemon"])
        assert bytes(process.authkey) == known["authkey"]
        assert ("MainProcess", os.getpid(), True) == known["parent"]
        assert handle_of(process).pid == process.pid

    def test_options_that_the_child_sees_to(
        self, start: Make, pipe: Pipe, prepared_process: Path
    ) -> None:
        """Most options of a process need nothing of its start method.

        `StartFeatures.options`: "All others are done by the child in `LaunchPlan.run` and in what
        is packed, for any method."
        """
        here, there = pipe()
        variable = "PROCESSION_TESTS_OPTION"
        options = {"env": {variable: "set"}, "cwd": str(prepared_process), "umask": 0o27}
        process = start(payloads.call, there, launching.be_surrounded, variable, **options)

        expected = ("set", str(prepared_process), 0o27)
        assert expected == answer(here, handle_of(process))

    # -- features --------------------------------------------------------------------------

    def test_memory_is_inherited_or_refused(
        self, start_method: type[StartMethod], make: Make, declined: Declined
    ) -> None:
        """What cannot be pickled is there in a copy of the memory, and refused without one.

        `StartFeatures.inherits_memory`: "The child begins as a copy of the parent's memory:
        nothing needs to be pickled"
        """
        lock = threading.Lock()  # cannot be pickled
        process = make(lambda: sys.exit(9 if lock.acquire(False) else 1))
        if start_method.features.inherits_memory:
            process.start()
            assert 9 == handle_of(process).wait(DEADLINE)
            return
        declined("inherits_memory")
        with pytest.raises((PicklingError, TypeError, AttributeError)):
            process.start()
        assert process.pid is None

    def test_descriptors_arrive_or_are_refused(
        self, start_method: type[StartMethod], make: Make, declined: Declined
    ) -> None:
        """Those that an argument is made of, in their order; where it is denied, none of them.

        `StartFeatures.carries_descriptors`: "Descriptors that are named in the parcel arrive in
        the child."
        """
        pipes = [os.pipe() for _ in range(5)]
        data = [b"%d" % number for number in range(5)]
        process = make(launching.write_each, launching.Descriptors(*(w for _, w in pipes)), data)
        declares = start_method.features.carries_descriptors
        try:
            if declares or start_method.features.inherits_memory:
                process.start()
                assert 0 == handle_of(process).wait(DEADLINE)
            else:
                declined("carries_descriptors")
                with suppress(Exception):
                    process.start()
                    handle_of(process).wait(DEADLINE)
                assert not any(readable(reader) for reader, _ in pipes), (
                    "descriptors have arrived: it carries them, and declares that it does not"
                )
                return
            for _, writer in pipes:
                os.write(writer, b"!")  # what was handed over is still this process's own
            assert [text + b"!" for text in data] == [os.read(reader, 9) for reader, _ in pipes]
        finally:
            for pair in pipes:
                for fd in pair:
                    os.close(fd)

    def test_more_descriptors_than_one_packet_holds(
        self, start_method: type[StartMethod], start: Make, pipe: Pipe
    ) -> None:
        """The kernel's limit of 253 descriptors a packet is not a limit of a start.

        `StartFeatures.carries_descriptors`: "Descriptors that are named in the parcel arrive in
        the child."
        """
        _, there = pipe()
        number = there.fileno()
        process = start(payloads.nothing_with, launching.Descriptors(*[number] * 300))

        assert 0 == handle_of(process).wait(DEADLINE)

    def test_it_is_on_the_same_host_or_elsewhere(
        self, start_method: type[StartMethod], make: Make, declined: Declined
    ) -> None:
        """A child sees the kernel of its parent, or what needs that is refused.

        `StartFeatures.same_host`: "The child runs on the parent's machine and sees the same
        kernel objects."
        """
        reason = obstacle(start_method, OnOneHost) or ""
        process = make(launching.end_by_host, launching.host())
        process.start()
        code = handle_of(process).wait(DEADLINE)
        if start_method.features.same_host:
            assert 0 == code, "the child is on another host"
            assert "same_host" not in reason
            return
        declined("same_host")
        assert launching.ELSEWHERE == code, (
            "the child is on this host: declare it, or have the tests start it on another one"
        )
        assert "same_host" in reason or start_method.features.shares_memory
        with pytest.raises(UnsupportedOptionError, match="max_rss"):
            make(payloads.nothing, max_rss=1 << 30).start()

    def test_memory_is_shared_or_not(
        self, start_method: type[StartMethod], make: Make, declined: Declined
    ) -> None:
        """A process has a memory and surroundings of its own; a thread has neither.

        `StartFeatures.shares_memory`: "The child is a thread of the parent: not a copy of its
        memory, but the same."
        """
        process = make(launching.leave_a_note, "from the child")
        process.start()
        assert 0 == handle_of(process).wait(DEADLINE)
        notes = launching.notes[:]
        launching.notes.clear()
        if not start_method.features.shares_memory:
            assert [] == notes, "the child has changed the memory of its parent"
            return
        assert ["from the child"] == notes, "the child has a memory of its own"
        declined("options")
        for option in ({"cwd": "/"}, {"env": {"A": "B"}}, {"umask": 0}, {"max_rss": 1 << 30}):
            with pytest.raises(UnsupportedOptionError, match=next(iter(option))):
                make(payloads.nothing, **option).start()

    @pytest.mark.parametrize("option", sorted(NEED_THE_METHOD))
    def test_options_of_the_method_work_or_are_refused(
        self,
        start_method: type[StartMethod],
        make: Make,
        pipe: Pipe,
        declined: Declined,
        option: str,
    ) -> None:
        """What only the method can see to is done if it is declared, and refused if not.

        `StartFeatures.options`: "core refuses what needs the method and is not named here."
        """
        here, there = pipe()
        assert "interpreter_env" == option, "a new option needs a test here"
        hashes = []
        for _ in range(2):
            process = make(
                payloads.call, there, payloads.hash_of, "x", interpreter_env={"PYTHONHASHSEED": "7"}
            )
            if option not in start_method.features.options:
                declined(option)
                with pytest.raises(UnsupportedOptionError, match=option):
                    process.start()
                return
            process.start()
            hashes.append(answer(here, handle_of(process)))
        assert hashes[0] == hashes[1]
        assert hash("x") != hashes[0]

    # -- closing the method ----------------------------------------------------------------

    def test_closing_the_method_leaves_its_children(
        self, start_method: type[StartMethod], holding: tuple[Child, Connection], launch: Launch
    ) -> None:
        """Helpers are stopped, children go on, and the next start makes helpers anew.

        `StartMethod.close`: "Stop helper processes, if there are any; children go on. Idempotent."
        """
        child, connection = holding
        method = _launch.methods.get(start_method)
        method.close()
        method.close()
        _launch.methods.close()
        assert child.poll() is None
        connection.send("go on")
        assert child.wait(DEADLINE) in (0, LOST_EXIT_CODE)
        assert 5 == launch(payloads.exit_at_once, 5).wait(DEADLINE)

    def test_a_forked_copy_of_the_parent(
        self, start_method: type[StartMethod], holding: tuple[Child, Connection], fork: Fork
    ) -> None:
        """It starts children of its own, and neither uses nor stops what it has inherited.

        `StartMethod.abandon`: "Helper processes are the original's and must not be touched."
        """
        child, connection = holding

        def start_one() -> None:
            process = launching.start_by(start_method.name, payloads.exit_at_once, 5)
            assert 5 == handle_of(process).wait(DEADLINE)
            process.close()
            _launch.methods.close()

        assert 0 == fork(start_one).join()
        assert child.poll() is None
        connection.send("go on")
        assert 0 == child.wait(DEADLINE)
        start_one()

    # -- many, and too many ----------------------------------------------------------------

    @pytest.mark.filterwarnings("ignore")  # a start method may warn of forks beside threads
    def test_several_threads_start_children(self, start_method: type[StartMethod]) -> None:
        """Each gets the child that it has started.

        `StartMethod.launch`: "May be called from any thread, by several at once."
        """

        def start_some(first: int) -> list[int | None]:
            codes = []
            for code in range(first, first + 5):
                process = launching.start_by(start_method.name, payloads.exit_at_once, code)
                codes.append(handle_of(process).wait(DEADLINE))
                process.close()
            return codes

        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(start_some, (10, 20, 30)))
        assert [list(range(first, first + 5)) for first in (10, 20, 30)] == found

    def test_twenty_at_once(self, launch: Launch) -> None:
        """Children that are alive at the same time end with their own codes.

        `StartMethod.launch`: "Start a process that carries out *plan* and return its handle."
        """
        children = [launch(payloads.exit_at_once, code) for code in range(20)]

        assert list(range(20)) == [child.wait(DEADLINE) for child in children]

    def test_a_parcel_of_any_size(self, start: Make) -> None:
        """A start does not wait for a child that has not read its arguments yet.

        `Parcel.open`: "A file, unlike a pipe, takes any amount without a reader, so that a start
        never waits for its child."
        """
        process = start(payloads.nothing_with, bytes(20_000_000))

        assert 0 == handle_of(process).wait(DEADLINE)

    def test_a_start_without_descriptors_to_spare(self, make: Make) -> None:
        """It works or raises, and then there is neither a child nor an open descriptor.

        `StartMethod.launch`: "Whatever is raised here reaches the caller of ``start()``; no
        process and no descriptor is left behind then."
        """
        worked = failed = 0
        for free in range(_PLENTY):
            process = make(payloads.exit_at_once, 6)
            before = open_descriptors()
            try:
                with free_descriptors(free):
                    process.start()
            except OSError as error:
                assert isinstance(error, ResourceError), repr(error)  # noqa: PT017
                assert process.pid is None
                assert before == open_descriptors()
                failed += 1
                continue
            assert 6 == handle_of(process).wait(DEADLINE)
            worked += 1
            if worked == _ENOUGH:
                break
        assert failed
        assert worked == _ENOUGH

    # -- the death of a parent -------------------------------------------------------------

    @pytest.mark.parametrize(
        "target", [payloads.hold_for_ever, payloads.compute_for_ever], ids=["holds", "computes"]
    )
    def test_a_daemon_ends_with_a_killed_parent(
        self, start_method: type[StartMethod], fork: Fork, target: Callable[[], None]
    ) -> None:
        """Also when it never returns to the interpreter, and holds its lock.

        `LaunchPlan.daemon`: "Whether the child must not outlive its parent."
        """
        reader, writer = os.pipe()

        def be_parent() -> None:
            process = launching.start_by(start_method.name, target, daemon=True)
            os.write(writer, str(process.pid).encode())
            payloads.hold_for_ever()

        parent = fork(be_parent)
        child = os.pidfd_open(int(os.read(reader, 20)))
        parent.kill()

        assert readable(child, DEADLINE)
        for fd in (reader, writer, child):
            os.close(fd)

    @pytest.mark.timeout(60 + KILLS)
    def test_starts_that_are_killed_at_random(
        self, start_method: type[StartMethod], fork: Fork, prepared_process: Path
    ) -> None:
        """A parent, its child and its helper may be killed anywhere in a start.

        `StartMethod.launch`: "Whatever is raised here reaches the caller of ``start()``; no
        process and no descriptor is left behind then."
        """
        run(Starts(start_method.name), KILLS, chosen_seed(), prepared_process)
