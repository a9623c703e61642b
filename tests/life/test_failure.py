"""A process that fails says how: `Process.failure`, and `join(check=True)`."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import procession
from procession._processes import failure_record
from procession._starting import oom_kills as _oom_kills
from procession._starting import post_mortem
from procession.errors import ProcessFailedError
from procession.testing import failing, payloads
from procession.testing.forked import DEADLINE

pytestmark = pytest.mark.one_pair_per("method")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="about limits of Linux")
Finish = Callable[..., Any]
MIB = 1 << 20


def test_success(start: Finish) -> None:
    """Nothing is reported of a process that runs, nor of one that has succeeded."""
    process = start(payloads.hold_for_ever)
    assert None is process.failure
    process.kill()
    process.join()
    succeeded = start(payloads.nothing)
    succeeded.join(check=True)

    assert None is succeeded.failure
    assert None is succeeded.exception


def test_not_yet_started(ctx: Any) -> None:
    """Asking is harmless in every state."""
    assert None is ctx.Process(target=payloads.nothing).failure


def test_an_exception(finish: Finish, tmp_path: Path) -> None:
    """Class, message, notes, causes and traceback arrive, and the exception itself."""
    process = finish(failing.fail_with_cause, stderr=tmp_path / "errors")
    failure = process.failure
    error = failure.error

    assert (1, None) == (failure.exitcode, failure.signal)
    assert ("ArithmeticError", "outer", ("a note",)) == (
        error.type_name,
        error.message,
        error.notes,
    )
    assert ("KeyError", "'inner'") == (error.cause.type_name, error.cause.message)
    assert error.context is error.cause
    assert f"process {process.name!r} (pid {process.pid}) failed with ArithmeticError: outer" == (
        failure.summary
    )
    assert f"Process {process.name}:\n{failure.traceback}" == ((tmp_path / "errors").read_text())
    assert "fail_with_cause" in str(failure)
    assert "inner" not in error.traceback
    assert isinstance(process.exception, ArithmeticError)
    assert ["a note"] == process.exception.__notes__
    assert isinstance(process.exception.__cause__, KeyError)
    assert process.exception is failure.exception


def test_check(start: Finish) -> None:
    """The error shows the child's traceback, and is raised from the child's exception."""
    process = start(payloads.raise_error, "no good")

    with pytest.raises(ProcessFailedError, match=r"(?s)no good.*in raise_error") as caught:
        process.join(check=True)
    assert isinstance(caught.value.__cause__, ArithmeticError)
    assert process.failure is caught.value.failure
    process.join()  # without check, as ever


def test_check_after_a_timeout(start: Finish) -> None:
    """A process that has not ended has not failed."""
    start(payloads.hold_for_ever).join(0, check=True)


@pytest.mark.parametrize("kind", [failing.HoldsALock, failing.Ends])
def test_an_exception_that_cannot_be_had(finish: Finish, kind: type[Exception]) -> None:
    """What it was is known nevertheless, and asking for it neither raises nor ends anything."""
    process = finish(failing.fail_with, kind)

    assert None is process.exception
    assert f"procession.testing.failing.{kind.__name__}" == process.failure.error.type_name
    assert "in fail_with" in process.failure.traceback


def test_an_exception_that_cannot_be_unpickled(finish: Finish) -> None:
    """An ``__init__`` with other arguments than ``args`` is the usual reason."""
    process = finish(failing.fail_with, failing.WantsTwo, "one", "two")

    assert process.failure.error.pickled
    assert None is process.exception
    assert "one and two" == process.failure.error.message


def test_an_exception_without_text(finish: Finish) -> None:
    """A failing ``__str__`` does not hide the rest."""
    failure = finish(failing.fail_with, failing.Unreadable).failure

    assert "str() failed" in failure.error.message
    assert "in fail_with" in failure.traceback


def test_an_exception_that_holds_connections(finish: Finish, pair: Any) -> None:
    """They are not handed over: the only one who could do so is about to end."""
    process = finish(failing.fail_with_connection, pair.spec)

    assert None is process.exception
    assert "Connection" in process.failure.error.message


def test_a_long_exception(finish: Finish) -> None:
    """A report has its limits, and says what it leaves out."""
    process = finish(failing.fail_at_length, 50 * MIB)

    assert None is process.exception
    assert "characters are left out here" in process.failure.error.message
    assert len(str(process.failure)) < MIB


def test_causes_in_a_circle(finish: Finish) -> None:
    """Python allows it."""
    process = finish(failing.fail_in_a_circle)

    assert "second" in process.failure.error.cause.message
    assert None is process.failure.error.cause.cause
    assert isinstance(process.exception.__cause__, KeyError)


@pytest.mark.parametrize(("argument", "code", "message"), [(3, 3, "3"), ("why", 1, "why")])
def test_exit(finish: Finish, argument: object, code: int, message: str) -> None:
    """An exit that says what is wrong is a failure, too; 0 is none."""
    failure = finish(payloads.exit_with, argument).failure

    assert (code, "SystemExit", message) == (
        failure.exitcode,
        failure.error.type_name,
        failure.error.message,
    )
    assert f"ended with exit code {code}" in failure.summary
    assert None is finish(payloads.exit_with, 0).failure


def test_exit_without_a_word(finish: Finish) -> None:
    """The report says that there is none."""
    failure = finish(payloads.exit_at_once, 4).failure

    assert (4, None) == (failure.exitcode, failure.error)
    assert "os._exit" in failure.hint


@needs_linux
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"])
def test_a_fatal_signal(finish: Finish, no_faulthandler: None, name: str) -> None:
    """The report shows where in Python the process was."""
    failure = finish(failing.crash_by, signal.Signals[name]).failure

    assert name == failure.signal
    assert "in crash_by" in failure.dump
    assert f"ended by {name}" in str(failure)


@needs_linux
def test_a_choice_of_the_user_about_faults(finish: Finish, tmp_path: Path) -> None:
    """Who wants the dump elsewhere gets it there."""
    path = tmp_path / "errors"
    failure = finish(failing.crash_by, 11, faulthandler=True, stderr=path).failure

    assert None is failure.dump
    assert "in crash_by" in path.read_text()


def test_a_child_that_cannot_be_begun(finish: Finish, pair: Any) -> None:
    """What goes wrong before the target is called is reported in the same way."""
    if pair.method == "fork":
        pytest.skip("nothing is imported in a forked child")
    process = finish(payloads.nothing_with, failing.Unloadable())

    assert "ImportError: no such module" in process.failure.summary
    assert isinstance(process.exception, ImportError)


def test_ctrl_c(start: Finish, ctx: Any) -> None:
    """It is quiet on stderr, and known nevertheless."""
    receiver, sender = ctx.Pipe()
    process = start(payloads.hold, sender)
    assert "ready" == receiver.recv()
    process.interrupt()
    process.join()
    receiver.close()
    sender.close()

    assert "KeyboardInterrupt" == process.failure.error.type_name


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_who_sent_the_signal(start: Finish, name: str) -> None:
    """The first question about a killed process is whether we did it ourselves."""
    ours, theirs = start(payloads.hold_for_ever), start(payloads.hold_for_ever)
    ours.terminate() if name == "SIGTERM" else ours.kill()
    os.kill(theirs.pid, signal.Signals[name])
    ours.join()
    theirs.join()

    assert (name, name) == (ours.failure.signal, theirs.failure.signal)
    assert "this program sent the signal itself" in ours.failure.hint
    assert "itself" not in (theirs.failure.hint or "")


def test_stopped(start: Finish) -> None:
    """`stop` is one of our own ways."""
    process = start(payloads.hold_for_ever, sigint="ignore")
    process.stop()

    assert "this program sent the signal itself" in process.failure.hint


def test_out_of_memory(start: Finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts whom it kills for want of memory, before and after."""
    events, limit = tmp_path / "memory.events", tmp_path / "memory.max"
    events.write_text("low 0\noom 7\noom_kill 7\n")
    limit.write_text(f"{256 * MIB}\n")
    counter = _oom_kills.OomKills()
    counter._files = str(events), str(limit)
    monkeypatch.setattr(post_mortem, "oom_kills", counter)
    process, other = start(payloads.hold_for_ever), start(payloads.hold_for_ever)

    os.kill(other.pid, signal.Signals["SIGKILL"])
    other.join()
    events.write_text("low 0\noom 8\noom_kill 8\n")
    os.kill(process.pid, signal.Signals["SIGKILL"])
    process.join()

    assert "out-of-memory killer" in process.failure.hint
    assert "256 MB" in process.failure.hint
    assert "no process of this control group" in other.failure.hint


