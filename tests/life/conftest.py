"""What the tests of life and death share."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from procession.testing.forked import until

_SIGKILL = 9


@pytest.fixture
def no_faulthandler() -> Iterator[None]:
    """Undo that pytest has enabled faulthandler: that a user has done so would be respected."""
    was_enabled = faulthandler.is_enabled()
    faulthandler.disable()
    yield
    if was_enabled and sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)


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
