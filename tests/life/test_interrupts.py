"""Ctrl-C at moments at which an interpreter loses it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from procession._processes import sigint
from procession.testing import interrupts, payloads

assert sys.platform == "linux"

_SECONDS = 20
_CALLBACKS = sorted(interrupts.CALLBACKS)


@pytest.fixture
def start(ctx: Any) -> Iterator[Callable[..., Any]]:
    """Start a process; it is killed and closed after the test."""
    started = []

    def start(target: Any, *args: Any, **options: Any) -> Any:
        process = ctx.Process(target=target, args=args, **options)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join(_SECONDS)
        process.close()


@pytest.mark.one_pair_per("method")
def test_who_ignores_it_has_children_that_do(start: Any, ctx: Any) -> None:
    """As in a program in the background of a script, whose children are not the terminal's.

    The children of a fork server, too, which was started before.
    """
    start(payloads.nothing).join(_SECONDS)
    receiver, sender = ctx.Pipe(duplex=False)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        start(payloads.call, sender, signal.getsignal, signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.SIG_IGN == receiver.recv()

    start(payloads.call, sender, signal.getsignal, signal.SIGINT)
    assert before == receiver.recv()
    receiver.close()
    sender.close()


@pytest.mark.one_pair_per("method")
@pytest.mark.parametrize("where", _CALLBACKS)
def test_in_a_callback_of_a_child(start: Any, capfd: Any, where: str) -> None:
    """What cannot be raised in a callback is raised after it, and nothing is said to be lost."""
    process = start(interrupts.press_and_hold, where)

    process.join(_SECONDS)

    assert 1 == process.exitcode
    assert "KeyboardInterrupt" == process.failure.error.type_name
    assert "" == capfd.readouterr().err


@pytest.mark.one_pair_per("method")
@pytest.mark.parametrize("where", _CALLBACKS)
def test_caught_after_a_callback(start: Any, ctx: Any, where: str) -> None:
    """It is raised once, at once, where the code that was interrupted can catch it."""
    receiver, sender = ctx.Pipe(duplex=False)
    process = start(interrupts.press_and_catch, where, sender)

    assert "caught" == receiver.recv()

    process.join(_SECONDS)
    assert 0 == process.exitcode
    receiver.close()
    sender.close()


@pytest.mark.one_pair_per("method")
def test_a_handler_of_ones_own(start: Any, ctx: Any) -> None:
    """What a handler of the program raises in a callback is the program's matter, as ever."""
    receiver, sender = ctx.Pipe(duplex=False)
    process = start(interrupts.press_with_handler, "del", sender)

    assert [2] == receiver.recv()

    process.join(_SECONDS)
    assert 0 == process.exitcode
    receiver.close()
    sender.close()


def test_what_else_is_raised_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to the hook that was there."""
    import threading

    class Bad:
        def __del__(self) -> None:
            raise ValueError("in vain")

    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: told.append(str(each.exc_value)))
    monkeypatch.setattr(sigint, "_report", None)
    monkeypatch.setattr(sigint, "_listener", 0)
    for _ in range(2):  # the second time it is there already
        sigint.listen(threading.get_ident())
        bad = Bad()
        del bad
    assert ["in vain"] * 2 == told


@pytest.mark.one_pair_per("method")
def test_just_before_poll(start: Any, ctx: Any) -> None:
    """A wait of procession's looks again by itself."""
    receiver, sender = ctx.Pipe(duplex=False)
    process = start(interrupts.poll_deaf, receiver)

    process.join(_SECONDS)

    assert 1 == process.exitcode
    receiver.close()
    sender.close()


@pytest.mark.one_pair_per("method")
def test_just_before_waiting_for_a_pool(start: Any, pair: Any) -> None:
    """So does a wait for the result of a pool."""
    process = start(interrupts.wait_for_pool_deaf, pair.spec)

    process.join(_SECONDS)

    assert 1 == process.exitcode


