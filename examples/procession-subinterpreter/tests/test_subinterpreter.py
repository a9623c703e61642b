"""What `subinterpreter` promises beyond what every start method does."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import procession
from procession.errors import PluginUnavailableError, UnsupportedOptionError
from procession.testing import payloads
from procession_subinterpreter._start_method import Subinterpreter

assert sys.platform == "linux"  # where these tests know how to look

#: Why nothing can be tried here; None where it can.
REASON = Subinterpreter.unavailable()
needs_interpreters = pytest.mark.skipif(
    REASON is not None, reason=f"NOTHING OF subinterpreter WAS TESTED: {REASON}"
)

_SECONDS = 30


@pytest.fixture
def ctx() -> Any:
    """A context of it."""
    return procession.get_context("subinterpreter", transport="pipe")


@pytest.fixture
def call(ctx: Any) -> Callable[..., Any]:
    """Call a function in a subinterpreter and return its result."""

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        ours, theirs = ctx.Pipe()
        with ours, theirs:
            process = ctx.Process(target=payloads.call, args=(theirs, function, *arguments))
            process.start()
            answer = ours.recv()
            process.join(_SECONDS)
            process.close()
        return answer

    return call


@pytest.mark.skipif(REASON is None, reason="it can be used here")
def test_it_says_why_it_cannot_work_and_is_refused() -> None:
    """Installed with an older Python it harms nobody, and tells what it needs."""
    assert "Python 3.14 has it" in str(REASON)
    assert "subinterpreter" not in procession.get_all_start_methods()
    with pytest.raises(PluginUnavailableError, match=r"Python 3\.14 has it"):
        procession.get_context("subinterpreter")


@needs_interpreters
def test_it_is_found_by_name() -> None:
    """Being installed is all that a plugin has to do."""
    assert "subinterpreter" in procession.get_all_start_methods()


@needs_interpreters
def test_a_child_is_another_interpreter_of_this_process(call: Callable[..., Any]) -> None:
    """The reason to choose this method."""
    assert os.getpid() == call(os.getpid)
    assert threading.get_ident() != call(threading.get_ident)
    assert os.getppid() == call(os.getppid)


@needs_interpreters
@pytest.mark.parametrize(("code", "expected"), [(None, 0), (0, 0), (7, 7), (-1, 255), ("no", 1)])
def test_exit_codes(ctx: Any, code: object, expected: int) -> None:
    """As of a process."""
    process = ctx.Process(target=sys.exit, args=(code,))
    process.start()
    process.join(_SECONDS)

    assert expected == process.exitcode
    process.close()


@needs_interpreters
def test_an_exception_reaches_the_parent(ctx: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """With its traceback on stderr and in the report, as of a process."""
    process = ctx.Process(target=payloads.raise_error, args=("oh",))
    process.start()
    process.join(_SECONDS)

    assert 1 == process.exitcode
    assert isinstance(process.exception, ArithmeticError)
    assert "ArithmeticError: oh" in capfd.readouterr().err
    process.close()


@needs_interpreters
def test_what_it_is_given_works_inside(ctx: Any, call: Callable[..., Any]) -> None:
    """Locks exclude it, although it is the same process; events and queues are shared."""
    lock, event, queue = ctx.Lock(), ctx.Event(), ctx.Queue()
    with lock:
        assert not call(lock.acquire, False)
    call(event.set)
    call(queue.put, "from inside")

    assert event.is_set()
    assert "from inside" == queue.get(timeout=_SECONDS)
    queue.close()


@needs_interpreters
def test_a_connection_is_sent_to_a_running_one(ctx: Any) -> None:
    """Also one that is sent, and not given at the start."""
    ours, theirs = ctx.Pipe()
    receiver, sender = ctx.Pipe(duplex=False)
    process = ctx.Process(target=payloads.hold, args=(theirs,))
    process.start()
    assert "ready" == ours.recv()
    ours.send(sender)
    sender.close()
    process.join(_SECONDS)

    assert 0 == process.exitcode
    with pytest.raises(EOFError):
        receiver.recv()
    for each in (ours, theirs, receiver, process):
        each.close()


@needs_interpreters
def test_the_sentinel_is_readable_at_the_end(ctx: Any) -> None:
    """And not before."""
    ours, theirs = ctx.Pipe()
    process = ctx.Process(target=payloads.hold, args=(theirs,))
    process.start()
    assert "ready" == ours.recv()

    assert [] == procession.connection.wait([process.sentinel], 0)
    ours.send("go on")
    assert [process.sentinel] == procession.connection.wait([process.sentinel], _SECONDS)
    assert 0 == process.exitcode
    for each in (ours, theirs, process):
        each.close()


@needs_interpreters
def test_several_at_once(ctx: Any) -> None:
    """Each has a lock of its own; they end with their own codes."""
    processes = [ctx.Process(target=sys.exit, args=(code,)) for code in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_SECONDS)

    assert list(range(6)) == [process.exitcode for process in processes]
    for process in processes:
        process.close()


@needs_interpreters
def test_what_it_cannot_do_is_refused_by_name(ctx: Any) -> None:
    """Before anything is started."""
    options: list[Any] = [{"daemon": True}, {"env": {"A": "b"}}, {"cwd": "/"}]
    for option in options:
        process = ctx.Process(target=payloads.nothing, **option)
        with pytest.raises(UnsupportedOptionError, match=next(iter(option))):
            process.start()
        assert process.pid is None
    with pytest.raises(UnsupportedOptionError, match="daemon"), ctx.Pool(1) as pool:
        pool.apply(abs, (1,))


@needs_interpreters
def test_signals_are_refused_as_long_as_it_runs(ctx: Any) -> None:
    """They would reach this process; its number is that of no process for the same reason."""
    ours, theirs = ctx.Pipe()
    process = ctx.Process(target=payloads.hold, args=(theirs,))
    process.start()
    assert "ready" == ours.recv()
    assert process.pid is not None

    for send in (process.kill, process.terminate, process.interrupt):
        with pytest.raises(NotImplementedError, match="'subinterpreter' cannot send SIG"):
            send()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)
    ours.send("go on")
    process.join(_SECONDS)
    process.kill()

    assert 0 == process.exitcode
    for each in (ours, theirs, process):
        each.close()


@needs_interpreters
def test_nothing_stays_open(ctx: Any) -> None:
    """The kernel closes nothing at the end of an interpreter: all of it is closed before."""

    def use_everything() -> int:
        lock, queue = ctx.Lock(), ctx.Queue()
        ours, theirs = ctx.Pipe()
        processes = [
            ctx.Process(target=payloads.call, args=(theirs, function, True))
            for function in (lock.acquire, queue.put)
        ]
        for process in processes:
            process.start()
            ours.recv()
            process.join(_SECONDS)
        for each in (ours, theirs, queue, *processes):
            each.close()
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    use_everything()
    before = use_everything()
    assert before == use_everything()


@needs_interpreters
def test_this_process_is_left_alone(call: Callable[..., Any]) -> None:
    """Its directory, its signals and its standard input are not a child's to change."""
    before = (os.getcwd(), signal.getsignal(signal.SIGINT), os.fstat(0))

    assert "/" == call(os.path.abspath, "/")

    assert before == (os.getcwd(), signal.getsignal(signal.SIGINT), os.fstat(0))
