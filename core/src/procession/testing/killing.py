"""Kills processes with SIGKILL at random points and checks that the others do not suffer.

A `Scenario` says who takes part and what must hold afterwards; `run` kills, replaces and checks.
A new kind of participant is one method of a scenario: it works until it is told to stop, notes in
its `Journal` what it has been promised, and may be killed at any instruction, as may whatever it
has started. A seed replays the sequence of decisions, and mostly what comes of them.

Linux only. `run` takes the calling process's children for its own: call it from a process that
has adopted its orphans (`leaks.adopt_orphans`), so that nobody escapes.
"""

from __future__ import annotations

import mmap
import os
import random
import select
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from procession.errors import ConfigurationError
from procession.testing import leaks
from procession.testing.forked import Forked, crew, until

_NUMBERS = struct.Struct("=QQ")
_HEAD = 16
_SIGKILL = 9
_LONGEST_PAUSE = 0.004

_KILLS_VARIABLE, _SEED_VARIABLE = "PROCESSION_KILLS", "PROCESSION_SEED"


def _number_in(variable: str, meaning: str) -> int | None:
    """Return the number in *variable*; None if it is not set. Raises `ConfigurationError`."""
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise ConfigurationError(
            f"{variable} is {text!r} in the environment; it is {meaning}: a whole number such as 8"
        )
    return int(text)


def chosen_kills(default: int) -> int:
    """Return how many kills the environment asks for (PROCESSION_KILLS), or *default*.

    Raises `procession.errors.ConfigurationError` if it asks for anything else.
    """
    chosen = _number_in(_KILLS_VARIABLE, "how many processes are killed in each test")
    return default if chosen is None else chosen


#: How often somebody is killed in each trial of a test: PROCESSION_KILLS, or a few times.
KILLS = chosen_kills(8)


class Journal:
    """What one participant has done, in memory that outlives it: pairs of numbers, in order."""

    def __init__(self, size: int = 1 << 22) -> None:
        self._map = mmap.mmap(-1, size)
        self._count = memoryview(self._map).cast("Q")[:1]

    def __len__(self) -> int:
        return int(self._count[0])

    def add(self, first: int, second: int) -> None:
        """Append a pair; a process killed at any point has added it or not."""
        count = self._count[0]
        _NUMBERS.pack_into(self._map, _HEAD + count * _NUMBERS.size, first, second)
        self._count[0] = count + 1

    def pairs(self) -> list[tuple[int, int]]:
        """Return all pairs."""
        end = _HEAD + len(self) * _NUMBERS.size
        return list(_NUMBERS.iter_unpack(self._map[_HEAD:end]))

    def close(self) -> None:
        """Free the memory."""
        self._count.release()
        self._map.close()


class Participant:
    """One process that takes part: who it is, what it has noted, and how it ended."""

    def __init__(self, role: str, number: int) -> None:
        self.role = role
        #: Different for all that ever take part in one run.
        self.number = number
        self.journal = Journal()
        self.killed = False
        self._stop, self._stopper = os.pipe()

    def told_to_stop(self) -> bool:
        """Return whether it should come to an end: everything that was begun is finished."""
        return bool(select.select([self._stop], [], [], 0)[0])

    def tell_to_stop(self) -> None:
        """Tell it, once."""
        os.write(self._stopper, b"x")

    def close(self) -> None:
        """Free what it holds in the process that runs the trial."""
        self.journal.close()
        os.close(self._stop)
        os.close(self._stopper)


#: What one participant does, in a process of its own, until it is told to stop.
Work: TypeAlias = Callable[[Participant], object]


class Scenario(ABC):
    """What takes place, and what must hold whoever is killed."""

    #: Whether descendants of participants are killed as well, half of the time.
    strikes_descendants = False
    #: The longest time between two kills, in seconds.
    longest_pause = _LONGEST_PAUSE

    @abstractmethod
    def roles(self) -> Mapping[str, tuple[int, Work]]:
        """Return how many of each role take part at a time, and what they do.

        They are told to stop in this order, each role when the one before has ended.
        """

    @abstractmethod
    def check(self, participants: list[Participant]) -> None:
        """Compare the journals of all that ever took part, and try what they used.

        Raises `AssertionError`.
        """

    def wake(self) -> None:
        """Have those who wait for others look, if they do not by themselves.

        Called again and again while participants who were told to stop come to an end.
        """
        return None

    def close(self) -> None:
        """Free what they used."""
        return None


