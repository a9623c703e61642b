"""The exceptions: what they also are, and that they travel."""

from __future__ import annotations

import builtins
import errno
import pickle
import queue
import subprocess
import sys

import pytest

from procession import errors

CLASSES = sorted(
    {
        each
        for each in (getattr(errors, name) for name in errors.__all__)
        if issubclass(each, errors.ProcessError)
    },
    key=lambda each: each.__name__,
)


def test_all_are_process_errors() -> None:
    """One `except ProcessError` catches all; the rest is the queue module's and warnings."""
    others = {getattr(errors, name) for name in errors.__all__} - set(CLASSES)

    assert {queue.Empty, queue.Full, errors.ForkWithThreadsWarning, errors.LeaseWarning} == others


@pytest.mark.parametrize(
    ("ours", "builtin"),
    [
        (errors.UnknownPluginError, ValueError),
        (errors.NoPluginError, errors.UnknownPluginError),
        (errors.DuplicatePluginError, ValueError),
        (errors.PluginLoadError, ImportError),
        (errors.PluginContractError, TypeError),
        (errors.PluginUnavailableError, ValueError),
        (errors.IncompatiblePluginsError, ValueError),
        (errors.ConfigurationError, ValueError),
        (errors.SelectionError, RuntimeError),
        (errors.ProcessStartedError, AssertionError),
        (errors.ProcessNotStartedError, AssertionError),
        (errors.ProcessNotStartedError, ValueError),
        (errors.UnstartedSignalError, AttributeError),
        (errors.ProcessRunningError, ValueError),
        (errors.ProcessClosedError, ValueError),
        (errors.ForeignProcessError, AssertionError),
        (errors.DaemonicProcessError, AssertionError),
        (errors.UnguardedMainError, RuntimeError),
        (errors.ConnectionClosedError, OSError),
        (errors.QueueClosedError, ValueError),
        (errors.EndOfConnectionError, EOFError),
        (errors.BrokenConnectionError, BrokenPipeError),
        (errors.BusyConnectionError, RuntimeError),
        (errors.ConnectionDirectionError, OSError),
        (errors.MessageTooLongError, OSError),
        (errors.PeerDiedError, EOFError),
        (errors.ChildLostError, ChildProcessError),
        (errors.ForkWithThreadsWarning, RuntimeWarning),
        (errors.LeaseWarning, RuntimeWarning),
    ],
)
def test_is_also_what_multiprocessing_raises(ours: type, builtin: type) -> None:
    """Programs written for multiprocessing catch the built-in, and still do."""
    assert issubclass(ours, builtin)


def test_timeout_error_is_not_the_builtin() -> None:
    """As in multiprocessing, where it is a `ProcessError` only."""
    assert not issubclass(errors.TimeoutError, builtins.TimeoutError)


def test_unstarted_sentinel_is_no_attribute_error() -> None:
    """`hasattr(process, "sentinel")` raises, as in multiprocessing, instead of saying no."""
    assert not issubclass(errors.ProcessNotStartedError, AttributeError)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="queue.ShutDown is new in 3.13")
def test_shut_down_is_the_thread_queues() -> None:
    """Code written for thread queues catches ours."""
    shut_down = getattr(queue, "ShutDown")  # noqa: B009

    assert issubclass(errors.ShutDown, shut_down)


@pytest.mark.parametrize("cls", CLASSES)
def test_pickles(cls: type[errors.ProcessError]) -> None:
    """Failures travel between processes."""
    error = pickle.loads(pickle.dumps(cls("what happened")))

    assert cls is type(error)
    assert ("what happened",) == error.args
    assert "what happened" in str(error)


def test_attributes_are_pickled() -> None:
    """What an error knows beside its message arrives, too."""
    died = pickle.loads(
        pickle.dumps(errors.PeerDiedError("gone", process="Process-1", pid=7, exitcode=-9))
    )
    state = pickle.loads(
        pickle.dumps(errors.ProcessClosedError("closed", state="closed", allowed=["started"]))
    )
    load = pickle.loads(pickle.dumps(errors.PluginLoadError("no", kind="transport", plugin="x")))

    assert ("Process-1", 7, -9) == (died.process, died.pid, died.exitcode)
    assert ("closed", ("started",)) == (state.state, state.allowed)
    assert ("transport", "x") == (load.kind, load.plugin)


def test_broken_connection_has_its_errno() -> None:
    """Code that looks at `errno` finds it."""
    error = errors.BrokenConnectionError(errno.EPIPE, "the reader of Connection 5 is gone")

    assert errno.EPIPE == error.errno


def test_imports_nothing_that_children_do_not_have() -> None:
    """Every child imports this module; `queue` and `typing` wait until they are needed."""
    code = (
        "import sys; before = set(sys.modules); import procession.errors; "
        "print(sorted(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )

    for module in ("queue", "typing", "re", "threading", "enum"):
        assert repr(module) not in result.stdout


def test_unknown_name() -> None:
    """The lazy names do not hide a typing error."""
    with pytest.raises(AttributeError, match="no attribute 'Shutdown'"):
        errors.__getattr__("Shutdown")
