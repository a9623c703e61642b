"""Makers of processes that clean up after a test, also after a failed one."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from procession.testing.forked import until

DEADLINE = 30.0
_SIGKILL = 9


@pytest.fixture
def no_faulthandler() -> Iterator[None]:
    """Undo that pytest has enabled faulthandler: that a user has done so would be respected."""
    was_enabled = faulthandler.is_enabled()
    faulthandler.disable()
    yield
    if was_enabled and sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)


def _end(process: Any) -> None:
    try:
        process.kill()
    except (AttributeError, ValueError):  # never started, or closed by the test
        return
    process.join(DEADLINE)
    process.close()


# By controller, the file of the limit in version 1 and in version 2.
_LIMITS = {
    "memory": ("memory.limit_in_bytes", "memory.max"),
    "pids": ("pids.max", "pids.max"),
}


@pytest.fixture
def make_group() -> Iterator[Callable[[str, int], Path]]:
    """Make a control group with a limit, where that may be done, to be removed with all in it."""
    with ExitStack() as stack:

        def make(controller: str, limit: int) -> Path:
            mount = Path("/sys/fs/cgroup")
            old = (mount / controller).is_dir()
            group = (mount / controller if old else mount) / f"procession-tests-{os.getpid()}"
            try:
                group.mkdir()
                stack.callback(_remove_group, group)
                (group / _LIMITS[controller][0 if old else 1]).write_text(str(limit))
            except OSError as error:
                pytest.skip(f"NOT TESTED: no control group can be made: {error}")
            return group

        yield make


def _remove_group(group: Path) -> None:
    """Remove a group with the processes in it, the last of which may not be gone for good yet."""

    def is_gone() -> bool:
        try:
            for pid in (group / "cgroup.procs").read_text().split():
                os.kill(int(pid), _SIGKILL)
            group.rmdir()
        except FileNotFoundError:
            return True
        except OSError:  # busy, or somebody has just ended
            return False
        return True

    until(is_gone)


@pytest.fixture
def start(ctx: Any) -> Iterator[Callable[..., Any]]:
    """Make and start a process; it is killed and closed after the test."""
    with ExitStack() as stack:

        def start(target: Callable[..., object] | None = None, *args: Any, **options: Any) -> Any:
            process = ctx.Process(target=target, args=args, **options)
            stack.callback(_end, process)
            process.start()
            return process

        yield start


@pytest.fixture
def finish(start: Callable[..., Any]) -> Callable[..., Any]:
    """Make, start and join a process; return it once it has ended."""

    def finish(*args: Any, **options: Any) -> Any:
        process = start(*args, **options)
        process.join(DEADLINE)
        assert process.exitcode is not None
        return process

    return finish
