"""Outcomes of tasks, from what a worker has said or how it ended. Only the parent's side."""

from __future__ import annotations

import marshal

from procession._messages.pickling import loads
from procession._pools import wire
from procession.errors import (
    BrokenPoolError,
    MaybeEncodingError,
    TaskCancelledError,
    TaskTimeoutError,
    WorkerDiedError,
)

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from procession._contracts.channel import Buffer
    from procession._pools.member import Member
    from procession._pools.task import Task


class RemoteTraceback(Exception):
    """The traceback of a worker, as the cause of the exception that it belongs to."""

    def __init__(self, tb: str) -> None:
        self.tb = tb

    def __str__(self) -> str:
        return self.tb


def rebuild(body: Buffer, buffers: Sequence[Buffer]) -> tuple[bool, Any]:
    """Return whether a task has succeeded and its result or exception, of an answer."""
    if body[-1] != wire.DONE:
        return False, _exception(body)[0]
    try:
        return True, loads(body, buffers)
    except BaseException as error:
        failure = MaybeEncodingError(error, "a result that cannot be unpickled")
        failure.__cause__ = error
        return False, failure


def _exception(body: Buffer) -> tuple[BaseException, str]:
    """Return the exception that *body* tells of, or one that describes it, and its text."""
    name, text, traceback, pickled, why = marshal.loads(body)
    error: Any = None
    if pickled is not None:
        try:
            error = loads(pickled)
        except BaseException as reason:
            why = repr(reason)
    if not isinstance(error, BaseException):
        error = MaybeEncodingError(why or f"{name} is no exception here", text)
    if traceback:
        error.__cause__ = RemoteTraceback(f'\n"""\n{traceback}"""')
    return error, text


def initializer_failed(body: Buffer) -> tuple[BrokenPoolError, BaseException]:
    """Return that a pool has stopped for its initializer, and what that has raised."""
    error, text = _exception(body)
    return BrokenPoolError(f"the pool has stopped: its initializer has failed with {text}"), error


def cancelled(task: Task) -> TaskCancelledError:
    """Return what becomes of a task that is not wanted any more."""
    return TaskCancelledError(f"{task.describe()} was cancelled")


def timed_out(task: Task, member: Member) -> TaskTimeoutError:
    """Return what becomes of a task that *member* has not done in time."""
    return TaskTimeoutError(
        f"{task.describe()} was not done after {task.timeout:g} s, and its worker "
        f"(pid {member.pid}) was killed"
    )


def died_with(task: Task, member: Member) -> WorkerDiedError:
    """Return what becomes of *task* when *member* has died with it."""
    return _died(member, f"in the middle of {task.describe()}", task.describe())


def died_before_work(member: Member) -> WorkerDiedError:
    """Return that *member* has died before it was ready."""
    return _died(member, "before it was ready", None)


def _died(member: Member, when: str, task: str | None) -> WorkerDiedError:
    process = member.process
    failure = member.failure
    if failure is None:
        code = "" if member.exit_code is None else f" with exit code {member.exit_code}"
        summary = f"process {process.name!r} (pid {member.pid}) ended{code}"
        more = ""
    else:
        summary = failure.summary
        more = str(failure)[len(summary) :]
    error = WorkerDiedError(
        f"{summary} {when}{more}",
        process=process.name,
        pid=member.pid,
        exitcode=member.exit_code,
        failure=failure,
        task=task,
    )
    error.__cause__ = None if failure is None else failure.exception
    return error
