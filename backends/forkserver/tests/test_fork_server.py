"""What the fork server promises beyond the contract of a start method."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from typing import Any

import psutil
import pytest

import procession
from procession.errors import ProcessError
from procession.plugin import LOST_EXIT_CODE, PidChild, wait_readable
from procession.testing import payloads
from procession.testing.forked import until
from procession_forkserver import _protocol

assert sys.platform == "linux"  # where this start method is available

_SECONDS = 20


@pytest.fixture
def ctx() -> Any:
    """A context of the start method."""
    return procession.get_context("forkserver")


def _server() -> psutil.Process:
    """Return the running server; there is one."""
    (server,) = [
        process
        for process in psutil.Process().children()
        if process.status() != psutil.STATUS_ZOMBIE
        and "procession_forkserver" in " ".join(process.cmdline())
    ]
    return server


def _kill_server() -> None:
    """Kill the running server and wait until it has ended; it is not collected."""
    server = os.pidfd_open(_server().pid)
    signal.pidfd_send_signal(server, signal.SIGKILL)
    assert wait_readable(server, _SECONDS)
    os.close(server)


def _start_and_join(ctx: Any) -> None:
    process = ctx.Process(target=payloads.exit_with, args=(0,))
    process.start()
    process.join(_SECONDS)
    process.close()


def test_one_server_serves_every_child(ctx: Any) -> None:
    """Helpers do not multiply, and a child costs a fork and not an interpreter."""
    pids = set()
    for code in (0, 1, 7):
        process = ctx.Process(target=payloads.exit_with, args=(code,))
        process.start()
        pids.add(_server().pid)
        process.join(_SECONDS)
        assert code == process.exitcode
        process.close()
    assert 1 == len(pids)


def test_a_killed_server_is_replaced(ctx: Any) -> None:
    """SIGKILL between two starts costs nothing but the start of a new server."""
    for _ in range(3):
        process = ctx.Process(target=payloads.exit_with, args=(3,))
        process.start()
        process.join(_SECONDS)
        assert 3 == process.exitcode
        process.close()
        _kill_server()


def test_a_killed_server_is_collected_by_active_children(ctx: Any) -> None:
    """A helper that was killed is no zombie, though nothing is started any more."""
    _start_and_join(ctx)
    pid = _server().pid
    _kill_server()

    assert not procession.active_children()

    assert not psutil.pid_exists(pid)


def test_a_killed_server_is_collected_with_the_next_child_that_ends(ctx: Any) -> None:
    """A program that waits for its children has no zombies, either."""
    process = ctx.Process(target=signal.pause)
    process.start()
    pid = _server().pid
    _kill_server()

    process.interrupt()
    process.join(_SECONDS)

    assert not psutil.pid_exists(pid)
    process.close()


def test_children_of_a_killed_server_keep_their_exit_codes(ctx: Any) -> None:
    """A child that ends by itself reports its own code when nobody else can."""
    process = ctx.Process(target=signal.pause)
    process.start()
    _kill_server()

    assert process.is_alive()
    process.interrupt()
    process.join(_SECONDS)

    assert 1 == process.exitcode  # KeyboardInterrupt
    process.close()


def test_a_code_that_nobody_can_know_is_reported_as_lost(ctx: Any) -> None:
    """A child killed after its server ends the wait, with the code for lost ones."""
    process = ctx.Process(target=signal.pause)
    process.start()
    _kill_server()

    process.kill()
    process.join(_SECONDS)

    assert LOST_EXIT_CODE == process.exitcode
    assert not process.is_alive()
    process.close()


def test_a_child_killed_before_it_could_say_who_it_is(
    ctx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start says so, the server goes on, and the same process can be started."""
    process = ctx.Process(target=payloads.exit_with, args=(3,))
    _start_and_join(ctx)
    server = _server()

    def kill_child() -> None:
        until(lambda: bool(server.children()))
        server.children()[0].kill()

    killer = threading.Thread(target=kill_child)
    with monkeypatch.context() as patch:
        # A child that waits for its parcel has not said yet who it is.
        patch.setattr(_protocol, "send_descriptors", lambda *_: None)
        killer.start()
        with pytest.raises(ProcessError, match="ended before it could begin"):
            process.start()
    killer.join()
    process.start()
    process.join(_SECONDS)

    assert 3 == process.exitcode
    assert server == _server()
    process.close()


