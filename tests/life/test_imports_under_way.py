"""Forks while another thread imports what the child needs, too."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import procession

pytestmark = pytest.mark.skipif(
    "fork" not in procession.get_all_start_methods()
    or "pipe" not in procession.get_all_transports(),
    reason="fork or pipe is not installed",
)

PROGRAM = """
import importlib.util, os, sys, threading, warnings
import procession

warnings.simplefilter("ignore")  # of threads
MODULE = "procession._mailboxes.packet_mailbox"
is_importing, may_go_on, has_forked = (threading.Event() for _ in range(3))
main = threading.get_ident()

class Slow:
    \"\"\"Finds a module whose import takes until the main thread is about to fork.\"\"\"

    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            is_importing.set()
            assert may_go_on.wait(60)
            execute(module)

        spec.loader.exec_module = exec_module
        return spec

def let_it_go_on():
    while not is_importing_in(sys._current_frames()[main]) and not has_forked.wait(0.001):
        pass
    may_go_on.set()

def is_importing_in(frame):
    while frame is not None:
        if "importlib._bootstrap" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False

def use_queue(context):
    queue = context.Queue()
    queue.put("done")
    assert queue.get(timeout=10) == "done"

context = procession.get_context("fork", transport="pipe")
context.Process(target=int).start()
assert MODULE not in sys.modules
sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=use_queue, args=(context,))
thread.start()
assert is_importing.wait(30)
os.register_at_fork(after_in_parent=has_forked.set)
observer = threading.Thread(target=let_it_go_on)
observer.start()
child = context.Process(target=use_queue, args=(context,), daemon=True)
child.start()
child.join(30)
thread.join(30)
observer.join(30)
sys.exit(0 if child.exitcode == 0 else f"the child has ended with {child.exitcode}")
"""


def test_a_fork_waits_for_our_imports_in_other_threads() -> None:
    """A thread's first queue must not make the child's first queue wait for ever."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