MEMORY_PROGRAM = """\
import os, sys
import procession
from procession.testing import payloads

if __name__ == "__main__":
    with open(sys.argv[1] + "/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))
    process = procession.get_context(sys.argv[2]).Process(
        target=payloads.hold_memory, args=(1 << 30,)
    )
    process.start()
    process.join()
    print(process.failure.signal, process.failure.hint)
"""


@needs_linux
def test_out_of_memory_in_a_group(
    pair: Any, tmp_path: Path, make_group: Callable[[str, int], Path]
) -> None:
    """The real thing, where the tests may make a control group."""
    group = make_group("memory", 128 * MIB)
    program = tmp_path / "program.py"
    program.write_text(MEMORY_PROGRAM)
    done = subprocess.run(
        [sys.executable, program, group, pair.method],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )

    assert "SIGKILL most likely the kernel's out-of-memory killer" in done.stdout, done
    assert "128 MB" in done.stdout


@needs_linux
def test_limits(finish: Finish) -> None:
    """A limit that was met is named."""
    seconds = finish(payloads.burn, limits={"cpu_seconds": 1}).failure
    memory = finish(failing.exhaust_memory, limits={"address_space": 1024 * MIB}).failure
    clock = finish(payloads.hold_for_ever, max_seconds=0.1).failure

    assert ("SIGXCPU", True) == (seconds.signal, "1 s" in seconds.hint)
    assert ("MemoryError", True) == (memory.error.type_name, "1024 MB" in memory.hint)
    assert "max_seconds" == clock.limit_exceeded.option
    assert str(clock.limit_exceeded) == clock.hint


