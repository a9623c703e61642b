"""What children log reaches the parent's handlers: all of it, and nobody waits for ever."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import procession
from procession.testing import leaks, logged

METHODS = procession.get_all_start_methods()
each_method = pytest.mark.parametrize("method", METHODS)
DEADLINE = 30.0


class Collecting(logging.Handler):
    """Keeps records, and may be held up."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.gate = threading.Event()
        self.gate.set()
        self.came = threading.Semaphore(0)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep *record*, once the gate is open."""
        self.gate.wait(DEADLINE)
        self.records.append(record)
        self.came.release()

    @property
    def texts(self) -> list[str]:
        """The messages, in the order in which they came."""
        return [record.getMessage() for record in self.records]


@pytest.fixture(scope="session", autouse=True)
def plain_main_module() -> Iterator[None]:
    """Keep children from importing pytest's own script again, which costs more than they do."""
    main = vars(sys.modules["__main__"])
    file = main.pop("__file__", None)
    yield
    if file is not None:
        main["__file__"] = file


@pytest.fixture
def plugin() -> Iterator[None]:
    """The plugin, switched on for the test."""
    procession.set_plugins(["logging"])
    yield
    procession.set_plugins(None)


@pytest.fixture
def handler(plugin: None) -> Iterator[Collecting]:
    """A handler of the root logger."""
    handler = Collecting()
    logging.getLogger().addHandler(handler)
    yield handler
    handler.gate.set()
    logging.getLogger().removeHandler(handler)


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    """Start a process by a method; it is closed after the test."""
    started = []

    def run(method: str, target: Callable[..., object], *args: Any, **options: Any) -> Any:
        process = procession.get_context(method).Process(target=target, args=args, **options)
        started.append(process)
        process.start()
        return process

    yield run
    for process in started:
        process.kill()
        process.join()
        process.close()


@each_method
@pytest.mark.parametrize(
    ("target", "code"),
    [
        (logged.log, 0),
        (logged.log_and_raise, 1),
        (logged.log_and_exit, 3),
        (logged.log_at_exit, 0),
    ],
)
def test_nothing_is_lost(
    handler: Collecting, run: Callable[..., Any], method: str, target: Any, code: int
) -> None:
    """However the target ends; it is there when join returns."""
    process = run(method, target, "text")
    process.join()

    assert code == process.exitcode
    assert ["text 0"] == handler.texts


@each_method
def test_nothing_is_lost_by_a_kill(
    handler: Collecting, run: Callable[..., Any], method: str
) -> None:
    """What was logged is out of the hands of the process."""
    run(method, logged.log_and_die, "text", 50).join()

    assert [f"text {number}" for number in range(50)] == handler.texts


@each_method
def test_a_record_in_full(handler: Collecting, run: Callable[..., Any], method: str) -> None:
    """All that a formatter of the parent could ask for, and nothing that must be unpickled."""
    process = run(method, logged.log_everything, "text", name="the child")
    pid = process.pid
    process.join(check=True)
    (record,) = handler.records

    assert "text: text of its own" == record.getMessage()
    assert "ArithmeticError: the cause" in logging.Formatter().format(record)
    assert ("the child", pid, "MainThread") == (
        record.processName,
        record.process,
        record.threadName,
    )
    assert ("some.name", "ERROR", "logged.py") == (record.name, record.levelname, record.filename)
    assert [[1, "x"], "<its repr>"] == [record.__dict__["plain"], record.__dict__["odd"]]


def test_a_long_record(handler: Collecting, run: Callable[..., Any]) -> None:
    """Longer than any socket takes at once."""
    run(METHODS[0], logged.log_length, 1 << 20).join(check=True)

    assert ["x" * (1 << 20) + " 0"] == handler.texts


@each_method
def test_levels_are_the_parent_s(handler: Collecting, run: Callable[..., Any], method: str) -> None:
    """Nothing is made in vain, and the relay is the only handler."""
    named = logging.getLogger("some.name")
    named.setLevel(logging.DEBUG)
    receiver, sender = procession.Pipe()
    try:
        run(method, logged.levels, sender).join(check=True)
        assert (logging.WARNING, logging.DEBUG, False, ["RelayHandler"]) == receiver.recv()
    finally:
        named.setLevel(logging.NOTSET)
        receiver.close()
        sender.close()


