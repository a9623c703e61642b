"""How processes end: exit codes, signals, sentinels, exceptions, exit handlers, daemons."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from procession.testing import payloads

DEADLINE = 30.0
Make = Callable[..., Any]
pytestmark = pytest.mark.one_pair_per("method")


@pytest.mark.parametrize(
    ("code", "expected"),
    [(0, 0), (3, 3), (None, 0), (300, 44), (-1, 255), (True, 1), (False, 0)],
)
def test_exit_code_of_sys_exit(finish: Make, code: object, expected: int) -> None:
    """sys.exit means what it means in a program: numbers by eight bits."""
    assert expected == finish(payloads.exit_with, code).exitcode


def test_sys_exit_with_a_message(run_program: Make, pair: Any) -> None:
    """sys.exit with a text prints the text and nothing else, and gives 1."""
    done = run_program(_ENDING, pair.method, "exit_with", "'a message'")

    assert ("1\n", "a message\n") == (done.stdout, done.stderr)


_ENDING = """
import sys
import {mp} as mp
from procession.testing import payloads

if __name__ == "__main__":
    _, method, name, argument = sys.argv
    p = mp.get_context(method).Process(
        target=getattr(payloads, name), args=(eval(argument),), name="bob"
    )
    p.start()
    p.join()
    print(p.exitcode)
"""


def test_exception_is_printed_and_gives_one(run_program: Make, pair: Any) -> None:
    """An uncaught exception is printed with process name and traceback; exit code 1."""
    done = run_program(_ENDING, pair.method, "raise_error", "'thirteen'")

    assert "1\n" == done.stdout
    assert done.stderr.startswith("Process bob:\nTraceback (most recent call last):\n")
    assert "in raise_error\n" in done.stderr
    assert done.stderr.endswith("ArithmeticError: thirteen\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGUSR1", "SIGUSR2"])
def test_exit_code_of_a_signal(finish: Make, name: str) -> None:
    """Who is killed by a signal has its negative number, and its name in the repr."""
    number = getattr(signal, name)
    process = finish(payloads.die_by, number)

    assert -number == process.exitcode
    assert f"stopped exitcode=-{name}" in repr(process)


@pytest.mark.parametrize(("order", "number"), [("terminate", 15), ("kill", 9)])
def test_terminate_and_kill(start: Make, pipe: Make, order: str, number: int) -> None:
    """terminate is SIGTERM and kill is SIGKILL, for a child at work."""
    here, there = pipe()
    process = start(payloads.hold, there)
    assert "ready" == here.recv()

    getattr(process, order)()
    process.join(DEADLINE)

    assert -number == process.exitcode


def test_terminate_can_be_handled(start: Make, pipe: Make) -> None:
    """A child may handle SIGTERM and end in its own way."""
    here, there = pipe()
    process = start(payloads.hold_and_handle, there, signal.SIGTERM)
    assert "ready" == here.recv()
    process.terminate()

    assert [signal.SIGTERM] == here.recv()
    process.join(DEADLINE)
    assert 0 == process.exitcode


def test_interrupt_is_sigint(start: Make, pipe: Make) -> None:
    """interrupt is SIGINT: KeyboardInterrupt in the child, exit code 1 when nobody catches it."""
    here, there = pipe()
    process = start(payloads.hold, there)
    assert "ready" == here.recv()

    if hasattr(process, "interrupt"):
        process.interrupt()
    else:
        os.kill(process.pid, signal.SIGINT)  # before Python 3.14, the same by hand
    process.join(DEADLINE)

    assert 1 == process.exitcode


def test_terminated_child_is_silent(run_program: Make, pair: Any) -> None:
    """Terminating a child at any moment of its start prints nothing."""
    done = run_program(_TERMINATING, pair.method)

    assert ("{-15}\n", "") == (done.stdout, done.stderr)


_TERMINATING = """
import sys
import {mp} as mp
from procession.testing import payloads

if __name__ == "__main__":
    codes = set()
    for _ in range(20):
        p = mp.get_context(sys.argv[1]).Process(target=payloads.hold_for_ever)
        p.start()
        p.terminate()
        p.join()
        codes.add(p.exitcode)
    print(codes)
"""


def test_exit_handlers_and_buffers(run_program: Make, pair: Any) -> None:
    """What a child printed reaches the output before it ends, once, in its own words."""
    done = run_program(_PRINTING, pair.method)

    assert 0 == done.returncode, done.stderr
    assert ["before", "child", "after"] == done.stdout.split()


_PRINTING = """
import sys
import {mp} as mp

def work():
    sys.stdout.write("child\\n")

if __name__ == "__main__":
    print("before", flush=True)
    p = mp.get_context(sys.argv[1]).Process(target=work)
    p.start()
    p.join()
    print("after")
"""


def test_non_daemonic_children_are_joined_at_exit(run_program: Make, pair: Any) -> None:
    """A program that ends waits for the children it forgot to join."""
    done = run_program(_FORGETFUL, pair.method)

    assert 0 == done.returncode, done.stderr
    assert ["end of main", "end of child"] == done.stdout.splitlines()


_FORGETFUL = """
import sys
import {mp} as mp

def work(conn):
    conn.recv()
    print("end of child", flush=True)

if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    here, there = ctx.Pipe()
    ctx.Process(target=work, args=(there,)).start()
    print("end of main", flush=True)
    here.send("go on")
"""


def test_daemons_are_terminated_at_exit(run_program: Make, pair: Any) -> None:
    """A program that ends takes its daemonic children along, and prints nothing about it."""
    done = run_program(_WITH_DAEMON, pair.method)

    assert (0, "") == (done.returncode, done.stderr)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


_WITH_DAEMON = """
import signal, sys
import {mp} as mp

def work(conn):
    conn.send("ready")
    while True:
        signal.pause()

if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    here, there = ctx.Pipe()
    p = ctx.Process(target=work, args=(there,), daemon=True)
    p.start()
    here.recv()
    print(p.pid)
"""


def test_daemon_flag(pair: Any, make: Make, ask: Make) -> None:
    """daemon defaults to the creator's, can be set before the start and arrives in the child."""
    process = make(payloads.nothing)
    assert process.daemon is False
    process.daemon = True
    assert process.daemon is True
    assert "daemon" in repr(process)

    assert ask(payloads.identity, pair.spec, daemon=True)["daemon"] is True


@pytest.mark.beyond("daemonic processes may have children, since nobody is orphaned")
def test_daemons_may_have_children(pair: Any, pipe: Make, finish: Make) -> None:
    """A daemonic process may start and join a child."""
    receiver, sender = pipe(False)
    finish(payloads.start_child, sender, pair.spec, daemon=True)

    assert 0 == receiver.recv()
