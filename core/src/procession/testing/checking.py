"""Runs the conformance kit on an installed plugin, in a process of its own.

A plugin that is broken may hang or crash the process that tests it, or end it as if all were well.
So `examine` starts one (see `telling`), which tells through a pipe which tests there are, which one
begins, what comes of it, and that it has finished. Only what was told counts, and not how the
process ends, nor who else holds the pipe.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from procession.testing import leaks

#: What can come of a test.
PASSED: Final = "passed"
REFUSED: Final = "refused as declared"
FAILED: Final = "failed"
SKIPPED: Final = "not tested"
OUTCOMES: Final = (PASSED, REFUSED, FAILED, SKIPPED)

#: The exit codes of pytest when it has done all that there was: also nothing, or in vain.
_ORDERLY: Final = (0, 1, 5)
#: That of arguments that mean nothing to it.
MISUSED: Final = 4
#: How much longer than a test may take nothing may be heard: pytest has a guard of its own.
_GRACE: Final = 30
#: How long nothing may be heard before the first test.
_BEGINNING: Final = 120
#: How long a process that hangs may take to write down where.
_LAST_WORDS: Final = 5
_READ_SIZE: Final = 64 << 10


@dataclass
class Result:
    """What came of one test."""

    #: What was tested: a kind of plugin, or a pair such as ``spawn with pipe``.
    subject: str
    #: The test's own name, which says what is promised.
    name: str
    #: What the test says, with the words of the contract.
    promise: str
    outcome: str = PASSED
    #: What went wrong, what was refused, or why it was not tested.
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Order:
    """What is to be tested."""

    name: str
    #: The kinds of plugin that *name* is.
    kinds: Sequence[str]
    #: Pairs of a start method and a transport; one of them is *name*.
    pairs: Sequence[tuple[str, str]] = ()
    #: Only tests whose names match, as pytest's ``-k``.
    only: str = ""
    #: How long a test may take that does not say so itself; what takes longer hangs.
    seconds: float = 30


@dataclass
class Examination:
    """The outcomes so far, and what became of the process that makes them."""

    results: list[Result] = field(default_factory=list)
    #: Why there is not an outcome of each test; empty if there is.
    trouble: str = ""
    #: Why nothing was run: the plugin cannot be loaded, or `Order.only` means nothing to pytest.
    refusal: str = ""

    def of(self, outcome: str) -> list[Result]:
        """Return the results with one outcome."""
        return [result for result in self.results if result.outcome == outcome]


def examine(order: Order, examination: Examination) -> Iterator[Result]:
    """Run the kit, yield each result when it is there, and keep all in *examination*.

    Whatever the tests have started and made is gone afterwards, also when the generator is closed:
    this process adopts orphaned descendants from now on (see `leaks.adopt_orphans`).
    """
    leaks.adopt_orphans()
    others = {each.pid for each in leaks.descendants()}
    reader, writer = os.pipe()
    code = "from procession.testing.telling import main; main()"
    with tempfile.TemporaryDirectory(prefix="pc-") as folder, tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, str(writer), json.dumps(asdict(order))],
            pass_fds=[writer],
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(writer)
        told = _Told()
        try:
            with open(reader, "rb", buffering=0):
                for line in _lines(reader, process.pid, told):
                    result = told.hear(json.loads(line))
                    if result is not None:
                        examination.results.append(result)
                        yield result
            end = _end_of(process, told)
        finally:
            process.kill()
            process.wait()
            _end_all_but(others)
        output.seek(0)
        said = output.read().decode(errors="replace").strip()
    if told.refusal:
        examination.refusal = told.refusal
    elif told.code == MISUSED and not examination.results:
        examination.refusal = f"--only {order.only!r}: {said.rpartition('ERROR: ')[2]}"
    elif told.code not in _ORDERLY or told.left:
        yield from _cut_short(examination, told, end, said)


def _environment(folder: str) -> dict[str, str]:
    """Return the environment of the tests: the user's own plugins of pytest are for his tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TMPDIR": folder}


class _Told:
    """What the process has told."""

    def __init__(self) -> None:
        #: The tests that there are to run, and then of each what is known so far.
        self.chosen: list[Result] = []
        #: The numbers of those of which no outcome was told.
        self.left: set[int] = set()
        self.running: int | None = None
        #: With what pytest has finished, which is the last that is told.
        self.code: int | None = None
        #: Why it has not begun.
        self.refusal = ""
        #: For how many seconds nothing may be heard.
        self.patience = _BEGINNING

    def hear(self, told: dict[str, Any]) -> Result | None:
        """Take note of what was *told*; return what came of a test if it was that."""
        result = None
        if "chosen" in told:
            self.chosen = [Result(**each) for each in told["chosen"]]
            self.left = set(range(len(self.chosen)))
        elif "begun" in told:
            self.running = told["begun"]
            self.patience = told["limit"] + _GRACE
        elif "ended" in told:
            self.running = None
            self.left.remove(told["ended"])
            result = Result(**told["result"])
        else:
            self.code, self.refusal = told["code"], told["refusal"]
        return result


def _lines(reader: int, pid: int, told: _Told) -> Iterator[bytes]:
    """Yield what is told, until all is, or the process ends or has been silent for too long.

    The end of the pipe is not waited for, which any descendant may hold open.
    """
    if sys.platform != "linux":
        return  # nor does the kit run there
    ended = os.pidfd_open(pid)
    watched, rest = [reader, ended], b""
    try:
        while told.code is None:
            ready = select.select(watched, [], [], told.patience)[0]
            if reader not in ready:
                return
            data = os.read(reader, _READ_SIZE)
            if not data:
                watched.remove(reader)
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
    finally:
        os.close(ended)


def _end_of(process: subprocess.Popen[bytes], told: _Told) -> str:
    """Return how the process has ended; one that hangs is made to say where."""
    if told.code is not None:
        return f"ended the tests with exit code {told.code}"
    if process.poll() is None:
        process.send_signal(signal.SIGABRT)  # has pytest write down where each thread is
        try:
            process.wait(_LAST_WORDS)
        except subprocess.TimeoutExpired:
            process.kill()
        return f"was not heard of for {told.patience} seconds"
    code = process.returncode
    return f"ended with exit status {code}" if code >= 0 else f"ended by {_signal_name(-code)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _cut_short(examination: Examination, told: _Told, end: str, said: str) -> Iterator[Result]:
    """Have a result of each test that was not finished; yield that of the one that was running."""
    where = "before the first test" if len(told.left) == len(told.chosen) else "between two tests"
    if told.running is not None:
        told.left.discard(told.running)
        running = told.chosen[told.running]
        where = f"in {running.subject}: {running.name}"
        detail = f"the process that runs the tests {end}\n{said}"
        result = replace(running, outcome=FAILED, detail=detail.strip())
        examination.results.append(result)
        yield result
    for number in sorted(told.left):
        examination.results.append(
            replace(told.chosen[number], outcome=SKIPPED, detail="not reached")
        )
    examination.trouble = f"the process that runs the tests {end}, {where}"
    if told.left:
        examination.trouble += f"; {len(told.left)} promises were not tested"
    if told.running is None:
        examination.trouble += f"\n{said}"


def _end_all_but(others: set[int]) -> None:
    """Kill all descendants of this process that are not among *others*."""
    while strays := [each for each in leaks.descendants() if each.pid not in others]:
        for each in strays:
            leaks.kill(each)
