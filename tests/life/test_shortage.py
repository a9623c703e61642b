"""Resources run out: one clear error that names what and how much, and the program goes on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import procession
from procession.testing import shortage

assert sys.platform == "linux"  # limits are set and looked up as Linux does

_SECONDS = 60
_MOST_DESCRIPTORS = 40


@pytest.fixture
def watch(ctx: Any) -> Iterator[Callable[..., Any]]:
    """Start a child that tries something; return a function that receives what it reports."""
    with ExitStack() as stack:

        def watch(target: Any, *args: Any) -> Callable[[], Any]:
            receiver, sender = ctx.Pipe(duplex=False)
            process = ctx.Process(target=target, args=(sender, *args), daemon=False)
            process.start()
            sender.close()

            def end() -> None:
                receiver.close()
                process.kill()
                process.join()
                process.close()

            stack.callback(end)

            def receive() -> Any:
                assert receiver.poll(_SECONDS)
                return receiver.recv()

            return receive

        yield watch


def test_descriptors_run_out(pair: Any, watch: Callable[..., Any]) -> None:
    """With every number of free descriptors: it works or says so, and nothing stays open."""
    report = watch(shortage.try_with_few_descriptors, pair.spec, _MOST_DESCRIPTORS)

    for _ in range(5):
        name, failures, message, more = report()
        assert 0 < failures <= _MOST_DESCRIPTORS, name
        assert "too many open files (RLIMIT_NOFILE is" in message
        assert more <= 0, name


@pytest.mark.one_pair_per("method")
def test_processes_run_out(pair: Any, watch: Callable[..., Any]) -> None:
    """EAGAIN from fork names the limit and the user; with room the start works again."""
    if os.getuid() != 0:
        pytest.skip("only root can become a user without processes to spare")
    report = watch(shortage.try_as_crowded_user, pair.spec, 61234)

    kind, message = report()
    assert "TooManyProcessesError" == kind
    assert "RLIMIT_NPROC is 0 for user 61234" in message
    assert "again" == report()


_CROWD_PROGRAM = """
import os, sys, time
import procession
from procession.errors import TooManyProcessesError
from procession.testing import payloads, shortage

