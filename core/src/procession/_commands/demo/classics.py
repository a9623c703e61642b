"""The three classic programs, from the first page of multiprocessing's documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from procession._commands.demo.crew import crew
from procession._commands.demo.greeting import answer_in_queue, answer_through_pipe, hello
from procession._commands.demo.listening import ChildFailedError, check, next_answer
from procession.connection import wait

if TYPE_CHECKING:
    from procession.context import BaseContext

__all__ = ["through_pipe", "through_process", "through_queue"]

_PATIENCE: Final = 30.0
"""How long, in seconds, to wait for one small message from one child."""


def through_process(context: BaseContext) -> None:
    """Have a child print ``hello bob``, where this process prints, without a line's end."""
    child = context.Process(target=hello, args=("bob",), name="hello")
    with crew([child]):
        check([child], _PATIENCE)


def through_queue(context: BaseContext) -> Any:  # whatever came
    """Return what a child has put into a queue."""
    queue = context.Queue()
    child = context.Process(target=answer_in_queue, args=(queue,), name="answer")
    try:
        with crew([child]):
            return next_answer(queue, [child])
    finally:
        queue.close()
        queue.join_thread()


def through_pipe(context: BaseContext) -> Any:  # whatever came
    """Return what a child has sent through a pipe."""
    here, there = context.Pipe()
    child = context.Process(target=answer_through_pipe, args=(there,), name="answer")
    try:
        with crew([child]):
            there.close()
            if not wait([here, child.sentinel], timeout=_PATIENCE):
                raise ChildFailedError(f"nothing came through the pipe in {_PATIENCE:g} seconds")
            if not here.poll():
                check([child])
            return here.recv()
    finally:
        here.close()
        there.close()
