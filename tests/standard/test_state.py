"""The standard package's view of who runs: this process, its parent, its children.

Libraries ask the standard package, and must hear about procession's processes.
"""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

import pytest

from procession.testing import payloads, standard

pytestmark = [
    pytest.mark.beyond("the standard package is itself"),
    pytest.mark.one_pair_per("method"),
]

DEADLINE = 30.0


def test_a_child_is_the_current_process(ctx: Any, ask: Callable[..., Any]) -> None:
    """Name, daemon flag, key and parent are the child's: joblib, logging and others rely on it."""
    answer = ask(ctx, standard.who_am_i, name="bob", daemon=True)

    assert ("bob", "bob") == answer["name"]
    assert (True, True) == answer["daemon"]
    assert answer["pid"][0] == answer["pid"][1] != os.getpid()
    assert (True, True) == answer["alive"]
    assert (multiprocessing.current_process().name, os.getpid()) == answer["parent"]
    assert bytes(multiprocessing.current_process().authkey) == answer["authkey"]
    assert answer["is a standard process"]
    assert answer["children"] == 0


def test_a_name_can_be_changed_on_either_side(ctx: Any, ask: Callable[..., Any]) -> None:
    """There is one process, and so one name."""
    assert [("a", "a"), ("b", "b")] == ask(ctx, standard.rename, "a", "b")


def test_children_are_listed_while_they_run(
    ctx: Any, start: Callable[..., Any], pipe: Callable[..., Any]
) -> None:
    """`active_children` lists our processes, and drops them once they have ended."""
    here, there = pipe(ctx)
    process = start(ctx, payloads.hold, there)
    assert here.recv() == "ready"

    assert [process] == multiprocessing.active_children()
    here.send("go")
    process.join(DEADLINE)
    assert [] == multiprocessing.active_children()


def test_a_child_that_nobody_joins_is_dropped(ctx: Any, start: Callable[..., Any]) -> None:
    """The standard package looks by itself whether a child has ended."""
    process = start(ctx, payloads.nothing)
    wait([process.sentinel], DEADLINE)

    assert [] == multiprocessing.active_children()


def test_grandchildren_are_their_parent_s(
    ctx: Any, pair: Any, start: Callable[..., Any], pipe: Callable[..., Any]
) -> None:
    """A child's children are listed in the child, and know it as their parent."""
    here, there = pipe(ctx)
    process = start(ctx, standard.family, pair.spec, there, name="middle")
    answer, before, after = here.recv()
    process.join(DEADLINE)

    assert ("grandchild", "grandchild") == answer["name"]
    assert ("middle", process.pid) == answer["parent"]
    assert ["grandchild"] == before
    assert [] == after


def test_a_bare_fork_has_no_children(
    ctx: Any, start: Callable[..., Any], pipe: Callable[..., Any]
) -> None:
    """Servers such as gunicorn fork by themselves; their copies must not end our children."""
    here, there = pipe(ctx)
    process = start(ctx, payloads.hold, there, daemon=True)
    assert here.recv() == "ready"
    if sys.platform == "win32":
        return
    pid = os.fork()
    if pid == 0:
        os._exit(len(multiprocessing.active_children()))
    assert os.waitpid(pid, 0)[1] == 0
    assert [process] == multiprocessing.active_children()


def test_records_are_logged_with_the_child_s_name(
    ctx: Any, start: Callable[..., Any], cleanup: Any
) -> None:
    """`%(processName)s` is what the standard package says."""
    queue = ctx.Queue()
    cleanup.callback(queue.close)
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    vars(handler)["emit"] = records.append
    listener = logging.handlers.QueueListener(queue, handler)
    process = start(ctx, standard.log, queue, name="bob")
    listener.start()
    process.join(DEADLINE)
    listener.stop()

    (record,) = records
    assert ("bob", "written in a child") == (record.processName, record.getMessage())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="dictConfig takes no such queue")
def test_logging_can_be_configured_with_our_queue(ctx: Any, cleanup: Any) -> None:
    """A plain queue is accepted, although it has no task_done."""
    queue = ctx.Queue()
    cleanup.callback(queue.close)
    handler = {"class": "logging.handlers.QueueHandler", "queue": queue}
    root = logging.getLogger("configured")
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"q": handler},
            "loggers": {"configured": {"handlers": ["q"]}},
        }
    )
    cleanup.callback(root.handlers.clear)
    root.error("text")
    assert queue.get(timeout=DEADLINE).getMessage() == "text"