@each_method
def test_grandchildren(handler: Collecting, run: Callable[..., Any], method: str) -> None:
    """They are the top's business, if nobody on the way has handlers."""
    run(method, logged.log_deeper, "deep", method).join(check=True)

    assert ["deep 0"] == handler.texts
    assert "grandchild deep" == handler.records[0].processName


@each_method
def test_a_child_with_handlers_relays(
    handler: Collecting, run: Callable[..., Any], method: str, tmp_path: Path
) -> None:
    """Its own handlers get the records of its children, and so do those of its parent."""
    output = tmp_path / "output"
    run(method, logged.log_deeper, "deep", method, True, stdout=output).join(check=True)

    assert ["deep 0"] == handler.texts
    assert "grandchild deep" == handler.records[0].processName
    assert "own grandchild deep deep 0\n" == output.read_text()


def test_records_come_while_the_child_runs(handler: Collecting, run: Callable[..., Any]) -> None:
    """Nobody needs to join for it."""
    receiver, sender = procession.Pipe()
    process = run(METHODS[0], logged.log_impatiently, sender, 1.0, 3)
    for _ in range(3):
        assert handler.came.acquire(timeout=DEADLINE)
    assert process.is_alive()
    receiver.send(None)
    process.join(check=True)

    assert 4 == len(handler.records)
    receiver.close()
    sender.close()


@each_method
def test_a_parent_that_does_not_read(
    handler: Collecting, run: Callable[..., Any], method: str
) -> None:
    """A child waits once, then drops and counts; what comes later is not lost."""
    count = 2000
    receiver, sender = procession.Pipe()
    handler.gate.clear()
    process = run(method, logged.log_impatiently, sender, 0.1, count)
    assert receiver.poll(DEADLINE)
    assert DEADLINE / 2 > receiver.recv()
    handler.gate.set()
    for _ in range(100):
        assert handler.came.acquire(timeout=DEADLINE)  # there is room again
    receiver.send(None)
    process.join(check=True)
    receiver.close()
    sender.close()
    early = [text for text in handler.texts if text.startswith("early")]
    dropped = [int(text.split()[0]) for text in handler.texts if "were dropped" in text]

    assert 100 < len(early) < count
    assert len(early) + sum(dropped) == count
    assert "late 0" == handler.texts[-1]


def test_forks_are_not_warned_of(handler: Collecting) -> None:
    """The thread stands still over a fork, and goes on afterwards; nothing stays behind."""
    if "fork" not in METHODS:
        pytest.skip("nothing forks")
    before = leaks.Snapshot.take()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        processes = [
            procession.get_context("fork").Process(target=logged.log, args=(f"{each}", 20))
            for each in range(10)
        ]
        for process in processes:
            process.start()
    for process in processes:
        process.join(check=True)
        process.close()

    assert 200 == len(set(handler.texts))
    assert [] == [line for line in before.leaks() if "descriptor" in line or "thread" in line]


