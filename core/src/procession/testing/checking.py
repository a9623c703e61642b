"""Runs the conformance kit on an installed plugin, in a process of its own.

A plugin that is broken may hang or crash the process that tests it. So `examine` starts one, which
runs pytest in `main` and tells the outcome of each test through a pipe as soon as it is known.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pytest

#: What can come of a test.
PASSED: Final = "passed"
REFUSED: Final = "refused as declared"
FAILED: Final = "failed"
SKIPPED: Final = "not tested"
OUTCOMES: Final = (PASSED, REFUSED, FAILED, SKIPPED)

#: The exit statuses of pytest when it has done all that there was: also nothing, or in vain.
_ORDERLY: Final = (0, 1, 5)
#: A test that takes longer hangs.
_SECONDS: Final = 30
#: The classes of `procession.testing.checked`, by the kind of plugin.
_CLASSES: Final = {
    "start_method": "TestStartMethod",
    "transport": "TestTransport",
    "primitive": "TestPrimitive",
    "serializer": "TestSerializer",
}
_PAIR: Final = "TestPair"


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
    #: Where pytest is to write its report in JUnit's XML.
    xml: str = ""
    #: Only tests whose names match, as pytest's ``-k``.
    only: str = ""


@dataclass
class Examination:
    """The outcomes so far, and what became of the process that makes them."""

    results: list[Result] = field(default_factory=list)
    #: Why there are not all results; empty if there are.
    trouble: str = ""

    def of(self, outcome: str) -> list[Result]:
        """Return the results with one outcome."""
        return [result for result in self.results if result.outcome == outcome]


def examine(order: Order, examination: Examination) -> Iterator[Result]:
    """Run the kit, yield each result when it is there, and keep all in *examination*."""
    reader, writer = os.pipe()
    code = "from procession.testing.checking import main; main()"
    begun = ""
    # What the process makes or starts is looked after here, however it ends.
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
        try:
            with open(reader, encoding="utf-8") as lines:
                for line in lines:
                    told = json.loads(line)
                    if isinstance(told, str):
                        begun = told
                        continue
                    examination.results.append(Result(**told))
                    yield examination.results[-1]
            process.wait()
        finally:
            _kill_group(process.pid)
            process.wait()
        output.seek(0)
        said = output.read().decode(errors="replace").strip()
    if process.returncode not in _ORDERLY:
        examination.trouble = f"{_end(process.returncode)} in {begun or 'the beginning'}\n{said}"


def _environment(folder: str) -> dict[str, str]:
    """Return the environment of the tests: the user's own plugins of pytest are for his tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TMPDIR": folder}


def _kill_group(pid: int) -> None:
    if sys.platform == "win32":
        return
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # all have ended


def _end(code: int) -> str:
    how = f"with exit status {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
    return f"the process that runs the tests ended {how}"


def main() -> None:
    """Be the process that runs the tests."""
    import pytest

    from procession.testing import leaks

    writer, order = int(sys.argv[1]), Order(**json.loads(sys.argv[2]))
    os.set_inheritable(writer, False)
    file = Path(__file__).with_name("checked.py")
    arguments = [f"{file}::{_CLASSES[kind]}" for kind in order.kinds]
    if order.pairs:
        arguments.append(f"{file}::{_PAIR}")
    arguments += ["-c", os.devnull, f"--rootdir={file.parent}", "--import-mode=importlib"]
    arguments += [
        "-p",
        "pytest_timeout",
        "-p",
        "no:cacheprovider",
        f"--timeout={_SECONDS}",
        "-q",
        "--tb=short",
        "--no-summary",
    ]
    if order.xml:
        arguments += [f"--junitxml={order.xml}", "-o", f"junit_suite_name=procession {order.name}"]
    if order.only:
        arguments += ["-k", order.only]
    del sys.argv[1:]
    code = pytest.main(arguments, plugins=[_Teller(writer, order)])
    for process in leaks.descendants():
        leaks.kill(process)  # which this process would wait for at its end
    sys.exit(code)


class _Teller:
    """A plugin of pytest that tells what comes of each test."""

    def __init__(self, writer: int, order: Order) -> None:
        self._out = open(writer, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._order = order
        self._results: dict[str, Result] = {}

    def pytest_configure(self, config: pytest.Config) -> None:
        """Say which plugin is tested."""
        from importlib import import_module

        # By its name, since type checkers of other platforms find nothing there.
        config.stash[import_module("procession.testing.checked").NAME] = self._order.name

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Have the tests of pairs run once for each."""
        if "both" in metafunc.fixturenames:
            pairs = [tuple(pair) for pair in self._order.pairs]
            metafunc.parametrize(
                "both", pairs, ids=[" with ".join(pair) for pair in pairs], indirect=True
            )

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Keep what a test promises, also for the report in XML."""
        assert item.parent is not None
        name, subject = item.name, item.parent.name.removeprefix("Test")
        for pair in self._order.pairs if subject == "Pair" else ():
            own = " with ".join(pair)
            if own in name:
                name, subject = name.replace(own, ""), own
        kinds = {name: kind.replace("_", " ") for kind, name in _CLASSES.items()}
        promise = _undented(getattr(item, "function").__doc__ or "")  # noqa: B009
        item.user_properties.append(("promise", promise))
        self._results[item.nodeid] = Result(
            kinds.get(f"Test{subject}", subject),
            name.replace("[-", "[").replace("-]", "]").removesuffix("[]").removeprefix("test_"),
            promise,
        )

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Tell what begins, in case that it is the end of the process."""
        self._out.write(json.dumps(nodeid.partition("::")[2]) + "\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather what three reports say about a test, and tell it after the last."""
        result = self._results[report.nodeid]
        result.seconds += report.duration
        if report.failed:
            result.outcome = FAILED
            where = "" if report.when == "call" else f"{report.when}: "
            result.detail = f"{result.detail}\n{where}{_essence(report)}".strip()
        elif report.skipped and result.outcome != FAILED:
            result.outcome = SKIPPED
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            result.detail = str(reason).removeprefix("Skipped: ")
        if report.when != "teardown":
            return
        refused = [str(what) for name, what in report.user_properties if name == REFUSED]
        if refused and result.outcome == PASSED:
            result.outcome, result.detail = REFUSED, ", ".join(refused)
        self._out.write(json.dumps(asdict(result)) + "\n")


def _essence(report: pytest.TestReport) -> str:
    """Return what was raised and compared, without the source around it."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(report.longrepr if crash is None else crash.message).strip()


def _undented(docstring: str) -> str:
    import inspect

    return inspect.cleandoc(docstring)