@pytest.mark.one_pair_per("transport")
def test_just_before_futex_and_poll_of_c(start: Any, ctx: Any, pair: Any) -> None:
    """So do waits in C."""
    if "ring" not in str(pair):
        pytest.skip("waits in Python")
    receiver, sender = ctx.Pipe(duplex=False)
    lock = ctx.Lock()
    with lock:
        for process in (
            start(interrupts.receive_deaf, receiver),
            start(interrupts.acquire_deaf, lock),
        ):
            process.join(_SECONDS)
            assert 1 == process.exitcode
    receiver.close()
    sender.close()


_PROGRAM = """
import os, signal, sys, traceback
import procession
from procession._processes import sigint
from procession.testing import interrupts
from procession.testing.forked import sleeps, until

if __name__ == "__main__":
    method, form = sys.argv[1:]
    interrupts.look_often()
    ctx = procession.get_context(method)
    receiver, sender = ctx.Pipe(duplex=False)
    child = ctx.Process(target=interrupts.read_deaf, args=(sender,))
    child.start()
    pid = receiver.recv()
    until(lambda: sleeps(pid))
    if form == "joins":
        interrupts.be_deaf_at_next_poll()
        try:
            child.join()
        finally:
            os.write(1, b"heard")
    elif form == "catches":
        try:
            interrupts.press()
        except KeyboardInterrupt:
            child.join()
        os.write(1, b"joined")
    elif form == "passes":
        interrupts.be_deaf_at_next_poll()
        try:
            child.join()
        except KeyboardInterrupt:
            pass
    else:
        interrupts.press_and_hold(form)
"""


def _run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program; nobody is left of it and its children if it hangs."""
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    command = (sys.executable, str(program), *arguments)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, errors = process.communicate(timeout=_SECONDS)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


@pytest.mark.one_pair_per("method")
@pytest.mark.parametrize("form", ["joins", "del"])
def test_a_program_and_its_child_in_any_system_call(tmp_path: Path, method: str, form: str) -> None:
    """A child that has not noticed is woken by its parent, which itself has nearly lost it."""
    ended = _run(tmp_path, method, form)

    assert 1 == ended.stderr.count("Traceback (most recent call last)"), ended.stderr
    assert ended.stderr.endswith("KeyboardInterrupt\n")
    assert "heard" * (form == "joins") == ended.stdout
    assert -2 == ended.returncode


@pytest.mark.once
@pytest.mark.parametrize("form", ["catches", "passes", "weakref", "gc", "import"])
def test_a_program_that_ends_in_another_way(tmp_path: Path, form: str) -> None:
    """The same for one that catches KeyboardInterrupt, or loses it at another place."""
    ended = _run(tmp_path, "spawn", form)

    caught = form in ("catches", "passes")
    assert (not caught) == ended.stderr.count("Traceback (most recent call last)"), ended.stderr
    assert "joined" * (form == "catches") == ended.stdout
    assert (0 if caught else -2) == ended.returncode


class _Child:
    """Stands for a child that ends when it has been waited for some times."""

    def __init__(self, *waits: Any) -> None:
        self._waits = list(waits)
        self.signals: list[int] = []

    def wait(self, timeout: float | None = None) -> int | None:
        code = self._waits.pop(0)
        if isinstance(code, type):
            raise code
        return code  # type: ignore[no-any-return]

    def signal(self, number: int) -> None:
        self.signals.append(number)


def _join(child: Any, heard_before: int) -> int | None:
    return sigint.wait_for(child, sigint.QUIET, heard_before, None)


@pytest.mark.parametrize("form", ["join", "handled"])
def test_only_older_children_are_nudged(form: str) -> None:
    """A child that was started after a Ctrl-C waits for other signals as long as it likes."""
    older = sigint.heard()
    try:
        if form == "join":
            _join(_Child(KeyboardInterrupt), older)
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        meanwhile = sigint.heard()
        _join(old := _Child(None, None, 0), older)
        _join(young := _Child(None, 0), meanwhile)
        assert 2 == len(old.signals)
        assert [] == young.signals
    _join(youngest := _Child(0), sigint.heard())
    _join(young := _Child(0), meanwhile)
    assert [] == youngest.signals == young.signals
    with pytest.raises(KeyboardInterrupt):
        _join(_Child(KeyboardInterrupt), sigint.heard())
    _join(young := _Child(None, 0), meanwhile)
    assert 1 == len(young.signals)
