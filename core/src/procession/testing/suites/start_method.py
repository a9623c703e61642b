"""What every start method promises."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from pickle import PicklingError
from typing import Any, ClassVar, TypeAlias

import pytest

from procession import _launch, _selection
from procession._channel import Channel
from procession._child_handle import LOST_EXIT_CODE, Child
from procession._features import TransportFeatures
from procession._negotiation import obstacle
from procession._start_method import StartMethod
from procession._stream_channel import StreamChannel
from procession._surroundings import NEED_THE_METHOD
from procession._transport import Transport
from procession.connection import Connection, wait
from procession.errors import ResourceError, UnsupportedOptionError
from procession.process import Process, process_class
from procession.testing import launching, leaks, payloads
from procession.testing.forked import DEADLINE
from procession.testing.killing import KILLS, chosen_seed, run
from procession.testing.killing_scenarios import Starts
from procession.testing.shortage import free_descriptors
from procession.testing.suites.suite import Declined, Fork, Suite, open_descriptors, readable

Make: TypeAlias = Callable[..., Process]
Launch: TypeAlias = Callable[..., Child]
Pipe: TypeAlias = Callable[[], tuple[Connection, Connection]]

#: With so many descriptors to spare any start succeeds.
_PLENTY = 40
#: A start that has succeeded so often with few descriptors does with more of them.
_ENOUGH = 3


def handle_of(process: Process) -> Child:
    """The handle that `StartMethod.launch` has returned for *process*."""
    assert process._child is not None
    return process._child


def answer(connection: Connection, child: Child | int) -> Any:
    """Return what *child* sends, which may be given by its sentinel; it must not end instead."""
    sentinel = child if isinstance(child, int) else child.sentinel
    ready = wait([connection, sentinel], DEADLINE)
    assert connection in ready, "the child has ended" if ready else "the child does not answer"
    return connection.recv()


class OnOneHost(Transport):
    """A transport that can do with whatever a start method gives, but the same host."""

    name: ClassVar[str] = "on-one-host"
    features: ClassVar[TransportFeatures] = TransportFeatures(needs_descriptors=False)

    def pair(self, *, duplex: bool = True) -> tuple[Channel, Channel]:
        """See `Transport.pair`."""
        raise OSError("it is there to be refused")


class StartMethodSuite(Suite):
    """The contract of a start method and of the handle of a child.

    Override the fixture `start_method`: it returns the class.
    """

    @pytest.fixture
    def start_method(self) -> type[StartMethod]:
        """The class of the start method under test. Override this."""
        raise NotImplementedError(
            f"{type(self).__name__} has to override the fixture `start_method`, with the class"
        )

    @pytest.fixture
    def warmed_up(self, start_method: type[StartMethod]) -> None:
        """Start one child, so that what is kept for the next ones is there."""
        reason = start_method.unavailable()
        if reason is not None:
            pytest.skip(f"NOT TESTED: {start_method.name} cannot work here: {reason}")
        process = launching.start_by(start_method.name, payloads.nothing)
        process.join(DEADLINE)
        if process.exitcode is None:
            process.kill()
            process.join(DEADLINE)
        process.close()

    @pytest.fixture
    def make(self, start_method: type[StartMethod]) -> Iterator[Make]:
        """Make a process, unstarted; it is killed and closed after the test."""
        made: list[Process] = []

        def make(target: Callable[..., object], *args: Any, **options: Any) -> Process:
            kind = process_class(start_method.name, "Process")
            made.append(kind(target=target, args=args, **options))
            return made[-1]

        yield make
        for process in made:
            if process._child is not None:
                process._child.signal(signal.SIGKILL)
                process._child.wait(DEADLINE)
                process.close()

    @pytest.fixture
    def start(self, make: Make) -> Make:
        """Make and start a process."""

        def start(*args: Any, **options: Any) -> Process:
            process = make(*args, **options)
            process.start()
            return process

        return start

    @pytest.fixture
    def launch(self, start: Make) -> Launch:
        """Start a process and return the handle of its child."""
        return lambda *args, **options: handle_of(start(*args, **options))

    @pytest.fixture
    def pipe(self, start_method: type[StartMethod]) -> Iterator[Pipe]:
        """Make a pair of connections, of which a child gets the second; they are closed after.

        They need no transport, but a start method that hands descriptors over.
        """
        features = start_method.features
        if not (features.carries_descriptors or features.inherits_memory):
            pytest.skip("declares that no descriptor reaches its children")
        made: list[Connection] = []

        def pipe() -> tuple[Connection, Connection]:
            import socket

            for end in socket.socketpair():
                number = end.detach()
                made.append(Connection.over(StreamChannel((number,), (number,))))
            return made[-2], made[-1]

        yield pipe
        for end in made:
            end.close()

    @pytest.fixture
    def holding(self, pipe: Pipe, launch: Launch) -> tuple[Child, Connection]:
        """A child that says that it is there and waits for a message, and its connection.

        In this order: the child is killed before its connection is closed, which it would see.
        """
        here, there = pipe()
        child = launch(payloads.hold, there)
        assert "ready" == answer(here, child)
        return child, here

    # -- the method ------------------------------------------------------------------------

    def test_its_name_leads_to_it(self, start_method: type[StartMethod]) -> None:
        """Users choose it by a name, which is the class's own.

        `StartMethod.name`: "The name users select; equals the name of the entry point."
        """
        assert start_method is _selection.registry().load("start_method", start_method.name)

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

    # -- how children end ------------------------------------------------------------------

    @pytest.mark.parametrize("code", [0, 1, 7, 255])
    def test_exit_statuses(self, launch: Launch, code: int) -> None:
        """The code that a child ends with is what its handle says, for ever.

        `Child.poll`: "Once it has answered a number it answers that number for ever."
        """
        child = launch(payloads.exit_at_once, code)

        assert code == child.wait(DEADLINE)
        assert [code] * 3 == [child.poll() for _ in range(3)]

    @pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGUSR1", "SIGUSR2"])
    def test_a_signal_is_a_negative_status(self, launch: Launch, name: str) -> None:
        """Who is killed by a signal has its negative number.

        `Child.poll`: "Return the exit code, the negative signal number, or None while it runs."
        """
        number = int(getattr(signal, name))
        assert -number == launch(payloads.die_by, number).wait(DEADLINE)

    def test_poll_while_it_runs(self, holding: tuple[Child, Connection]) -> None:
        """There is no status before the end, and nobody waits for one.

        `Child.poll`: "Never blocks."
        """
        child, connection = holding
        assert [None] * 3 == [child.poll() for _ in range(3)]
        assert child.wait(0) is None
        assert child.wait(0.01) is None
        connection.send("go on")

        assert 0 == child.wait()

    def test_a_child_that_has_ended_is_collected(self, launch: Launch) -> None:
        """Whoever has the status has seen the last of the child.

        `Child.poll`: "No zombie of a child is left when it has answered a number."
        """
        child = launch(payloads.nothing)
        assert 0 == child.wait(DEADLINE)
        with pytest.raises(ChildProcessError):
            os.waitpid(child.pid, os.WNOHANG)

    def test_somebody_else_has_collected_it(self, holding: tuple[Child, Connection]) -> None:
        """A program that waits for any child costs us the code, and nothing else.

        `Child.poll`: "Never blocks."
        """
        child, connection = holding
        connection.send("go on")
        try:
            os.waitpid(child.pid, 0)
        except ChildProcessError:
            pytest.skip("not a child of this process: nobody else can collect it")
        assert child.wait(DEADLINE) in (0, LOST_EXIT_CODE)

    # -- sentinels -------------------------------------------------------------------------

    def test_sentinel_is_readable_from_the_end_on(self, holding: tuple[Child, Connection]) -> None:
        """Not before, and still when the status was asked for.

        `Child.sentinel`: "A descriptor that becomes readable when the child has ended, and stays
        so."
        """
        child, connection = holding
        assert not readable(child.sentinel)
        connection.send("go on")
        assert readable(child.sentinel, DEADLINE)
        assert 0 == child.wait(DEADLINE)
        assert readable(child.sentinel)

    def test_sentinel_of_who_is_killed(self, holding: tuple[Child, Connection]) -> None:
        """It does not matter how a child ends.

        `Child.sentinel`: "A descriptor that becomes readable when the child has ended, and stays
        so."
        """
        child, _ = holding
        child.signal(signal.SIGKILL)
        assert readable(child.sentinel, DEADLINE)
        assert -signal.SIGKILL == child.wait(DEADLINE)

    def test_sentinels_tell_children_apart(self, launch: Launch, pipe: Pipe) -> None:
        """The sentinel that is ready belongs to the child that ended, not to a sibling.

        `Child.sentinel`: "A descriptor that becomes readable when the child has ended, and stays
        so."
        """
        pipes = [pipe() for _ in range(3)]
        children = [launch(payloads.hold, there) for _, there in pipes]
        for (here, _), child in zip(pipes, children, strict=True):
            assert "ready" == answer(here, child)
        running = dict(enumerate(children))
        for index in (1, 0, 2):
            pipes[index][0].send("go on")
            ended = running.pop(index)
            assert readable(ended.sentinel, DEADLINE)
            assert 0 == ended.wait(DEADLINE)
            assert not any(readable(child.sentinel) for child in running.values())

    def test_sentinel_does_not_wait_for_grandchildren(self, launch: Launch, pipe: Pipe) -> None:
        """What a child has forked may live on, with all descriptors that it has inherited.

        `Child.sentinel`: "A descriptor that becomes readable when the child has ended, and stays
        so."
        """
        here, there = pipe()
        child = launch(launching.leave_a_forked_child, there)
        grandchild = answer(here, child)
        ready = readable(child.sentinel, DEADLINE)
        with suppress(ProcessLookupError):
            os.kill(grandchild, signal.SIGKILL)
        leaks.reap_orphans()
        assert ready
        assert child.wait(DEADLINE) in (0, LOST_EXIT_CODE)  # we have collected all there were

    # -- signals ---------------------------------------------------------------------------

    def test_a_signal_reaches_the_child(self, launch: Launch, pipe: Pipe) -> None:
        """And is the child's to handle.

        `Child.signal`: "Send signal *number*"
        """
        here, there = pipe()
        child = launch(payloads.hold_and_handle, there, int(signal.SIGTERM))
        assert "ready" == answer(here, child)
        child.signal(signal.SIGTERM)

        assert [signal.SIGTERM] == answer(here, child)
        assert 0 == child.wait(DEADLINE)

    @pytest.mark.parametrize("known", [False, True])
    def test_a_signal_to_who_has_ended(self, launch: Launch, known: bool) -> None:
        """It is lost, whether or not anybody has asked for the status before.

        `Child.signal`: "that the child has ended meanwhile is no error."
        """
        child = launch(payloads.exit_at_once, 7)
        assert readable(child.sentinel, DEADLINE)
        if known:
            assert 7 == child.poll()
        for number in (signal.SIGTERM, signal.SIGKILL):
            child.signal(number)

        assert 7 == child.wait(DEADLINE)

    def test_signals_right_after_the_start(self, launch: Launch) -> None:
        """Children that have hardly begun to exist end by SIGTERM, and by nothing else.

        `Child.signal`: "Send signal *number*"
        """
        children = [launch(payloads.hold_for_ever) for _ in range(40)]
        for child in children:
            child.signal(signal.SIGTERM)

        assert {-signal.SIGTERM} == {child.wait(DEADLINE) for child in children}

    # -- closing ---------------------------------------------------------------------------

    def test_close_gives_back_and_never_kills(self, start: Make, pipe: Pipe) -> None:
        """The child goes on, and the sentinel's descriptor is free.

        `Child.close`: "Give back what this object holds, not the child: never kills. Idempotent."
        """
        here, there = pipe()
        process = start(payloads.echo, there)
        child = handle_of(process)
        watch, sentinel = os.pidfd_open(child.pid), child.sentinel
        child.close()
        child.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(sentinel)
        here.send("alive")
        assert "alive" == answer(here, watch)
        here.send(None)
        assert readable(watch, DEADLINE)
        os.close(watch)
        leaks.reap_orphans()
        _forget_handle(process)

    def test_what_is_collected_is_closed(self, launch: Launch, make: Make) -> None:
        """A program that forgets its children does not run out of descriptors.

        `Child.close`: "Happens by itself when the object is collected."
        """

        def forget() -> None:
            process = make(payloads.nothing)
            process.start()
            assert 0 == handle_of(process).wait(DEADLINE)
            _forget_handle(process)

        forget()
        gc.collect()
        before = open_descriptors()
        for _ in range(3):
            forget()
        gc.collect()
        assert before == open_descriptors()

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


def _forget_handle(process: Process) -> None:
    """Have *process* be as if its child had never been there, whose handle we see to."""
    process._child = None
    assert process._post_mortem is not None
    process._post_mortem.close()
