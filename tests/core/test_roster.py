"""Who uses a mailbox for what, and who has a file open: what waits without limit rely on."""

from __future__ import annotations

import mmap
import os
import select
import sys
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("processes are looked up in Linux's /proc", allow_module_level=True)

from procession._ground.holders import other_holders
from procession._mailboxes.roster import SIZE, Roster
from procession.testing.forked import Forked, crew, until

pytestmark = pytest.mark.once


@pytest.fixture
def roster() -> Iterator[Roster]:
    """A roster in memory that forked processes share."""
    memory = mmap.mmap(-1, SIZE)
    made = Roster(memoryview(memory).cast("Q"))
    yield made
    made.close()
    memory.close()


def _hold() -> None:
    select.select([], [], [])


def test_a_process_has_one_place(roster: Roster) -> None:
    """Asking again gives the same place; it is not 0, which means none."""
    assert roster.place() == roster.place() > 0


def test_what_the_dead_took_is_theirs(roster: Roster) -> None:
    """The number of undone messages outlives who took them, and is not anybody else's."""

    def take() -> None:
        roster.count(2)
        roster.count(-1)

    with crew() as fork:
        taker = fork(take)
        assert 0 == taker.join()
        roster.count(1)

    assert {taker.pid: 1, os.getpid(): 1} == roster.undone()


def test_doing_what_others_took_is_nobodys_debt(roster: Roster) -> None:
    """Who reports more as done than it took does not take anything off the others' numbers."""
    with crew() as fork:
        taker = fork(lambda: roster.count(2))
        taker.join()
    roster.count(-1)

    assert {taker.pid: 2} == roster.undone()


def test_places_of_the_dead_are_used_again(roster: Roster) -> None:
    """More processes than places come and go, and what they left undone is still counted."""
    count = SIZE // 32 + 20
    with crew() as fork:
        for _ in range(count):
            assert 0 == fork(lambda: roster.count(1)).join()

    assert count == sum(roster.undone().values())
    assert -1 not in roster.undone()


def test_who_sleeps_is_seen_until_it_wakes_or_dies(roster: Roster) -> None:
    """A process killed in its sleep is not taken for one that sleeps."""

    def sleep() -> None:
        roster.place()
        roster.sleep()
        _hold()

    with crew() as fork:
        sleeper = fork(sleep)
        until(lambda: roster.asleep() == {sleeper.pid})
        roster.place()
        roster.sleep()
        assert {sleeper.pid, os.getpid()} == roster.asleep()

        sleeper.kill()
        assert {os.getpid()} == roster.asleep()
        roster.wake()
        assert set() == roster.asleep()


def test_holders_of_a_pipe_are_those_of_the_same_end() -> None:
    """Who holds only the other end does not count, and nor does this process."""
    reader, writer = os.pipe()

    def keep(kept: int, dropped: int) -> Forked:
        def work() -> None:
            os.close(dropped)
            _hold()

        return fork(work)

    try:
        with crew() as fork:
            reads, writes = keep(reader, writer), keep(writer, reader)
            until(lambda: other_holders(reader)[0] == {reads.pid})
            until(lambda: other_holders(writer)[0] == {writes.pid})
            reads.kill()
            assert set() == other_holders(reader)[0]
    finally:
        os.close(reader)
        os.close(writer)


def test_holders_of_a_file_without_a_name_are_told_apart() -> None:
    """Two files of one label are two files; a zombie holds nothing."""
    one, other = os.memfd_create("same"), os.memfd_create("same")
    try:
        with crew() as fork:

            def work() -> None:
                os.close(other)
                _hold()

            holder = fork(work)
            until(lambda: other_holders(other)[0] == set())
            assert {holder.pid} == other_holders(one)[0]
            os.kill(holder.pid, 9)
            until(holder.stopped)
            assert set() == other_holders(one)[0]
    finally:
        os.close(one)
        os.close(other)
