"""What every suite of the conformance kit has."""

from __future__ import annotations

import sys

assert sys.platform == "linux", "the conformance kit looks into /proc"

import os
import select
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar, TypeAlias

import pytest

from procession.testing import leaks, tidiness
from procession.testing.forked import Forked, crew

#: Starts a forked process that calls a function and exits with 0, or 1 if that raises.
Fork: TypeAlias = Callable[[Callable[[], object]], Forked]
#: Notes that a feature is declared absent, and that this is a test of its refusal.
Declined: TypeAlias = Callable[[str], None]

#: Under what `Declined` keeps its notes in a test's ``user_properties``.
REFUSED = "refused as declared"


def readable(fd: int, timeout: float = 0) -> bool:
    """Whether select says within *timeout* seconds that *fd* is readable."""
    return bool(select.select([fd], [], [], timeout)[0])


def open_descriptors() -> list[str]:
    """The numbers of all open descriptors of this process."""
    return sorted(os.listdir("/proc/self/fd"))


@contextmanager
def nothing_stays_open() -> Iterator[None]:
    """Check that the block closes what it opens."""
    before = open_descriptors()
    yield
    assert before == open_descriptors()


class Suite:
    """The promises of one contract, as tests. Subclass a suite and override its fixtures.

    After every test nothing of it may be left: no process, no zombie of a start method, no
    thread, no descriptor, no file in ``/dev/shm`` or in the temporary directory. A test whose
    docstring is not enough is best read in its source: it is short.
    """

    @pytest.fixture(autouse=True)
    def prepared_process(self) -> Iterator[Path]:
        """Make the process that runs the tests a plain one; give its temporary directory.

        It adopts the orphans of its children from then on, so that none is overlooked.
        """
        leaks.adopt_orphans()
        with tidiness.plain_main_module(), tidiness.temporary_files() as directory:
            yield directory

    @pytest.fixture
    def warmed_up(self) -> None:
        """Use once what keeps something on purpose, such as a helper process."""

    @pytest.fixture(autouse=True)
    def nothing_left_behind(self, prepared_process: Path, warmed_up: None) -> Iterator[None]:
        """Fail a test that leaves a process, thread, descriptor or file behind, and name it."""
        tidiness.have_memory_for_locks()
        before = leaks.Snapshot.take(prepared_process)
        yield
        left = before.leaks()
        if left:
            for process in before.new_processes(0):
                leaks.kill(process)
            pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)

    @pytest.fixture
    def cleanup(self) -> Iterator[ExitStack]:
        """Callbacks to run after the test, the last one first."""
        with ExitStack() as stack:
            yield stack

    @pytest.fixture
    def declined(self, request: pytest.FixtureRequest) -> Declined:
        """What a test calls when it goes on to test a refusal."""

        def declined(feature: str) -> None:
            request.node.user_properties.append((REFUSED, feature))

        return declined

    #: Whether what is tested works between processes. What lives in the memory of one process,
    #: for use in tests, says False: no process is forked then, and those tests are skipped.
    between_processes: ClassVar[bool] = True

    #: Whether a message is a body alone, as in multiprocessing's framing. No plugin may say so.
    bodies_only: ClassVar[bool] = False

    @pytest.fixture
    def fork(self) -> Iterator[Fork]:
        """Fork processes that share what is tested; they are killed after the test."""
        if not self.between_processes:
            pytest.skip("works in one process only, as it says")
        with crew() as fork:
            yield fork
