"""What every start method and transport promises, checked on those that scripts are played on."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from procession.plugin import Child
from procession.testing import PairSuite, StartMethodSuite, TransportSuite
from procession.testing.faults import Faults, Memory, Thread
from procession.testing.faults._home import look_everywhere
from procession.testing.faults._life import changed
from procession.testing.forked import DEADLINE, until

assert sys.platform == "linux", "the conformance kit looks into /proc"


class TestMemory(TransportSuite):
    """The contract of a transport, but for what happens between processes."""

    between_processes = False

    @pytest.fixture
    def transport(self, faults: Faults) -> type[Memory]:
        """The class under test."""
        return Memory


class TestThread(StartMethodSuite):
    """The contract of a start method and its children, but for what takes a process."""

    between_processes = False

    @pytest.fixture
    def start_method(self, faults: Faults) -> type[Thread]:
        """The class under test."""
        return Thread

    @pytest.mark.parametrize("code", [0, 1, 7, 255])
    def test_exit_statuses(self, launch: Callable[..., Child], code: int) -> None:
        """As that of a process, but by SystemExit: `os._exit` would end all."""
        child = launch(sys.exit, code)

        assert code == child.wait(DEADLINE)
        assert [code] * 3 == [child.poll() for _ in range(3)]

    @pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
    def test_a_signal_of_the_parent_is_a_negative_status(
        self, holding: tuple[Child, object], name: str
    ) -> None:
        """As that of a process that has got one of those that are acted out."""
        number = int(getattr(signal, name))
        holding[0].signal(number)

        assert -number == holding[0].wait(DEADLINE)


#: What cannot be asked of a thread, by the reason.
OF_PROCESSES = {
    "all options of a process are refused": ["options_that_the_child_sees_to"],
    "os._exit, or a signal to itself, would end all": [
        "a_signal_is_a_negative_status",
        "a_signal_to_who_has_ended",
        "closing_the_method_leaves_its_children",
        "several_threads_start_children",
        "twenty_at_once",
        "a_start_without_descriptors_to_spare",
    ],
    "what a child does not close stays open in the process that it is in": [
        "descriptors_arrive_or_are_refused",
        "more_descriptors_than_one_packet_holds",
    ],
    "what a child's program has open as it is killed is closed when its thread has left it": [
        "signals_right_after_the_start",
    ],
    "a thread cannot handle signals": ["a_signal_reaches_the_child"],
    "no process has its number": [
        "a_child_carries_out_the_plan",
        "close_gives_back_and_never_kills",
        "sentinel_does_not_wait_for_grandchildren",
        "somebody_else_has_collected_it",
    ],
}


def _skipped(reason: str) -> Callable[[object], None]:
    """Return a test in the place of one that cannot hold."""

    def test(self: object) -> None:
        pytest.skip(f"its children are threads: {reason}")

    return test


for _reason, _names in OF_PROCESSES.items():
    for _name in _names:
        assert hasattr(TestThread, f"test_{_name}")
        setattr(TestThread, f"test_{_name}", _skipped(_reason))


class TestThreadWithMemory(PairSuite):
    """What users see of both together, but for processes that are killed at random."""

    between_processes = False

    @pytest.fixture
    def start_method(self, faults: Faults) -> type[Thread]:
        """The start method."""
        return Thread

    @pytest.fixture
    def transport(self, faults: Faults) -> type[Memory]:
        """The transport."""
        return Memory

    @pytest.fixture(autouse=True)
    def everybody_has_looked(self, nothing_left_behind: None) -> Iterator[None]:
        """Have ends noticed as closed whose last copy was that of who hands descriptors over.

        Those who wait look again by themselves, and the end of the block comes after all tests.
        """
        yield
        until(lambda: all(each.name != "procession-broker" for each in threading.enumerate()))
        with changed:
            look_everywhere()
