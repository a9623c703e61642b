"""A process that is played by a thread: what it holds, what it has had, and how it ends."""

from __future__ import annotations

import gc
import os
import sys
import threading
from fnmatch import fnmatchcase
from threading import Condition
from types import FrameType
from typing import Protocol
from weakref import WeakSet

from procession.testing.faults._script import Cut, Delay, Kill, KillIn

SIGKILL = 9

#: Guards everything that the threads of this package share, and wakes those who wait for any
#: of it. Re-entrant, for signal handlers that use what they have interrupted.
changed = Condition()


class Killed(BaseException):
    """Unwinds the thread of a process that has ended."""


class Holding(Protocol):
    """An end or a mailbox, as the process that has it open."""

    def close(self) -> None:
        """Close it."""


class FatalCall:
    """Counts the calls of a function, of which one is the end of *life*."""

    def __init__(self, life: Life, rule: KillIn) -> None:
        self._life = life
        self._code = rule.function.__code__
        self._left = rule.call

    def look_at(self, frame: FrameType) -> None:
        """Note that *frame* begins. Raises `Killed` if that is the end."""
        if frame.f_code is not self._code:
            return
        self._left -= 1
        if not self._left:
            with changed:
                self._life.end(-SIGKILL)
            raise Killed


class Life:
    """One process. Everything but `check_alive`, `begin` and `leave` is called with `changed` held.

    *sentinel* is the writing end of a pipe that is taken over, and closed when it ends.
    """

    def __init__(self, name: str, sentinel: int = -1, *, daemon: bool = False) -> None:
        self.name = name
        self.daemon = daemon
        self.exit_code: int | None = None
        #: Whether its parcel is still to be opened: until then it may hold anything.
        self.is_starting = True
        self.is_interrupted = False
        self.children: list[Life] = []
        self._sentinel = sentinel
        self._holdings: WeakSet[Holding] = WeakSet()
        #: How many messages it has sent and received, and how many of them it has sent.
        self.messages = 0
        self.sent = 0
        self.death: Kill | None = None
        self._fatal_calls: list[FatalCall] = []
        self.cuts: list[Cut] = []
        self.delays: list[Delay] = []

    def matches(self, pattern: str) -> bool:
        """Return whether *pattern* names it."""
        return fnmatchcase(self.name, pattern)

    def obey(self, rule: Kill | KillIn | Cut | Delay) -> None:
        """Have *rule* happen to it, or to what it sends. Raises `ValueError` when it cannot."""
        if isinstance(rule, Kill):
            if self.death is not None:
                raise ValueError(f"process {self.name!r} is killed by the script already")
            self.death = rule
        elif isinstance(rule, KillIn):
            if not self.is_starting:
                raise ValueError(
                    f"process {self.name!r} runs already: play what kills it in a call before it "
                    f"is started"
                )
            self._fatal_calls.append(FatalCall(self, rule))
        elif isinstance(rule, Cut):
            self.cuts.append(rule)
        else:
            self.delays.append(rule)

    def hold(self, holding: Holding) -> None:
        """Close *holding* when it ends; if it has ended meanwhile, at once, and raise `Killed`."""
        with changed:
            if self.exit_code is None:
                self._holdings.add(holding)
                return
            holding.close()
        raise Killed

    def begin(self) -> None:
        """Be the process of this thread from now on; dies here if the script says so."""
        _here.life = self
        with changed:
            self.die_if_due()
        sys.setprofile(self._look_at)

    def leave(self) -> None:
        """Let this thread, which has left the program for good, go its way."""
        sys.setprofile(None)

    def _look_at(self, frame: FrameType, event: str, argument: object) -> None:
        """Die, as this thread calls or leaves a function, if that is due or has happened."""
        if event == "call":
            for fatal in self._fatal_calls:
                fatal.look_at(frame)
        if self.exit_code is not None and event in ("call", "return") and _is_of_program(frame):
            raise Killed

    def check_alive(self) -> None:
        """Raise `Killed` when it has ended, KeyboardInterrupt when it has got SIGINT."""
        self.check_not_ended()
        if self.is_interrupted:
            self.is_interrupted = False
            raise KeyboardInterrupt

    def check_not_ended(self) -> None:
        """Raise `Killed` when it has ended."""
        if self.exit_code is not None:
            raise Killed

    def interrupt(self) -> None:
        """Have KeyboardInterrupt raised where it waits for a message, or touches the next."""
        self.is_interrupted = True
        changed.notify_all()

    def count_message(self) -> None:
        """Count a message as sent or received; dies here if the script says so."""
        self.messages += 1
        self.die_if_due()

    def die_if_due(self) -> None:
        """End by SIGKILL if the script says so; raises `Killed` then."""
        death = self.death
        if death is not None and death.at_byte is None and self.messages >= death.after_messages:
            self.end(-SIGKILL)
            raise Killed

    def death_in_message(self) -> int | None:
        """Return after how many bytes of the message that it sends now it is killed, if it is."""
        death = self.death
        if death is None or self.messages < death.after_messages:
            return None
        return death.at_byte

    def end(self, code: int) -> None:
        """End with *code*, as the kernel would end it: what it has open is closed. Idempotent."""
        if self.exit_code is not None:
            return
        self.exit_code = code
        for holding in list(self._holdings):
            holding.close()
        for child in self.children:
            if child.daemon:
                child.end(-SIGKILL)
        if self._sentinel >= 0:
            os.close(self._sentinel)
        changed.notify_all()


#: The process that all of this happens in.
MAIN = Life("MainProcess")
MAIN.is_starting = False
#: Those that were started on the current stage, in order.
lives: list[Life] = []
#: The threads that play them.
threads: list[threading.Thread] = []

_here = threading.local()


def current() -> Life:
    """Return the process that this thread plays: `MAIN` in threads that play none."""
    life: Life = getattr(_here, "life", MAIN)
    return life


def begin_anew() -> None:
    """Free the lock in a forked child, where nobody is left who could."""
    Condition.__init__(changed)


def _is_of_program(frame: FrameType) -> bool:
    """Return whether *frame* can be left by an exception at any place, as far as we know.

    What `exec` has made in a module of its own is not the program's: so the constructors of named
    tuples are made, which the standard library calls in the middle of things.
    """
    module = frame.f_globals.get("__name__", "")
    package = module.partition(".")[0]
    return not (
        module not in sys.modules
        or package.startswith("procession")
        or package in sys.stdlib_module_names
        or frame.f_code.co_name == "__del__"
        # Like a finalizer it is called anywhere, and what it raises ends nothing.
        or any(getattr(each, "__code__", None) is frame.f_code for each in gc.callbacks)
    )


def is_over(pattern: str) -> bool:
    """Return whether all that *pattern* names have ended, of which there was one."""
    matching = [life for life in lives if life.matches(pattern)]
    return bool(matching) and all(life.exit_code is not None for life in matching)
