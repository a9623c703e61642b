"""What the handle of every child promises."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

import gc
import os
import signal
from contextlib import suppress

import pytest

from procession._contracts.child_handle import LOST_EXIT_CODE, Child
from procession.connection import Connection
from procession.process import Process
from procession.testing import launching, leaks, payloads
from procession.testing.forked import DEADLINE
from procession.testing.suites.suite import open_descriptors, readable
from procession.testing.suites.with_children import (
    Launch,
    Make,
    Pipe,
    WithChildren,
    answer,
    handle_of,
)


class ChildPromises(WithChildren):
    """The contract of the handle of a child."""

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


def _forget_handle(process: Process) -> None:
    """Have *process* be as if its child had never been there, whose handle we see to."""
    process._child = None
    assert process._post_mortem is not None
    process._post_mortem.close()
