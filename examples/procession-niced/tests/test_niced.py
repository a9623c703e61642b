"""What `niced` promises beyond what every start method does."""

from __future__ import annotations

import os
import sys

import pytest

import procession
from procession_niced._start_method import LOWER_BY

if sys.platform == "win32":
    pytest.skip("Windows has no nice values", allow_module_level=True)


def test_it_is_found_by_name() -> None:
    """Being installed is all that a plugin has to do."""
    assert "niced" in procession.get_all_start_methods()


def test_children_run_at_a_lower_priority() -> None:
    """The reason to choose this method."""
    ctx = procession.get_context("niced")
    ours, theirs = ctx.Pipe()
    # The child waits for us, so that its priority is read while it is certainly alive.
    process = ctx.Process(target=theirs.recv)
    process.start()
    try:
        assert process.pid is not None
        expected = os.getpriority(os.PRIO_PROCESS, 0) + LOWER_BY
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == expected
        ours.send("done")
        process.join(30)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join(30)
        ours.close()
        theirs.close()
