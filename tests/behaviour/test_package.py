"""The package itself: contexts, the choice of a start method, logging, re-exported classes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from procession.testing import payloads

DEADLINE = 30.0
Make = Callable[..., Any]

FACTORIES = ["Pipe", "Queue", "SimpleQueue", "JoinableQueue", "Process"]
FUNCTIONS = [
    "active_children",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_context",
    "get_logger",
    "get_start_method",
    "log_to_stderr",
    "parent_process",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
]
CLASSES = ["ProcessError", "BufferTooShort", "TimeoutError", "AuthenticationError"]


@pytest.fixture
def unset(library: Any) -> Iterator[Any]:
    """The package with no start method chosen, and as it was afterwards."""
    before = library.get_start_method(allow_none=True)
    library.set_start_method(None, force=True)
    yield library
    library.set_start_method(before, force=True)


def test_context_has_the_whole_api(library: Any, ctx: Any) -> None:
    """Whatever the package offers, a context offers."""
    for name in [*FACTORIES, *FUNCTIONS, *CLASSES]:
        assert hasattr(library, name), name
        assert hasattr(ctx, name), name
    assert callable(library.get_all_start_methods)


def test_exception_classes(library: Any) -> None:
    """The classes are related as programs expect."""
    for name in ("BufferTooShort", "TimeoutError", "AuthenticationError"):
        assert issubclass(getattr(library, name), library.ProcessError)
    assert issubclass(library.ProcessError, Exception)


@pytest.mark.one_pair_per("method")
def test_get_context_by_name(library: Any, pair: Any) -> None:
    """A context knows its method, is the same each time, and starts that kind of process."""
    ctx = library.get_context(pair.method)

    assert pair.method == ctx.get_start_method()
    assert pair.method == ctx.get_start_method(allow_none=True)
    assert ctx is library.get_context(pair.method)
    assert ctx is ctx.get_context()
    assert pair.method in library.get_all_start_methods()


def test_unknown_method(unset: Any) -> None:
    """An unknown name is a ValueError that repeats it."""
    for use in (unset.get_context, unset.set_start_method):
        with pytest.raises(ValueError, match="no-such-method"):
            use("no-such-method")


@pytest.mark.one_pair_per("method")
def test_context_of_a_method_keeps_it(library: Any, pair: Any) -> None:
    """The method of a concrete context cannot be set, not even to what it is."""
    ctx = library.get_context(pair.method)
    for name in ("another", pair.method):
        with pytest.raises(ValueError, match="cannot set start method of concrete context"):
            ctx.set_start_method(name)


@pytest.mark.one_pair_per("method")
def test_set_start_method(unset: Any, pair: Any) -> None:
    """The method is set once, and again only by force."""
    assert unset.get_start_method(allow_none=True) is None
    unset.set_start_method(pair.method)

    assert pair.method == unset.get_start_method()
    with pytest.raises(RuntimeError, match="context has already been set"):
        unset.set_start_method(pair.method)
    unset.set_start_method(pair.method, force=True)
    unset.set_start_method(None, force=True)
    assert unset.get_start_method(allow_none=True) is None


@pytest.mark.one_pair_per("method")
def test_package_functions_follow_the_choice(unset: Any, pair: Any) -> None:
    """Process of the package is started by the method that was set."""
    unset.set_start_method(pair.method)
    receiver, sender = unset.Pipe(duplex=False)
    with receiver, sender:
        process = unset.Process(
            target=payloads.call, args=(sender, payloads.chosen_method, pair.subject)
        )
        process.start()
        process.join(DEADLINE)
        process.close()

        assert pair.method == receiver.recv()


@pytest.mark.one_pair_per("method")
def test_children_go_on_with_the_method_they_were_started_by(ask: Any, pair: Any) -> None:
    """Whatever their parent has selected, a context's children start theirs as the context does."""
    assert pair.method == ask(payloads.chosen_method, pair.subject)


@pytest.mark.beyond("multiprocessing's getters fix the start method")
@pytest.mark.one_pair_per("transport")
def test_reading_never_decides(unset: Any, pair: Any) -> None:
    """No getter, queue, pipe or process fixes the choice."""
    unset.get_start_method()
    unset.get_context().get_start_method()
    items = unset.Queue()
    items.close()
    items.join_thread()
    process = unset.Process(target=payloads.nothing)
    process.start()
    process.join(DEADLINE)
    process.close()

    assert unset.get_start_method(allow_none=True) is None


def test_logger(library: Any) -> None:
    """The logger is one, keeps its records to itself and has no handler of its own."""
    logger = library.get_logger()

    assert logger is library.get_logger()
    assert isinstance(logger, logging.Logger)
    assert not logger.propagate
    assert [] == logger.handlers
    assert logging.NOTSET == logger.level


@pytest.mark.one_pair_per("method")
@pytest.mark.parametrize("name", ["", None])
def test_log_level(library: Any, ask: Any, pair: Any, name: str | None) -> None:
    """The level that counts in the parent, of its logger or of the root, counts in children."""
    logger = library.get_logger()  # from now on there is something to tell a child
    if name is not None:
        logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(37)
    try:
        assert 37 == ask(payloads.log_level, pair.subject)
    finally:
        logger.setLevel(level)


@pytest.mark.one_pair_per("method")
def test_log_to_stderr(run_program: Make, pair: Any) -> None:
    """log_to_stderr writes [LEVEL/ProcessName] message, in children as well."""
    done = run_program(
        """
import logging, sys
import {mp} as mp

def work():
    mp.get_logger().warning("from the child")
    mp.get_logger().info("not asked for")

if __name__ == "__main__":
    logger = mp.log_to_stderr(logging.WARNING)
    logger.warning("from the parent")
    p = mp.get_context(sys.argv[1]).Process(target=work, name="bob")
    p.start()
    p.join()
    print(p.exitcode, logger is mp.get_logger(), logger.level == logging.WARNING)
""",
        pair.method,
    )

    assert "0 True True\n" == done.stdout
    assert "[WARNING/MainProcess] from the parent\n[WARNING/bob] from the child\n" == done.stderr