@needs_linux
@pytest.mark.parametrize("size", [0, 4000])
def test_a_limit_of_file_size(finish: Finish, size: int) -> None:
    """It holds for files in memory, too: what fits in is reported, and nobody is killed."""
    failure = finish(failing.fail_with_cause, limits={"file_size": size}).failure

    assert (1, None) == (failure.exitcode, failure.signal)
    if size:
        assert "outer" == failure.error.message
    else:
        assert "file_size" in failure.hint


def test_it_survives_close(finish: Finish) -> None:
    """A report is looked at after cleaning up, most of all."""
    process = finish(payloads.raise_error, "closed")
    pid = process.pid
    process.close()

    assert ("closed", pid) == (process.failure.error.message, process.failure.pid)


def test_it_can_be_sent(finish: Finish) -> None:
    """Reports travel, whatever the exception in them is."""
    failure = finish(failing.fail_with, failing.WantsTwo, "one", "two").failure
    assert None is failure.exception
    copy = pickle.loads(pickle.dumps(ProcessFailedError("text", failure=failure))).failure

    assert str(failure) == str(copy)


@needs_linux
def test_no_descriptor_left(finish: Finish, tmp_path: Path) -> None:
    """What a child does to tell of its failure is imported, although that is what has failed."""
    errors = tmp_path / "errors"
    options = {"limits": {"open_files": 100}, "stderr": errors}
    failure = finish(failing.use_up_descriptors, **options).failure

    assert "Too many open files" in failure.error.message
    assert "in use_up_descriptors" in failure.traceback
    assert "in use_up_descriptors" in errors.read_text()


