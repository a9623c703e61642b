"""What every test gets: the pairs to run on, and a check that nothing is left behind.

*Pairs.* A test that takes ``ctx`` (or ``pair``) runs once for each installed and available start
method x transport, with ids such as ``spawn-pipe``. ``@pytest.mark.one_pair_per("transport")``
runs it once per transport with the first start method, and ``one_pair_per("method")`` the other
way round: for behaviour that only one of the two decides. ``method`` and ``transport`` alone give
names. Where no plugin is installed, such tests are deselected and the header of the run says so.

*Interpreters.* tox runs everything on the oldest one. On the others it leaves out what is marked
``once``, which does not depend on the interpreter and takes long: random kills, the command line.

*The reference.* ``pytest --subject multiprocessing`` runs the same tests on the standard library:
the proof that they test multiprocessing's behaviour and not ours. Tests of what only procession
promises are marked ``beyond`` and are deselected there. This is why contexts are typed ``Any`` in
the tests: they are one of two unrelated classes.

*Hang guards.* pytest-timeout limits every test; the ``nothing_left_behind`` fixture then names and
kills children that live on. The first test warms up every pair, so that what is cached on purpose
(the fork server and its socket) is there before anything is compared.

*Makers.* ``make``, ``start``, ``finish``, ``pipe``, ``queue`` and ``ask`` make what a test works
with in its context, and clean up after it, also after a failed one.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from procession._choosing import selection
from procession._choosing.primitive_choice import BUILT_IN, VARIABLE
from procession.testing import leaks, payloads, tidiness

_DOMAINS = {"method": "start method", "transport": "transport"}
#: How long a child of a test may take, in seconds.
DEADLINE = 30.0
_ABSENT = "needs a plugin that is not installed"


@dataclass(frozen=True)
class Pair:
    """A start method and a transport of the library under test. ``spec`` works in children too."""

    subject: str
    method: str
    transport: str

    @property
    def spec(self) -> tuple[str, str, str]:
        """What `payloads.context` needs to make the same context in another process."""
        return (self.subject, self.method, self.transport)

    @property
    def ctx(self) -> Any:
        """A context of this pair."""
        return payloads.context(self.spec)

    def __str__(self) -> str:
        return f"{self.method}-{self.transport}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--subject`` and ``--pairs``."""
    parser.addoption(
        "--subject",
        choices=("procession", "multiprocessing"),
        default="procession",
        help="the library the behaviour tests run on",
    )
    parser.addoption(
        "--pairs",
        choices=("all", "few", "one"),
        default="all",
        help="few: each start method and each transport, but not every pair of them; "
        "one: a single pair for each test, and not the same one for all",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, give the run its own temporary directory, and adopt orphans."""
    for line in (
        "beyond(reason): promised by procession and not by multiprocessing",
        "one_pair_per(kind): run once per 'method' or per 'transport', not on every pair",
        "absent(what): needs a plugin that is not installed (set by the parametrization)",
    ):
        config.addinivalue_line("markers", line)
    leaks.adopt_orphans()
    # Where it may be done, other runs on this machine leave our named memory alone then.
    leaks.mount_shared_memory()
    # A shell starts what runs in the background with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def temporary_directory() -> Iterator[Path]:
    """The directory that tests and their children use for temporary files."""
    with tidiness.temporary_files() as directory:
        yield directory


def _installed(subject: str) -> dict[str, list[str]]:
    """The usable plugins of each kind, in order of preference."""
    module = importlib.import_module(subject)
    methods = list(module.get_all_start_methods())
    if subject == "multiprocessing":
        return {"method": methods, "transport": ["stdlib"]}
    return {"method": methods, "transport": list(module.get_all_transports())}


def _primitives(subject: str) -> list[str]:
    """What locks can be made of here."""
    if subject == "multiprocessing":
        return ["stdlib"]
    registry = selection.registry()
    names = registry.names("primitive")
    return [BUILT_IN, *(name for name in names if registry.problem("primitive", name) is None)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize over the installed plugins, or mark the test as needing an absent one."""
    subject = metafunc.config.getoption("--subject")
    # The suites of the conformance kit have fixtures of their own with some of these names.
    names = {name for name in metafunc.fixturenames if not hasattr(metafunc.cls, name)}
    if "primitive" in names:
        metafunc.parametrize("primitive", _primitives(subject), indirect=True)
    wanted = {"pair", "method", "transport"} & names
    if not wanted:
        return
    installed = _installed(subject)
    if "pair" in wanted:
        methods, transports = installed["method"], installed["transport"]
        mark = metafunc.definition.get_closest_marker("one_pair_per")
        if mark is not None:
            methods, transports = {
                "method": (methods, transports[:1]),
                "transport": (_cheapest_first(methods)[:1], transports),
            }[mark.args[0]]
        pairs = [Pair(subject, m, t) for m in methods for t in transports]
        extent = metafunc.config.getoption("--pairs")
        if pairs and extent == "one":
            pairs = [pairs[crc32(metafunc.definition.nodeid.encode()) % len(pairs)]]
        elif mark is None and pairs and extent == "few":
            pairs = _few(pairs, len(transports))
        missing = "; ".join(f"no {_DOMAINS[kind]}" for kind in _DOMAINS if not installed[kind])
        metafunc.parametrize("pair", pairs or [_absent(missing)], ids=str, indirect=True)
    for kind in wanted - {"pair"}:
        found = installed[kind] or [_absent(f"no {_DOMAINS[kind]}")]
        metafunc.parametrize(kind, found, indirect=True)


def _few(pairs: list[Pair], transports: int) -> list[Pair]:
    """Return a diagonal of the table *pairs*, another one for each version of Python."""
    methods = len(pairs) // transports
    shift = sys.version_info.minor
    return [
        pairs[number % methods * transports + (number + shift) % transports]
        for number in range(max(methods, transports))
    ]


def _cheapest_first(methods: list[str]) -> list[str]:
    return sorted(methods, key=lambda name: (name != "fork", name != "forkserver"))


def _absent(what: str) -> Any:
    return pytest.param(None, id="absent", marks=pytest.mark.absent(what))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what cannot run here and remember why."""
    kept, dropped = [], []
    reasons: set[str] = set()
    for item in items:
        absent = item.get_closest_marker("absent")
        beyond = item.get_closest_marker("beyond")
        if absent is not None:
            reasons.add(f"{_ABSENT} ({absent.args[0]})")
        elif beyond is not None and config.getoption("--subject") == "multiprocessing":
            reasons.add("promised by procession only")
        else:
            kept.append(item)
            continue
        dropped.append(item)
    if dropped:
        items[:] = kept
        config.hook.pytest_deselected(items=dropped)
        config.stash[_REASONS] = sorted(reasons)


_REASONS = pytest.StashKey[list[str]]()


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Say which pairs run and why tests were deselected."""
    found = _installed(config.getoption("--subject"))
    lines = [
        f"{config.getoption('--subject')}: start methods {', '.join(found['method']) or 'none'};"
        f" transports {', '.join(found['transport']) or 'none'}"
    ]
    return lines + [f"deselected: {reason}" for reason in config.stash.get(_REASONS, [])]


@pytest.fixture(scope="session")
def subject(pytestconfig: pytest.Config) -> str:
    """The name of the package under test."""
    return str(pytestconfig.getoption("--subject"))


@pytest.fixture
def library(subject: str) -> Any:
    """The package under test."""
    return importlib.import_module(subject)


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Pair:
    """One start method x transport."""
    assert isinstance(request.param, Pair)
    return request.param


@pytest.fixture
def method(request: pytest.FixtureRequest) -> str:
    """The name of one start method."""
    return str(request.param)


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> str:
    """The name of one transport."""
    return str(request.param)


@pytest.fixture
def primitive(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the locks of a test are made of."""
    name = str(request.param)
    monkeypatch.setenv(VARIABLE, name)
    return name


@pytest.fixture
def ctx(pair: Pair) -> Any:
    """A context of one start method x transport."""
    return pair.ctx


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    """Callbacks to run after the test, the last one first."""
    with ExitStack() as stack:
        yield stack


def _end(process: Any) -> None:
    try:
        process.kill()
    except (AttributeError, ValueError):  # never started, or closed by the test
        return
    process.join(DEADLINE)
    process.close()


@pytest.fixture
def make(ctx: Any, cleanup: ExitStack) -> Callable[..., Any]:
    """Make a process of the context, unstarted; it is killed and closed after the test."""

    def make(target: Callable[..., object] | None = None, *args: Any, **options: Any) -> Any:
        process = ctx.Process(target=target, args=args, **options)
        cleanup.callback(_end, process)
        return process

    return make


@pytest.fixture
def start(make: Callable[..., Any]) -> Callable[..., Any]:
    """Make and start a process."""

    def start(*args: Any, **options: Any) -> Any:
        process = make(*args, **options)
        process.start()
        return process

    return start


@pytest.fixture
def finish(start: Callable[..., Any]) -> Callable[..., Any]:
    """Make, start and join a process; return it once it has ended."""

    def finish(*args: Any, **options: Any) -> Any:
        process = start(*args, **options)
        process.join(DEADLINE)
        assert process.exitcode is not None
        return process

    return finish


@pytest.fixture
def pipe(ctx: Any, cleanup: ExitStack) -> Callable[..., tuple[Any, Any]]:
    """Make the two ends of a pipe; both are closed after the test."""

    def pipe(duplex: bool = True) -> tuple[Any, Any]:
        ends = ctx.Pipe(duplex)
        for end in ends:
            cleanup.callback(end.close)
        return ends[0], ends[1]

    return pipe


@pytest.fixture
def queue(ctx: Any, cleanup: ExitStack) -> Callable[..., Any]:
    """Make a queue; the test empties it, and it is closed and its thread joined afterwards."""

    def queue(maxsize: int = 0, kind: str = "Queue") -> Any:
        made = getattr(ctx, kind)(maxsize) if kind != "SimpleQueue" else ctx.SimpleQueue()
        if kind != "SimpleQueue":
            cleanup.callback(made.join_thread)
        cleanup.callback(made.close)
        return made

    return queue


@pytest.fixture
def ask(pipe: Callable[..., tuple[Any, Any]], finish: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a function of `payloads` returns in a child."""

    def ask(function: Callable[..., object], *args: Any, **options: Any) -> Any:
        receiver, sender = pipe(False)
        finish(payloads.call, sender, function, *args, **options)
        assert receiver.poll()
        return receiver.recv()

    return ask


@pytest.fixture(scope="session")
def plain_main_module() -> Iterator[None]:
    """Keep children from importing pytest's own script again, which costs more than they do."""
    with tidiness.plain_main_module():
        yield


@pytest.fixture(scope="session")
def warm(subject: str, temporary_directory: Path, plain_main_module: None) -> None:
    """Use every pair once, so that helpers, sockets and modules are cached before a snapshot."""
    found = _installed(subject)
    with importlib.import_module(subject).Lock():
        pass  # the memory that locks are made in is kept for the next ones
    for method in found["method"]:
        for transport in found["transport"]:
            ctx = payloads.context((subject, method, transport))
            receiver, sender = ctx.Pipe(duplex=False)
            process = ctx.Process(target=payloads.send_all, args=(sender, ["warm"]))
            process.start()
            assert receiver.recv() == "warm"
            process.join()
            process.close()
            receiver.close()
            sender.close()


@pytest.fixture(scope="session")
def warm_handing_over(subject: str, warm: None) -> None:
    """Send a connection through a connection once: what serves that stays for good."""
    found = _installed(subject)
    for transport in found["transport"]:
        ctx = payloads.context((subject, found["method"][0], transport))
        receiver, sender = ctx.Pipe(duplex=False)
        here, there = ctx.Pipe()
        here.send(sender)
        with there.recv() as copy:
            copy.send("warm")
        assert receiver.recv() == "warm"
        for end in (receiver, sender, here, there):
            end.close()


@pytest.fixture(autouse=True)
def nothing_left_behind(warm: None, temporary_directory: Path) -> Iterator[None]:
    """Fail a test that leaves a process, thread, descriptor or file behind, and name it."""
    tidiness.have_memory_for_locks()
    before = leaks.Snapshot.take(temporary_directory)
    yield
    left = before.leaks()
    if left:
        for process in before.new_processes(0):
            leaks.kill(process)
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)
