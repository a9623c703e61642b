"""Resources run out: one clear error that names what and how much, and the program goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

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

    for _ in range(3):
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


@pytest.mark.one_pair_per("transport")
def test_memory_runs_out(pair: Any, watch: Callable[..., Any]) -> None:
    """A get without memory for the message raises and leaves it there to be got."""
    report = watch(shortage.try_with_little_memory, pair.spec)

    kind, message = report()
    assert kind in ("MemoryError", "ResourceError"), message
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
import procession
from procession.testing import shortage

if __name__ == "__main__":
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


@pytest.mark.parametrize(
    "prefix",
    [
        (),
        ("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=4k none /dev/shm && exec "$@"', "sh"),
    ],
    ids=["long-tmpdir", "tiny-shm"],
)
def test_neither_shared_memory_nor_a_short_tmpdir_is_needed(
    tmp_path: Any, prefix: tuple[str, ...]
) -> None:
    """A full /dev/shm of a container, or a TMPDIR too long for a socket, harms nothing."""
    if prefix and subprocess.run(("unshare", "-m", "true"), check=False).returncode:
        pytest.skip("mounting needs privileges")
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    directory = tmp_path / ("x" * 120)
    directory.mkdir()

    result = subprocess.run(
        (*prefix, sys.executable, str(program)),
        env={**os.environ, "TMPDIR": str(directory)},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )

    assert "done\n" == result.stdout, result.stderr
    assert 0 == result.returncode
    assert [] == list(directory.iterdir())