if __name__ == "__main__":
    with open(sys.argv[1] + "/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))
    ctx = procession.get_context(sys.argv[2])
    children = []
    try:
        while True:
            child = ctx.Process(target=payloads.hold_for_ever, daemon=True)
            child.start()
            children.append(child)
    except TooManyProcessesError as error:
        print(len(children), error)
    for _ in range(10):
        try:
            shortage.start_and_join(ctx)
        except TooManyProcessesError:
            continue
    for child in children:
        child.kill()
        child.join()
        assert child.exitcode == -9, child.exitcode
    end = time.monotonic() + 30
    while True:
        try:
            shortage.start_and_join(ctx)
        except TooManyProcessesError:  # the kernel counts the dead for a moment longer
            assert time.monotonic() < end
        else:
            break
    print("again")
"""


@pytest.mark.one_pair_per("method")
def test_a_group_has_no_more_processes(
    pair: Any, tmp_path: Any, make_group: Callable[[str, int], Any]
) -> None:
    """The limit of a control group, as containers have it, is named; with room it goes on."""
    group = make_group("pids", 12)
    program = tmp_path / "program.py"
    program.write_text(_CROWD_PROGRAM)

    result = subprocess.run(
        (sys.executable, str(program), group, pair.method),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )

    assert re.match(r"1[01] \[Errno 11\] cannot start", result.stdout), result
    assert "pids.max of its control group is 12" in result.stdout
    assert result.stdout.endswith("again\n"), result


def test_the_doctor_in_a_group_without_room(make_group: Callable[[str, int], Any]) -> None:
    """It needs no other process to find out that there can be none, and says which limit it is."""
    group = make_group("pids", 1)

    result = subprocess.run(
        (
            "sh",
            "-c",
            'echo $$ > "$1/cgroup.procs"; shift; exec "$@"',
            "sh",
            str(group),
            sys.executable,
            "-m",
            "procession",
            "doctor",
            "--json",
        ),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )

    assert 1 == result.returncode, result
    found = {each["subject"]: each for each in json.loads(result.stdout)["findings"]}
    assert (
        f"room for 0 more, threads included: pids.max 1 of {group}" in found["processes"]["found"]
    )
    for method in procession.get_all_start_methods():
        text = next(each["found"] for name, each in found.items() if f"child by {method}" in name)
        assert "pids.max of its control group is 1" in text


@pytest.mark.one_pair_per("transport")
def test_memory_runs_out(pair: Any, watch: Callable[..., Any]) -> None:
    """A get without memory for the message raises and leaves it there to be got."""
    report = watch(shortage.try_with_little_memory, pair.spec)

    kind, message = report()
    assert kind in ("MemoryError", "ResourceError"), message
    assert "again" == report()


@pytest.mark.one_pair_per("method")
def test_memory_for_a_start_runs_out(pair: Any, watch: Callable[..., Any]) -> None:
    """ENOMEM in a start: it needs no more memory, or says that there is none and which limit."""
    report = watch(shortage.try_to_start_with_little_memory, pair.spec)

    for kind, message in report():
        assert kind in ("nothing", "MemoryError", "ResourceError"), message
        assert kind != "ResourceError" or "out of memory (RLIMIT_AS is" in message
    assert "again" == report()


@pytest.mark.one_pair_per("transport")
def test_files_must_not_grow(pair: Any, watch: Callable[..., Any]) -> None:
    """With a limit on the size of files, messages up to half of it can still be put."""
    report = watch(shortage.try_with_small_files, pair.spec)

    kind, message = report()
    assert "ResourceError" == kind
    assert f"RLIMIT_FSIZE is {16 << 20} bytes" in message
    assert "again" == report()


_PROGRAM = """
import os
import tempfile
import procession
from procession.testing import shortage

if __name__ == "__main__":
    directory = tempfile.gettempdir()  # chosen while it was of use
    if "FILL" in os.environ:
        shortage.fill_directory(directory)
    for method in procession.get_all_start_methods():
        for transport in procession.get_all_transports():
            ctx = procession.get_context(method, transport)
            shortage.start_and_join(ctx)
            shortage.make_pipe(ctx)
            queue = ctx.Queue()
            queue.put(bytes(8 << 20))
            assert 8 << 20 == len(queue.get())
            queue.close()
            here, there = ctx.Pipe()
            here.send(there)
            there.recv().close()
            for end in (here, there):
                end.close()
    print("done")
"""


def _mounted(directory: Any, options: str) -> tuple[str, ...]:
    """Return what runs a command with a tmpfs of its own on *directory*."""
    script = f'mount -t tmpfs -o {options} none {directory} && exec "$@"'
    command = ("unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    tried = subprocess.run((*command, "true"), capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"NOT TESTED: this needs to mount a tmpfs: {tried.stderr.strip()}")
    return command


@pytest.mark.parametrize("case", ["long-tmpdir", "tiny-shm", "full-tmpdir"])
def test_neither_shared_memory_nor_a_good_tmpdir_is_needed(tmp_path: Any, case: str) -> None:
    """A full /dev/shm of a container, or a TMPDIR too long for a socket or full, harms nothing."""
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    directory = tmp_path / ("x" * 120)
    directory.mkdir()
    prefix: tuple[str, ...] = ()
    if case == "tiny-shm":
        prefix = _mounted("/dev/shm", "size=4k")
    elif case == "full-tmpdir":
        prefix = _mounted(directory, "size=4k,nr_inodes=3")

    result = subprocess.run(
        (*prefix, sys.executable, str(program)),
        env={
            **os.environ,
            "TMPDIR": str(directory),
            **({"FILL": "1"} if case == "full-tmpdir" else {}),
        },
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )

    assert "done\n" == result.stdout, result.stderr
    assert 0 == result.returncode
    assert [] == list(directory.iterdir())


_FULL_PROGRAM = """
import os, sys
from pathlib import Path
import procession
from procession.connection import Listener
from procession.errors import ResourceError
from procession.testing import payloads, shortage

if __name__ == "__main__":
    ctx, directory = procession.get_context(sys.argv[1]), sys.argv[2]
    errors = Path(directory, "errors")
    process = ctx.Process(target=payloads.raise_error, args=("x",), stderr=errors)
    filler = shortage.fill_directory(directory)
    for act in (process.start, lambda: Listener(os.path.join(directory, "socket"))):
        try:
            act()
        except ResourceError as error:
            print(error)
    os.unlink(filler)
    process.start()
    process.join()
    print(process.failure.error.message, errors.read_text().count("Traceback"))
    errors.unlink()
    Listener(os.path.join(directory, "socket")).close()
"""


@pytest.mark.one_pair_per("method")
def test_no_space_is_left(pair: Any, tmp_path: Any) -> None:
    """ENOSPC, really: the error names the file and how much room there is; then it goes on."""
    program = tmp_path / "program.py"
    program.write_text(_FULL_PROGRAM)
    directory = tmp_path / "full"
    directory.mkdir()

    result = subprocess.run(
        (
            *_mounted(directory, "size=16k,nr_inodes=3"),
            *(sys.executable, str(program), pair.method, str(directory)),
        ),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )

    start, listen, more = result.stdout.splitlines() or ["", "", ""]
    room = f"no space left in {directory} for '{directory}/%s' (its size is 16384 bytes"
    assert room % "errors" in start, result
    assert "cannot start" in start
    assert room % "socket" in listen
    assert ("x 1", "") == (more, result.stderr)
