"""The process in which `procession check` has the tests run, and how it tells what comes of them.

Each line that it writes is a dictionary in JSON: the tests that were ``chosen``, as results to be;
the number of the one that has ``begun``, and how many seconds it may take; the number of the one
that has ``ended``, with its result; and last the exit ``code`` of pytest, with the ``refusal`` if
the plugin cannot be loaded.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from procession._choosing.selection import registry
from procession.errors import PluginError
from procession.testing.checking import FAILED, MISUSED, PASSED, REFUSED, SKIPPED, Order, Result

if TYPE_CHECKING:
    import pytest

#: The exit status of a forked copy of this process that comes back from its test.
_STRAY: Final = 70
#: The classes of `procession.testing.checked`, by the kind of plugin.
_CLASSES: Final = {
    "start_method": "TestStartMethod",
    "transport": "TestTransport",
    "primitive": "TestPrimitive",
    "serializer": "TestSerializer",
}
_PAIR: Final = "TestPair"


def main() -> None:
    """Be the process that runs the tests."""
    import pytest

    writer, order = int(sys.argv[1]), Order(**json.loads(sys.argv[2]))
    os.set_inheritable(writer, False)
    teller = _Teller(writer, order)
    try:
        # Here and not in `examine`'s process, which it might end.
        kind: Any
        for kind in order.kinds:
            registry().load(kind, order.name)
    except PluginError as error:
        return teller.tell(code=MISUSED, refusal=str(error))
    file = Path(__file__).with_name("checked.py")
    arguments = [f"{file}::{_CLASSES[kind]}" for kind in order.kinds]
    if order.pairs:
        arguments.append(f"{file}::{_PAIR}")
    arguments += ["-c", os.devnull, f"--rootdir={file.parent}", "--import-mode=importlib"]
    arguments += ["-p", "pytest_timeout", f"--timeout={order.seconds}", "-p", "no:cacheprovider"]
    arguments += ["-q", "--tb=short", "--no-summary"]
    if order.only:
        arguments += ["-k", order.only]
    del sys.argv[1:]
    code = pytest.main(arguments, plugins=[teller])
    return teller.tell(code=int(code), refusal="")


class _Teller:
    """A plugin of pytest that tells what comes of each test."""

    def __init__(self, writer: int, order: Order) -> None:
        self._writer = writer
        self._pid = os.getpid()
        self._order = order
        self._results: dict[str, Result] = {}
        self._limits: dict[str, float] = {}
        self._numbers: dict[str, int] = {}

    def tell(self, **told: Any) -> None:
        """Tell it."""
        self._end_stray()
        data = json.dumps(told).encode() + b"\n"
        while data:
            data = data[os.write(self._writer, data) :]

    def _end_stray(self) -> None:
        """End here if this is a child that a plugin has forked, and has let out of its hands."""
        if os.getpid() != self._pid:
            os._exit(_STRAY)

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
        """Keep what a test promises, and how long it may take."""
        assert item.parent is not None
        name, subject = item.name, item.parent.name.removeprefix("Test")
        for pair in self._order.pairs if subject == "Pair" else ():
            own = " with ".join(pair)
            if own in name:
                name, subject = name.replace(own, ""), own
        kinds = {name: kind.replace("_", " ") for kind, name in _CLASSES.items()}
        promise = _undented(getattr(item, "function").__doc__ or "")  # noqa: B009
        mark = item.get_closest_marker("timeout")
        self._limits[item.nodeid] = mark.args[0] if mark else self._order.seconds
        self._results[item.nodeid] = Result(
            kinds.get(f"Test{subject}", subject),
            name.replace("[-", "[").replace("-]", "]").removesuffix("[]").removeprefix("test_"),
            promise,
        )

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Have the tests of each subject run in a row, pair by pair."""
        subjects = list(dict.fromkeys(result.subject for result in self._results.values()))
        items.sort(key=lambda item: subjects.index(self._results[item.nodeid].subject))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tell which tests there are."""
        self._numbers = {item.nodeid: number for number, item in enumerate(session.items)}
        self.tell(chosen=[asdict(self._results[nodeid]) for nodeid in self._numbers])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Tell what begins, in case that it is the end of the process."""
        self.tell(begun=self._numbers[nodeid], limit=self._limits[nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather what three reports say about a test, and tell it after the last."""
        self._end_stray()
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
        self.tell(ended=self._numbers[report.nodeid], result=asdict(result))


def _essence(report: pytest.TestReport) -> str:
    """Return what was raised and compared, without the source around it."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(report.longrepr if crash is None else crash.message).strip()


def _undented(docstring: str) -> str:
    import inspect

    return inspect.cleandoc(docstring)