def test_a_start_that_cannot_be_made_does_not_cost_the_server(ctx: Any) -> None:
    """What a refusing end has not read must not be in the way of its report."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line = socket._socket.socket(fileno=ours.detach())  # type: ignore[attr-defined]
    other = socket._socket.socket(fileno=theirs.detach())  # type: ignore[attr-defined]
    descriptors = [os.dup(0) for _ in range(300)]
    _protocol.send_descriptors(line, descriptors)

    _protocol.refuse(other, 11)
    other.close()

    assert (_protocol.FAILED, 11, []) == _protocol.receive_report(line)
    line.close()
    for fd in descriptors:
        os.close(fd)


def _with_fewer_rights(report: Any) -> None:
    """Start a child, give rights up, start another; send of what groups they were."""
    context = procession.get_context("forkserver")
    for group in (0, 61234):
        os.setresgid(group, group, 0)
        process = context.Process(target=payloads.call, args=(report, os.getresgid))
        process.start()
        process.join(_SECONDS)
        process.close()
    # As another user, one may not even end the server, which ends by itself.
    server = _server()
    os.setresuid(61234, 61234, 0)
    process = context.Process(target=payloads.nothing)
    try:
        process.start()
        process.join(_SECONDS)
    except PermissionError:
        pass  # who may not read the interpreter
    os.setresuid(0, 0, 0)
    report.send(psutil.pid_exists(server.pid))


def test_a_server_has_no_more_rights_than_its_parent(ctx: Any) -> None:
    """A program that gives up rights has no children that still have them."""
    if os.getuid() != 0:
        pytest.skip("only root can give up rights")
    receiver, sender = ctx.Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        try:
            _with_fewer_rights(sender)
        finally:
            os._exit(0)
    sender.close()

    assert (0, 0, 0) == receiver.recv()
    assert (61234, 61234, 61234) == receiver.recv()
    assert not receiver.recv()
    os.waitpid(pid, 0)
    receiver.close()


def test_a_default_timeout_is_not_that_of_a_start(ctx: Any) -> None:
    """A server takes as long as it takes, though the program's own sockets are impatient."""
    socket.setdefaulttimeout(0.0001)
    try:
        process = ctx.Process(target=payloads.exit_with, args=(3,))
        process.start()  # which starts the server, too
        process.join(_SECONDS)
    finally:
        socket.setdefaulttimeout(None)

    assert 3 == process.exitcode
    process.close()


def test_the_server_ends_with_its_parent(ctx: Any) -> None:
    """A parent killed with SIGKILL leaves no server behind."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        process = procession.get_context("forkserver").Process(target=signal.pause)
        process.start()
        os.write(writer, f"{_server().pid} {process.pid}".encode())
        signal.pause()
    server, child = map(int, os.read(reader, 100).split())
    watch = os.pidfd_open(server)

    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

    assert wait_readable(watch, _SECONDS)
    os.kill(child, signal.SIGKILL)
    for fd in (watch, reader, writer):
        os.close(fd)


def test_a_forked_copy_of_the_parent_has_a_server_of_its_own(ctx: Any) -> None:
    """The server that a fork inherits is its parent's; it neither uses nor stops it."""
    first = ctx.Process(target=payloads.exit_with, args=(0,))
    first.start()
    first.join(_SECONDS)
    first.close()
    server = _server()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            process = procession.get_context("forkserver").Process(
                target=payloads.exit_with, args=(5,)
            )
            process.start()
            process.join(_SECONDS)
            code = process.exitcode or 99
        finally:
            os._exit(code)
    assert 5 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert server == _server()


@pytest.mark.once
def test_a_fork_while_another_thread_looks_after_the_server(ctx: Any) -> None:
    """A forked copy does not wait for a thread that it has not, and has its own server then."""
    _start_and_join(ctx)
    looking, stop = threading.Event(), threading.Event()

    def look() -> None:
        while not stop.is_set():
            procession.active_children()
            looking.set()

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert looking.wait(_SECONDS)
    codes = []
    for _ in range(100):
        pid = os.fork()
        if not pid:
            os._exit(7)
        copy = PidChild(pid)
        codes.append(copy.wait(_SECONDS))
        copy.signal(signal.SIGKILL)
        copy.close()
    stop.set()
    for thread in threads:
        thread.join()
    assert codes == [7] * 100