@needs_linux
def test_descriptors_that_are_somebody_else_s_now(finish: Finish, tmp_path: Path) -> None:
    """A child that closes all descriptors, as daemons do, must not write into its own files."""
    path = tmp_path / "precious"
    path.write_text("precious")
    failure = finish(failing.lose_descriptors, str(path), stderr=tmp_path / "errors").failure

    assert "precious" == path.read_text()
    assert (1, None) == (failure.exitcode, failure.error)


@needs_linux
def test_a_copy_of_the_child(finish: Finish) -> None:
    """What a process forks in the plain way is not the process."""
    failure = finish(failing.fork_a_failure).failure

    assert (41, "SystemExit") == (failure.exitcode, failure.error.type_name)


@needs_linux
@pytest.mark.parametrize("target", [(payloads.raise_error, "deep"), (failing.crash_by, 11)])
def test_a_grandchild(
    start: Finish, ctx: Any, pair: Any, no_faulthandler: None, target: tuple[Any, ...]
) -> None:
    """Each parent has the reports of its own children."""
    receiver, sender = ctx.Pipe()
    process = start(failing.tell_failure, sender, pair.spec, *target)
    failure = receiver.recv()
    process.join()
    receiver.close()
    sender.close()

    assert None is process.failure
    assert ("deep" if failure.error else "in crash_by") in str(failure)


def test_threads_that_start_processes_at_once(finish: Finish, pair: Any) -> None:
    """No report ends up with somebody else."""
    if pair.method == "fork":
        pytest.skip("procession warns of forks with threads")
    found: dict[str, str] = {}

    def run(text: str) -> None:
        found[text] = finish(payloads.raise_error, text).failure.error.message

    threads = [threading.Thread(target=run, args=(f"text {n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {f"text {n}": f"text {n}" for n in range(6)} == found


@pytest.mark.skipif(sys.platform == "win32", reason="no pwrite")
@pytest.mark.parametrize("written", range(3))
def test_killed_while_it_writes(written: int) -> None:
    """A record counts when its header is there, and the objects when a second one is."""
    file = post_mortem.PostMortem("report")
    record = failure_record.FailureRecord(file.report, ValueError("half"), "")
    if written == 0:
        record._write(failure_record.HEADER_SIZE, b"half a record")
    else:
        record.write()
        if written == 2:
            offset = failure_record.HEADER_SIZE + record._written
            record._write(offset, b"half an object")
    data, dump = post_mortem._read(file.report)
    text, error = post_mortem._decode(data)
    file.close()

    assert ("", b"") == (text, dump)
    if written == 0:
        assert None is error
    else:
        assert error is not None
        assert ("half", None) == (error.message, error.pickled)


def test_a_file_that_cannot_be_made(ctx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start without descriptors raises as ever, and leaves nothing."""

    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(post_mortem, "anonymous_file", refuse)
    process = ctx.Process(target=payloads.nothing)

    with pytest.raises(OSError, match="cannot start"):
        process.start()
    monkeypatch.undo()
    process.start()
    process.join(check=True)
    process.close()


_WITHOUT_DESCRIPTORS = """
import os, procession

def fail():
    raise ValueError("wrong")

process = procession.get_context("fork").Process(target=fail)
process.start()
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
process.join()
failure = process.failure
for fd in taken:
    os.close(fd)
assert failure.summary.endswith("failed with ValueError: wrong"), failure
assert str(failure.exception) == "wrong"
"""


def test_a_report_needs_no_descriptor() -> None:
    """What a program cannot import when it has none left was there before the child was."""
    if "fork" not in procession.get_all_start_methods():
        pytest.skip("fork is not installed")
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))\n"
        + _WITHOUT_DESCRIPTORS
    )

    done = subprocess.run(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, timeout=60, check=False
    )

    assert 0 == done.returncode, done.stderr.decode()
    assert b"ValueError: wrong" in done.stderr  # the child's own