@pytest.mark.once
def test_two_threads_that_fork(handler: Collecting, run: Callable[..., Any]) -> None:
    """Each pauses the thread for itself; no record is missing in the end."""
    if "fork" not in METHODS:
        pytest.skip("nothing forks")

    def fork() -> None:
        for each in range(10):
            run("fork", logged.log, f"{threading.get_ident()}-{each}", 5).join()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the threads of the test are there
        threads = [threading.Thread(target=fork) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert 150 == len(set(handler.texts))


def test_the_thread_ends_with_the_last_child(handler: Collecting, run: Callable[..., Any]) -> None:
    """Nothing has to be closed, and nothing is left."""
    before = set(os.listdir("/proc/self/task"))
    receiver, sender = procession.Pipe()
    process = run(METHODS[0], logged.log_impatiently, sender, 1.0, 1)
    receiver.recv()
    new = set(os.listdir("/proc/self/task")) - before
    assert 1 == len(new)
    receiver.send(None)
    process.join(check=True)

    assert new.isdisjoint(os.listdir("/proc/self/task"))
    receiver.close()
    sender.close()


def test_a_handler_that_fails(
    handler: Collecting, run: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It harms neither the other records nor the join."""
    wrong = logging.Filter()

    def fail(record: logging.LogRecord) -> bool:
        raise ArithmeticError("broken filter")

    wrong.filter = fail  # type: ignore[method-assign]
    procession.get_logger().addHandler(caplog.handler)
    logger = logging.getLogger("child.log")
    logger.addFilter(wrong)
    try:
        run(METHODS[0], logged.log, "text").join(check=True)
    finally:
        logger.removeFilter(wrong)
        procession.get_logger().removeHandler(caplog.handler)
    run(METHODS[0], logged.log, "again").join(check=True)

    assert "broken filter" in caplog.text
    assert ["again 0"] == handler.texts


def test_a_handler_that_asks_for_its_thread(handler: Collecting, run: Callable[..., Any]) -> None:
    """As one that logs itself; no stand-in for a thread is left for forks to warn of."""

    def ask(record: logging.LogRecord) -> bool:
        threading.current_thread()
        return True

    handler.addFilter(ask)
    receiver, sender = procession.Pipe()
    process = run(METHODS[0], logged.log_impatiently, sender, 1.0, 1)
    assert handler.came.acquire(timeout=DEADLINE)
    receiver.recv()
    receiver.send(None)
    process.join(check=True)
    receiver.close()
    sender.close()

    assert [] == [each for each in threading.enumerate() if each.name.startswith("Dummy")]


def test_a_start_that_fails(handler: Collecting, run: Callable[..., Any]) -> None:
    """Its line goes, and the next start has its own."""
    if "spawn" not in METHODS:
        pytest.skip("nothing is pickled")
    run("spawn", logged.log, "text").join(check=True)
    gc.collect()
    before = leaks.descriptors()
    with pytest.raises(TypeError, match="does not cross"):
        procession.get_context("spawn").Process(
            target=logged.log, args=(logged.Unpicklable(),)
        ).start()
    gc.collect()
    assert leaks.descriptors().keys() <= before.keys()
    run("spawn", logged.log, "text").join(check=True)

    assert ["text 0"] * 2 == handler.texts


PROGRAM = """
import logging, sys, time
import procession
from procession.testing import logged

if __name__ == "__main__":
    method, kind, path = sys.argv[1:]
    process = procession.get_context(method).Process(target=getattr(logged, kind), args=(path,))
    if kind == "log_when_alone":
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
    process.start()
    if kind == "log_when_alone":
        time.sleep(60)
"""

ENVIRONMENT = {**os.environ, "PROCESSION_PLUGINS": "logging"}


@each_method
def test_the_parent_is_killed(method: str, tmp_path: Path) -> None:
    """A child that lives on logs to stderr, and neither hangs nor fails."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = tmp_path / "word"
    with subprocess.Popen(
        [sys.executable, str(program), method, "log_when_alone", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        assert "here 0\n" == parent.stdout.readline()
        parent.kill()
        errors = parent.stderr.read()  # until the child has ended, too

    assert "went on" == path.read_text()
    # In the moment of its death the parent still took some.
    assert "orphan 999" in errors


@each_method
def test_a_parent_that_does_not_join(method: str, tmp_path: Path) -> None:
    """Its end waits for the child, and reads all the while; without handlers it goes to stderr."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("args=(path,)", "args=(path, 3000)"))
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program), method, "log", "text"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env=ENVIRONMENT,
    )

    assert [f"text {number}" for number in range(3000)] == done.stderr.splitlines()
    assert 0 == done.returncode
    assert DEADLINE / 2 > time.monotonic() - start


SLIM_PROGRAM = """\
import sys
import procession
from procession.testing import failing, payloads

if __name__ == "__main__":
    ctx = procession.get_context(sys.argv[1])
    receiver, sender = ctx.Pipe()
    process = ctx.Process(target=payloads.call, args=(sender, failing.loaded_modules))
    process.start()
    print(*receiver.recv())
    process.join()
"""


@each_method
def test_children_stay_slim(method: str, tmp_path: Path) -> None:
    """The parent's side, and what finds plugins, is not imported in children.

    In a program of its own: a fork server loads what one child wants for all later ones.
    """
    if method == "fork":
        pytest.skip("a forked child has all of its parent's modules")
    program = tmp_path / "program.py"
    program.write_text(SLIM_PROGRAM)
    done = subprocess.run(
        [sys.executable, program, method],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env=ENVIRONMENT,
    )
    modules = done.stdout.split()

    assert "procession_logging._child" in modules, done.stderr
    assert {"pluggy", "attr", "socket", "procession_logging._relay"}.isdisjoint(modules)