def test_more_descriptors_than_one_packet_holds(ctx: Any) -> None:
    """The kernel's limit of 253 descriptors a packet is not a limit of a start."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes = [os.pipe() for _ in range(150)]
    given = [fd for pipe in pipes for fd in pipe]
    line = socket._socket.socket(fileno=ours.detach())  # type: ignore[attr-defined]
    other = socket._socket.socket(fileno=theirs.detach())  # type: ignore[attr-defined]

    _protocol.send_descriptors(line, given)
    received = _protocol.receive_descriptors(other)

    assert 300 == len(received)
    assert [os.fstat(fd).st_ino for fd in given] == [os.fstat(fd).st_ino for fd in received]
    for fd in (*given, *received):
        os.close(fd)
    line.close()
    other.close()


def test_a_child_has_none_of_its_siblings_descriptors(ctx: Any) -> None:
    """The hundredth child has as many open files as the first."""
    receiver, sender = ctx.Pipe(duplex=False)
    waiting = [ctx.Process(target=signal.pause) for _ in range(10)]
    counts = []
    for _ in ("alone", "crowded"):
        process = ctx.Process(target=payloads.call, args=(sender, payloads.open_descriptors))
        process.start()
        process.join(_SECONDS)
        process.close()
        counts.append(len(receiver.recv()))
        for other in waiting:
            if other.pid is None:
                other.start()
    for other in waiting:
        other.kill()
        other.join(_SECONDS)
        other.close()
    receiver.close()
    sender.close()
    assert counts[0] == counts[1]


def test_a_module_that_cannot_be_preloaded_is_named(ctx: Any, capfd: Any) -> None:
    """A preload that fails is reported, and children start without it."""
    process = ctx.Process(target=payloads.exit_with, args=(0,))
    process.start()
    process.join(_SECONDS)
    process.close()
    _kill_server()  # so that the next one is started with another preload
    ctx.set_forkserver_preload(["no_such_module_anywhere"])
    try:
        process = ctx.Process(target=payloads.exit_with, args=(0,))
        process.start()
        process.join(_SECONDS)
    finally:
        ctx.set_forkserver_preload(["__main__"])

    assert 0 == process.exitcode
    assert "could not preload no_such_module_anywhere" in capfd.readouterr().err
    process.close()


def test_variables_are_the_parents(
    ctx: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server has of its own, by its modules or from earlier, is none of a child's."""
    _start_and_join(ctx)
    _kill_server()
    (tmp_path / "setting_variables.py").write_text(
        "import os\nos.environ['PROCESSION_TESTS_VARIABLE'] = 'of the server'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("PROCESSION_TESTS_VARIABLE", raising=False)
    ctx.set_forkserver_preload(["setting_variables"])
    try:
        found = [_variable_of_child(ctx)]
        for value in ("late", "later", "of the server"):
            monkeypatch.setenv("PROCESSION_TESTS_VARIABLE", value)
            found.append(_variable_of_child(ctx))
        monkeypatch.delenv("PROCESSION_TESTS_VARIABLE")
        found.append(_variable_of_child(ctx))
    finally:
        ctx.set_forkserver_preload(["__main__"])
        _kill_server()
        _start_and_join(ctx)  # others find a server as there was one before

    assert [None, "late", "later", "of the server", None] == found


def _variable_of_child(ctx: Any) -> object:
    here, there = ctx.Pipe(duplex=False)
    process = ctx.Process(target=payloads.call, args=(there, payloads.environment_of_child))
    process.start()
    there.close()
    answer: dict[str, object] = here.recv()
    process.join(_SECONDS)
    process.close()
    here.close()
    return answer["variable"]


def test_reports_are_read_whole_or_not_at_all() -> None:
    """A line that ends raises `Ended`; a packet of the wrong size is no report."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line = socket._socket.socket(fileno=ours.detach())  # type: ignore[attr-defined]
    theirs.close()

    with pytest.raises(_protocol.Ended):
        _protocol.receive_report(line)
    with pytest.raises(_protocol.Ended):
        _protocol.send_report(line, _protocol.ENDED, 0)

    line.close()
    assert (_protocol.ENDED, -9) == _protocol.parse_report(
        _protocol._REPORT.pack(_protocol.ENDED, -9)
    )
