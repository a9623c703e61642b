"""What `bubblewrap` promises beyond what every start method does."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import procession
from procession.errors import ChildLostError, PluginUnavailableError
from procession.plugin import LOST_EXIT_CODE
from procession.testing import payloads
from procession_bubblewrap._child import SANDBOX_FAILED
from procession_bubblewrap._sandbox import HIDDEN, NETWORK, WRITABLE, obstacle
from procession_bubblewrap._start_method import Bubblewrap

assert sys.platform == "linux"  # where these tests know how to look

#: Why nothing can be tried here; None where it can.
REASON = Bubblewrap.unavailable()
needs_a_sandbox = pytest.mark.skipif(
    REASON is not None, reason=f"NOTHING OF bubblewrap WAS TESTED: {REASON}"
)

_SECONDS = 30

PARENT = """\
import os
import signal
import procession
from procession.testing import payloads

if __name__ == "__main__":
    ctx = procession.get_context("bubblewrap", transport="pipe")
    process = ctx.Process(target=payloads.compute_for_ever, daemon=True)
    process.start()
    print(process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Start a process in a sandbox; it is killed after the test."""
    ctx = procession.get_context("bubblewrap", transport="pipe")
    made: list[Any] = []

    def start(target: Callable[..., Any], *args: Any, **options: Any) -> Any:
        made.append(ctx.Process(target=target, args=args, **options))
        made[-1].start()
        return made[-1]

    yield start
    for process in made:
        if process.pid is not None:
            process.kill()
            process.join(_SECONDS)
        process.close()


@pytest.fixture
def call(start: Callable[..., Any]) -> Callable[..., Any]:
    """Call a function in a sandbox and return its result."""

    def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        ours, theirs = procession.get_context(transport="pipe").Pipe()
        with ours, theirs:
            start(payloads.call, theirs, function, *arguments, **options)
            return ours.recv()

    return call


@pytest.fixture
def error_of(start: Callable[..., Any]) -> Callable[..., Any]:
    """Call a function in a sandbox and return the exception that ends it."""

    def error_of(function: Callable[..., Any], *arguments: Any) -> Any:
        process = start(function, *arguments)
        process.join(_SECONDS)
        return process.exception

    return error_of


# -- whether it can be used ----------------------------------------------------------------


def test_it_says_why_it_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is for somebody who has to do something about it."""
    monkeypatch.setenv("PATH", "/nonexistent")
    obstacle.cache_clear()
    try:
        assert "install bubblewrap" in str(Bubblewrap.unavailable())
    finally:
        obstacle.cache_clear()


def test_a_sandbox_is_tried_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The program may be there and not allowed to do its work, as in many containers."""
    program = tmp_path / "bwrap"
    program.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    obstacle.cache_clear()
    try:
        assert "No permissions to create new namespace" in str(Bubblewrap.unavailable())
    finally:
        obstacle.cache_clear()


@pytest.mark.skipif(REASON is None, reason="it can be used here")
def test_it_is_refused_where_it_cannot_work() -> None:
    """Not a broken child later, but an error when it is chosen."""
    with pytest.raises(PluginUnavailableError):
        procession.get_context("bubblewrap")


@needs_a_sandbox
def test_it_is_found_by_name() -> None:
    """Being installed is all that a plugin has to do."""
    assert "bubblewrap" in procession.get_all_start_methods()


# -- the sandbox ---------------------------------------------------------------------------


@needs_a_sandbox
def test_files_can_be_read_and_not_written(
    call: Callable[..., Any], error_of: Callable[..., Any], tmp_path: Path
) -> None:
    """The reason to choose this method: what goes wrong in a child stays there."""
    file = tmp_path / "precious"
    file.write_text("as it was")

    assert "as it was" == call(Path.read_text, file)
    assert errno.EROFS == error_of(Path.write_text, file, "spoiled").errno
    assert "as it was" == file.read_text()


@needs_a_sandbox
def test_what_is_said_to_be_writable(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A child can be given a place for what it makes."""
    monkeypatch.setenv(WRITABLE, str(tmp_path))

    assert 4 == call(Path.write_text, tmp_path / "result", "done")
    assert "done" == (tmp_path / "result").read_text()


@needs_a_sandbox
def test_what_is_hidden(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A child has not to read everything; what is writable shows through."""
    for name in ("secrets", "shared"):
        (tmp_path / name).mkdir()
    (tmp_path / "secrets" / "key").touch()
    monkeypatch.setenv(HIDDEN, str(tmp_path))
    monkeypatch.setenv(WRITABLE, str(tmp_path / "shared"))

    assert ["shared"] == call(os.listdir, tmp_path)


@needs_a_sandbox
def test_temporary_files_are_the_child_s_own(call: Callable[..., Any]) -> None:
    """They work, and nobody else sees them."""
    folder = call(tempfile.mkdtemp)

    assert folder.startswith("/dev/shm/")
    assert not os.path.exists(folder)


@needs_a_sandbox
@pytest.mark.parametrize(
    ("variable", "path", "why"),
    [
        (WRITABLE, "here", "is not an absolute path"),
        (WRITABLE, "/nonexistent", "does not exist"),
        (HIDDEN, "/etc/hostname", "is not a folder"),
    ],
)
def test_settings_that_cannot_be_right(
    start: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    path: str,
    why: str,
) -> None:
    """They are refused at the start, by name, and nothing has been started."""
    monkeypatch.setenv(variable, path)

    with pytest.raises(ValueError, match=f"{variable} names '{path}', which {why}"):
        start(payloads.nothing)


@needs_a_sandbox
def test_the_network_is_out_of_reach_unless_it_is_asked_for(
    call: Callable[..., Any], error_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even this machine's own services."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()

        assert isinstance(error_of(socket.create_connection, address), OSError)
        monkeypatch.setenv(NETWORK, "1")
        process_error = error_of(socket.create_connection, address)
        assert process_error is None


# -- as a process --------------------------------------------------------------------------


@needs_a_sandbox
def test_the_process_id_is_that_of_the_child(start: Callable[..., Any]) -> None:
    """And not that of bubblewrap, which is in between: locks and people go by it."""
    ours, theirs = procession.get_context(transport="pipe").Pipe()
    with ours, theirs:
        process = start(payloads.call, theirs, os.getpid)

        assert process.pid == ours.recv()


@needs_a_sandbox
@pytest.mark.parametrize("code", [0, 1, 7, 125, 255])
def test_exit_codes(start: Callable[..., Any], code: int) -> None:
    """Those of the child."""
    process = start(payloads.exit_at_once, code)
    process.join(_SECONDS)

    assert code == process.exitcode


@needs_a_sandbox
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGSEGV", "SIGUSR1"])
def test_signals_as_exit_codes(start: Callable[..., Any], name: str) -> None:
    """bubblewrap says 128 + n; procession says -n."""
    number = int(getattr(signal, name))
    process = start(payloads.die_by, number)
    process.join(_SECONDS)

    assert -number == process.exitcode


@needs_a_sandbox
def test_a_signal_reaches_the_child(start: Callable[..., Any]) -> None:
    """bubblewrap would not pass it on: the child gets it directly, and can handle it."""
    ours, theirs = procession.get_context(transport="pipe").Pipe()
    with ours, theirs:
        process = start(payloads.hold_and_handle, theirs, int(signal.SIGTERM))
        assert "ready" == ours.recv()
        process.terminate()

        assert [signal.SIGTERM] == ours.recv()
        process.join(_SECONDS)
        assert 0 == process.exitcode


@needs_a_sandbox
def test_signals_right_after_the_start(start: Callable[..., Any]) -> None:
    """A child that bubblewrap is still preparing ends by them as well."""
    processes = [start(payloads.hold_for_ever) for _ in range(20)]
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_SECONDS)

    assert [-signal.SIGTERM] * 20 == [process.exitcode for process in processes]


@needs_a_sandbox
def test_what_it_is_given_works_inside(call: Callable[..., Any]) -> None:
    """Locks, which know their holders by process id, and queues."""
    ctx = procession.get_context("bubblewrap", transport="pipe")
    lock, queue = ctx.Lock(), ctx.Queue()
    with lock:
        assert not call(lock.acquire, False)
    assert call(lock.acquire, False)  # by a process that has ended, and given it back
    call(queue.put, "from inside")

    assert "from inside" == queue.get(timeout=_SECONDS)
    queue.close()


@needs_a_sandbox
def test_bubblewrap_is_killed(start: Callable[..., Any]) -> None:
    """Nobody can tell any more how the child ends, so it does not live on without a keeper."""
    process = start(payloads.hold_for_ever)
    child = os.pidfd_open(process.pid)
    with open(f"/proc/{process.pid}/stat") as file:
        keeper = int(file.read().rpartition(")")[2].split()[1])
    assert keeper != os.getpid()
    os.kill(keeper, signal.SIGKILL)
    process.join(_SECONDS)

    assert LOST_EXIT_CODE == process.exitcode
    assert select.select([child], [], [], _SECONDS)[0]
    os.close(child)


@needs_a_sandbox
def test_a_daemonic_child_ends_with_a_killed_parent(tmp_path: Path) -> None:
    """The child itself sees to it; bubblewrap follows."""
    (tmp_path / "program.py").write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, "program.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        try:
            child = os.pidfd_open(int(parent.stdout.readline()))
        except ProcessLookupError:
            return  # it was as quick as that
        assert -signal.SIGKILL == parent.wait(_SECONDS)
        assert select.select([child], [], [], _SECONDS)[0]
        os.close(child)


# -- when bubblewrap fails -----------------------------------------------------------------


@needs_a_sandbox
def test_a_program_that_is_not_there(
    start: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """What fails inside of bubblewrap has an exit code of its own, and words on stderr."""
    procession.set_executable("/nonexistent/python")
    try:
        process = start(payloads.nothing)
    finally:
        procession.set_executable(sys.executable)
    process.join(_SECONDS)

    assert SANDBOX_FAILED == process.exitcode
    assert "/nonexistent/python" in capfd.readouterr().err


@needs_a_sandbox
def test_it_ends_without_a_word(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Then there never was a child, and the start says so."""
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ChildLostError, match="has ended with exit code 3"):
        start(payloads.nothing)
