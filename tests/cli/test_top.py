"""``procession top`` and ``procession dump``: a real program, seen from outside."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from procession._commands.observe.program import Ended, Observer, ProgramView, programs
from procession.testing import leaks
from procession.testing.forked import until

if sys.platform != "linux":
    pytest.skip("needs /proc", allow_module_level=True)

import fcntl
import termios

PATIENCE = 30.0
WAITS = {
    "receiver": "waits for ",
    "getter": "waits for an item of queue ",
    "putter": "waits for room in queue ",
    "joiner": "waits for task_done() for all of queue ",
    "holder": "waits for ",
    "parent": "waits for the end of grandchild ",
    "grandchild": "waits for an item of queue ",
}


def may_trace() -> bool:
    """Whether the kernel tells us what other processes sleep on."""
    try:
        Path("/proc/self/syscall").read_text()
        return os.geteuid() == 0 or Path("/proc/sys/kernel/yama/ptrace_scope").read_text() == "0\n"
    except OSError:
        return False


pytestmark = [
    pytest.mark.skipif(not may_trace(), reason="needs to be allowed to trace"),
    pytest.mark.once,
]


def deeds(view: Any) -> dict[str, str]:
    """Return what the main thread of each process does, from the JSON of a program."""
    return {
        each["name"]: each["threads"].get(str(each["pid"]), {"what": ""})["what"]
        for each in view["processes"]
    }


def settled(look: Any) -> Any:
    """Return what *look* gives once it finds nobody awake: sleepers look around every second."""
    deadline = time.monotonic() + PATIENCE
    while True:
        view = look()
        found = deeds(view)
        if all(found.get(name, "").startswith(text) for name, text in WAITS.items()):
            return view
        assert time.monotonic() < deadline, found


class Watched:
    """A running program of `procession.testing.watched`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.pids: dict[str, int] = json.loads(process.stdout.readline())
        self.pids["MainProcess"] = process.pid

    def settle(self) -> ProgramView:
        """Return how the program looks once everybody waits for what they are to wait for."""
        observer = Observer(self.process.pid)
        found: list[ProgramView] = []

        def look() -> Any:
            found[:] = [observer.look()]
            return json.loads(json.dumps(attrs.asdict(found[0])))

        settled(look)
        return found[0]

    def release(self) -> dict[str, int]:
        """Let everybody go on, and return their exit codes."""
        out, _ = self.process.communicate("go\n", timeout=PATIENCE)
        found: dict[str, int] = json.loads(out)
        return found

    def descriptors(self) -> dict[int, dict[str, str]]:
        """Return what every process has open."""
        found = {}
        for pid in self.pids.values():
            folder = f"/proc/{pid}/fd"
            found[pid] = {name: os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}
        return found


