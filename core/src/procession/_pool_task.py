"""What a pool has to do: tasks, and the functions that they call."""

from __future__ import annotations

import itertools
from types import FunctionType
from typing import TYPE_CHECKING

from procession._pickling import dumps, join

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from procession._channel import Buffer

    class Job(Protocol):
        """What tasks belong to, and who gets their outcomes."""

        function: FunctionReference

        def wants(self, task: Task) -> bool:
            """Return whether *task* is to be done at all, before a worker gets it."""

        def deliver(self, task: Task, succeeded: bool, value: Any) -> None:
            """Take the one outcome of *task*; called once for each, by the pool's thread."""

        def told(self) -> None:
            """Learn that these were all outcomes for now."""


# What is pickled by name, whatever has happened to it meanwhile.
_BY_NAME = (FunctionType, type)
_MOST_REFERENCES = 64


class FunctionReference:
    """A function that tasks call, with a number of its own and, once it is needed, its pickle.

    Raises nothing itself: what cannot be pickled raises when the pickle is asked for.
    """

    __slots__ = ("_pickle", "function", "number")

    _numbers = itertools.count(1)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.number = next(self._numbers)
        self._pickle: bytes | None = None

    def pickled(self) -> bytes:
        """Return the pickle. Raises what pickling raises."""
        if self._pickle is None:
            body, buffers = dumps(self.function)
            self._pickle = join(body, buffers) if buffers else body
        return self._pickle


class FunctionReferences:
    """The functions of single calls, so that each is pickled once although it comes often.

    Only of those that are pickled by name: what a bound method or a partial stands for may
    have changed since. Threads: any; two may get two references, which costs a pickle.
    """

    def __init__(self) -> None:
        self._known: dict[int, FunctionReference] = {}

    def get(self, function: Callable[..., Any]) -> FunctionReference:
        """Return the reference to *function*."""
        found = self._known.get(id(function))
        if found is not None and found.function is function:
            return found
        made = FunctionReference(function)
        if type(function) in _BY_NAME:
            if len(self._known) >= _MOST_REFERENCES:
                self._known.clear()
            self._known[id(function)] = made
        return made


class Task:
    """One call, or one chunk of a map: what a worker is given at once."""

    __slots__ = (
        "arguments",
        "cancelled",
        "done",
        "failed_starts",
        "job",
        "mode",
        "number",
        "packed",
        "position",
        "retries",
        "size",
        "timeout",
    )

    def __init__(
        self,
        job: Job,
        mode: int,
        arguments: Any,
        position: int = 0,
        size: int = 1,
        number: int = 0,
        timeout: float | None = None,
        retries: int = 0,
    ) -> None:
        """*size* is the number of calls in it, *position* that of its first among the job's.

        *number* is its own among the job's tasks."""
        self.job = job
        self.mode = mode
        self.arguments = arguments
        self.position = position
        self.size = size
        self.number = number
        #: How many seconds a worker may take.
        self.timeout = None if timeout is None else timeout * size
        #: How often it may be done again after its worker has died.
        self.retries = retries
        #: How many workers have died with it that had not begun it.
        self.failed_starts = 0
        self.cancelled = False
        self.done = False
        self.packed: tuple[bytes, Sequence[Buffer]] | None = None

    def pack(self) -> tuple[bytes, Sequence[Buffer]]:
        """Return the pickle of the arguments. Raises what pickling raises."""
        if self.packed is None:
            self.packed = dumps(self.arguments)
        return self.packed

    def describe(self) -> str:
        """Return which task it is, for people: the function, and where it is in a map."""
        function = self.job.function.function
        name = getattr(function, "__qualname__", None) or repr(function)
        if self.mode == 0:
            return f"{name}()"
        if self.size == 1:
            return f"{name}(), item {self.position}"
        return f"{name}(), items {self.position} to {self.position + self.size - 1}"