def run(scenario: Scenario, kills: int, seed: int, *directories: Path) -> None:
    """Kill *kills* times, at random points that *seed* replays, and check everything.

    Survivors must finish, the scenario's own `Scenario.check` must hold, and no process,
    zombie, descriptor or file may be left, in ``/dev/shm`` and in *directories*. Raises
    `AssertionError`, with the seed in it. Takes the scenario over.
    """
    before = leaks.Snapshot.take(*directories)
    try:
        try:
            _Trial(scenario, random.Random(seed)).run(kills)
        finally:
            scenario.close()
        leaks.reap_orphans()
        left = before.leaks()
        assert not left, "left behind:\n  " + "\n  ".join(left)
    except BaseException as error:
        error.add_note(f"replay with PROCESSION_SEED={seed} PROCESSION_KILLS={kills}")
        raise


def chosen_seed() -> int:
    """Return the seed that the environment asks for (PROCESSION_SEED), or a random one.

    Raises `procession.errors.ConfigurationError` if that is no number.
    """
    chosen = _number_in(_SEED_VARIABLE, "the seed that a failed test has said")
    return random.SystemRandom().randrange(1 << 32) if chosen is None else chosen


class _Trial:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, chance: random.Random) -> None:
        self._scenario = scenario
        self._chance = chance
        self._all: list[Participant] = []
        self._running: dict[str, list[tuple[Participant, Forked]]] = {}

    def run(self, kills: int) -> None:
        roles = self._scenario.roles()
        try:
            with crew() as fork:
                for role, (count, work) in roles.items():
                    self._running[role] = [self._start(fork, role, work) for _ in range(count)]
                for _ in range(kills):
                    pause = self._chance.random() * self._scenario.longest_pause
                    select.select([], [], [], pause)
                    self._strike(fork, roles)
                self._finish()
            self._scenario.check(self._all)
        finally:
            for participant in self._all:
                participant.close()

    def _start(
        self, fork: Callable[[Callable[[], object]], Forked], role: str, work: Work
    ) -> tuple[Participant, Forked]:
        participant = Participant(role, len(self._all))
        self._all.append(participant)
        return participant, fork(lambda: work(participant))

    def _strike(
        self,
        fork: Callable[[Callable[[], object]], Forked],
        roles: Mapping[str, tuple[int, Work]],
    ) -> None:
        """Kill one participant and put another in its place, or kill a descendant of one."""
        role = self._chance.choice([name for name, (count, _) in roles.items() if count])
        index = self._chance.randrange(len(self._running[role]))
        participant, process = self._running[role][index]
        spares = self._scenario.strikes_descendants and self._chance.random() < 0.5
        choice = self._chance.random()
        if spares:
            _kill_below(process.pid, choice)
            return
        assert not process.stopped() or process.join() == 0, f"{role} ended with {process.code}"
        participant.killed = True
        process.kill()
        self._running[role][index] = self._start(fork, role, roles[role][1])

    def _finish(self) -> None:
        """Have everybody come to an end."""
        for role, members in self._running.items():
            for participant, _ in members:
                participant.tell_to_stop()
            for participant, process in members:
                who = f"{role} {participant.number}"
                code = self._await(process, who)
                assert code == 0, f"{who} ended with exit code {code}"

    def _await(self, process: Forked, who: str) -> int:
        """Wait for the end of *process*, which was told to stop, and return its exit code."""

        def has_ended() -> bool:
            self._scenario.wake()
            return process.stopped()

        try:
            until(has_ended)
        except TimeoutError:
            raise TimeoutError(f"{who} does not come to an end") from None
        return process.join()


def _kill_below(pid: int, choice: float) -> None:
    """Kill one of the descendants of *pid*, if there are any."""
    below = {pid}
    candidates = []
    for each in leaks.descendants():  # parents come before their children
        if each.parent in below:
            below.add(each.pid)
            candidates.append(each.pid)
    if candidates and sys.platform != "win32":
        try:
            os.kill(candidates[int(choice * len(candidates))], _SIGKILL)
        except ProcessLookupError:
            return  # it has ended by itself