@contextmanager
def watched(
    environment: dict[str, str], method: str, transport: str, **variables: str
) -> Iterator[Watched]:
    """Run a program of `procession.testing.watched`, and end it whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "procession.testing.watched", method, transport],
        env={**environment, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Watched(process)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all have ended, as they should
        process.communicate()


@pytest.fixture
def program(environment: dict[str, str], pair: Any) -> Iterator[Watched]:
    """A watched program on one start method x transport."""
    with watched(environment, pair.method, pair.transport) as program:
        yield program


@pytest.mark.one_pair_per("method")
def test_who_waits_for_what(run: Any, program: Watched, pair: Any) -> None:
    """Names, methods, parents, queues with their sizes, and every kind of wait."""
    program.settle()
    view = settled(lambda: json.loads(run("top", program.process.pid, "--json").stdout)[0])
    by_name = {each["name"]: each for each in view["processes"]}
    sizes = {queue["name"]: (queue["size"], queue["maxsize"]) for queue in view["queues"]}

    for name, pid in program.pids.items():
        assert by_name[name]["pid"] == pid
        assert by_name[name]["method"] == ("" if name == "MainProcess" else pair.method)
        assert by_name[name]["memory"] > 0
        assert by_name[name]["hidden"] == ""
    assert by_name["grandchild"]["parent"] == program.pids["parent"]
    assert by_name["getter"]["parent"] == program.pids["MainProcess"]
    assert sorted(sizes.values()) == [(0, 0), (0, 0), (1, 0), (1, 1), (7, 0)]
    waits = {
        name: each["threads"][str(each["pid"])]
        for name, each in by_name.items()
        if name in program.pids
    }
    assert waits["parent"]["who"] == [program.pids["grandchild"]]
    assert program.pids["MainProcess"] in waits["getter"]["who"]
    assert program.pids["MainProcess"] in waits["receiver"]["who"]
    assert sizes["queue " + waits["putter"]["what"].removeprefix(WAITS["putter"])] == (1, 1)
    assert sizes["queue " + waits["getter"]["what"].removeprefix(WAITS["getter"])] == (0, 0)


@pytest.mark.one_pair_per("method")
def test_looking_changes_nothing(environment: dict[str, str], pair: Any) -> None:
    """Descriptors stay, every wake-up arrives, ends are seen: also while somebody looks."""
    with watched(environment, pair.method, pair.transport) as program:
        program.settle()
        observer = Observer(program.process.pid)
        observer.look()
        ours = leaks.descriptors()

        def nothing_new() -> bool:
            # Those who wait open what they look around with after a second, so that one
            # round may find something new; looking that leaks would do so in each.
            before = program.descriptors()
            for _ in range(5):
                observer.look()
            return program.descriptors() == before

        until(nothing_new)
        assert leaks.descriptors() == ours
        assert program.process.stdin is not None
        program.process.stdin.write("go\n")
        program.process.stdin.flush()
        while program.process.poll() is None:
            try:
                observer.look()
            except Ended:
                break
        codes = program.release()
        assert codes == dict.fromkeys(codes, 0)


@pytest.mark.one_pair_per("method")
def test_the_holder_of_a_lock_is_named(environment: dict[str, str], pair: Any) -> None:
    """Who waits for a lock between processes is said to wait for the one that has it."""
    with watched(environment, pair.method, pair.transport) as program:
        view = program.settle()
        holder = program.pids["holder"]
        # The lock's file is the one that the holder and the main process share.
        (name,) = (
            queue.name
            for queue in view.queues
            if holder in queue.holders and queue.size == 0 and _locks(holder, queue.identity)
        )
        fd = _open_memory(program.process.pid, name, view)
        waiter = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import fcntl, sys; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX)",
                str(fd),
            ],
            pass_fds=(fd,),
        )
        try:
            from procession._commands.observe import descriptors, sleeps
            from procession._commands.observe.waits import Objects

            queues = {queue.identity: queue for queue in view.queues}
            deadline = time.monotonic() + PATIENCE
            while True:
                held = {pid: descriptors.look(pid) for pid in (waiter.pid, holder)}
                wait = Objects(held, queues, {}, {}).explain(waiter.pid, sleeps.look(waiter.pid)[0])
                if wait.who:
                    break
                assert time.monotonic() < deadline, wait
                time.sleep(0.01)
        finally:
            waiter.kill()
            waiter.wait()
            os.close(fd)

        assert wait.what == f"waits for the lock of {name}"
        assert wait.who == (holder,)


def _locks(pid: int, identity: str) -> bool:
    from procession._commands.observe import descriptors

    return any(
        each.identity == identity and each.field("lock") is not None
        for each in descriptors.look(pid).values()
    )


def _open_memory(pid: int, name: str, view: ProgramView) -> int:
    from procession._commands.observe import descriptors

    (identity,) = (queue.identity for queue in view.queues if queue.name == name)
    for each in descriptors.look(pid).values():
        if each.identity == identity and each.kind == "memory":
            return os.open(f"/proc/{pid}/fd/{each.number}", os.O_RDWR | os.O_CLOEXEC)
    raise AssertionError(name)


@pytest.mark.one_pair_per("method")
def test_stacks_on_a_signal(run: Any, environment: dict[str, str], pair: Any) -> None:
    """A program that was prepared tells every stack; it goes on as if nothing had happened."""
    with watched(
        environment, pair.method, pair.transport, PROCESSION_DUMP_SIGNAL="USR1"
    ) as program:
        program.settle()
        for _ in range(2):
            result = run("dump", program.process.pid, "--json")
            assert result.returncode == 0, result.stderr
            found = {
                each["name"]: each["stacks"] for each in json.loads(result.stdout)["processes"]
            }

            for name in program.pids:
                assert found[name]["source"] == "signal", found[name]
            for name, function in (
                ("getter", "get_one"),
                ("putter", "put_two"),
                ("parent", "join_child"),
                ("grandchild", "get_one"),
                ("MainProcess", "main"),
            ):
                lines = "\n".join(found[name]["lines"])
                assert lines.count(f" in {function}\n") == 1, lines
        codes = program.release()
        assert codes == dict.fromkeys(codes, 0)


@pytest.mark.one_pair_per("method")
def test_stacks_by_spy(run: Any, environment: dict[str, str], pair: Any) -> None:
    """Of a program that nobody has prepared, py-spy reads the stacks; it goes on as before."""
    if not (shutil.which("py-spy") or shutil.which("py-spy", path=sysconfig.get_path("scripts"))):
        pytest.skip("py-spy is NOT INSTALLED: nothing tests `procession dump` with it")
    with watched(environment, pair.method, pair.transport) as program:
        program.settle()
        result = run("dump", program.process.pid, "--json")
        assert result.returncode == 0, result.stderr
        found = {each["name"]: each["stacks"] for each in json.loads(result.stdout)["processes"]}

        for name, function in (
            ("getter", "get_one"),
            ("putter", "put_two"),
            ("MainProcess", "main"),
        ):
            assert found[name]["source"] == "py-spy", found[name]
            assert f" in {function}\n" in "\n".join(found[name]["lines"]) + "\n", found[name]
        codes = program.release()
        assert codes == dict.fromkeys(codes, 0)


@pytest.mark.one_pair_per("method")
def test_a_program_without_stacks(run: Any, environment: dict[str, str], pair: Any) -> None:
    """What the kernel says is shown, and one line says how to get stacks."""
    with watched(environment, pair.method, pair.transport) as program:
        program.settle()
        result = run("dump", program.process.pid, PATH="/nowhere")

        assert result.returncode == 0, result.stderr
        assert f"grandchild ({program.pids['grandchild']})" in result.stdout
        assert "py-spy" in result.stdout or "in get_one" in result.stdout
        codes = program.release()
        assert codes == dict.fromkeys(codes, 0)


@pytest.mark.one_pair_per("transport")
def test_the_picture(run: Any, environment: dict[str, str], pair: Any) -> None:
    """Once on paper: every process is a row, every queue with items shows them."""
    with watched(environment, pair.method, pair.transport) as program:
        program.settle()
        result = run("top", program.process.pid, "--once", COLUMNS="200")
        listed = run("top", "--once", COLUMNS="200")

        assert (result.stderr, result.returncode) == ("", 0)
        for name, pid in program.pids.items():
            rows = [line.split() for line in result.stdout.splitlines()]
            (row,) = (row for row in rows if row[:2] == [name, str(pid)])
            assert row[2] == ("-" if name == "MainProcess" else pair.method)
        assert str(program.process.pid) in listed.stdout
        assert program.process.pid in programs()


@pytest.mark.one_pair_per("transport")
def test_a_live_view_ends_with_the_program(environment: dict[str, str], pair: Any) -> None:
    """Without a terminal, each look is printed as it is; the end of the program is the end."""
    with watched(environment, pair.method, pair.transport) as program:
        program.settle()
        view = subprocess.Popen(
            [sys.executable, "-m", "procession", "top", str(program.process.pid), "--interval=0.1"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert view.stdout is not None
            seen = [view.stdout.readline() for _ in range(40)]
            codes = program.release()
            rest, _ = view.communicate(timeout=PATIENCE)
        finally:
            view.kill()
            view.wait()

        assert "\x1b" not in "".join(seen) + rest
        assert f"process {program.process.pid} has ended" in rest
        assert view.returncode == 0
        assert codes == dict.fromkeys(codes, 0)


@pytest.mark.one_pair_per("transport")
def test_a_live_view_in_a_terminal(program: Watched, environment: dict[str, str]) -> None:
    """Every process is shown on a real terminal; Ctrl-C gives the terminal back and ends it."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 50, 160, 0, 0))
    wanted = {name for name in program.pids if name != "MainProcess"}
    text = ""

    def read() -> bool:
        nonlocal text
        assert select.select([master], [], [], PATIENCE)[0], text
        try:
            text += os.read(master, 65536).decode(errors="replace")
        except OSError:  # that is how a terminal says that everybody has gone
            return False
        return True

    view = subprocess.Popen(
        [sys.executable, "-m", "procession", "top", str(program.process.pid), "--interval=0.1"],
        env={**environment, "TERM": "xterm-256color", "COLUMNS": "160"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    try:
        while not all(name in text for name in wanted):
            assert read(), text
        assert "\x1b[" in text
        os.write(master, b"\x03")
        while read():
            pass
        assert view.wait(PATIENCE) in (0, 130), text
        assert "Traceback" not in text
        assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")
    finally:
        view.kill()
        view.wait()
        os.close(master)
    codes = program.release()
    assert codes == dict.fromkeys(codes, 0)


@pytest.mark.parametrize("command", ["top", "dump"])
def test_no_such_process(run: Any, command: str) -> None:
    """A pid that nobody has is named."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    result = run(command, child.pid)

    assert result.returncode == 2
    assert result.stderr == f"procession: there is no process {child.pid}\n"


@pytest.mark.parametrize("command", ["top", "dump"])
def test_a_process_without_procession(run: Any, command: str) -> None:
    """A program of something else is said to be one, with its command line."""
    with subprocess.Popen(["sleep", "60"]) as other:
        result = run(command, other.pid)
        other.kill()

    assert result.returncode == 2
    assert result.stderr == (
        f"procession: process {other.pid} (sleep 60) has no queue and no child of procession: "
        f"there is nothing to show\n"
    )


@pytest.mark.parametrize(
    "arguments", [("top", "0"), ("top", "x"), ("top", "1", "--interval", "0"), ("dump",)]
)
def test_bad_arguments(run: Any, arguments: tuple[str, ...]) -> None:
    """One line and status 2."""
    result = run(*arguments)

    assert result.returncode == 2
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.one_pair_per("transport")
def test_a_process_of_another_user(environment: dict[str, str], pair: Any) -> None:
    """It is said whose it is, and what to do."""
    with watched(environment, pair.method, pair.transport) as program:
        code = (
            "import os, sys\n"
            "from procession._commands.observe.program import Foreign, Observer\n"
            f"observer = Observer({program.process.pid})\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "try:\n    observer.look()\n"
            "except Foreign as error:\n    print(error)\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )

    assert f"process {program.process.pid} of user root may not be looked at" in result.stdout
    assert "run this command as that user, or as root" in result.stdout


@pytest.mark.one_pair_per("transport")
def test_a_pid_that_was_used_again(environment: dict[str, str], pair: Any) -> None:
    """Whoever has the number now is not taken for the one that was to be looked at."""
    with watched(environment, pair.method, pair.transport) as program:
        observer = Observer(program.process.pid)
        observer.look()
        # As if it had been started at another time: what psutil tells processes apart by.
        known: Any = observer._root
        pid, started = known._ident
        known._ident = (pid, (started or 0) - 1)

        with pytest.raises(Ended, match="has ended"):
            observer.look()
