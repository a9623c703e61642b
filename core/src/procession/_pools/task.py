"""What a pool has to do: tasks, and the functions that they call."""

from __future__ import annotations

import itertools
from types import BuiltinFunctionType, FunctionType, ModuleType

from procession._messages.pickling import dumper, explain, join

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol, Self

    from procession._contracts.channel import Buffer
    from procession._ground.encoder import Encoder
    from procession._ground.unpicklable import Part

    class Job(Protocol):
        """What tasks belong to, and who gets their outcomes."""

        function: FunctionReference

        def wants(self, task: Task) -> bool:
            """Return whether *task* is to be done at all, before a worker gets it."""

        def deliver(self, task: Task, succeeded: bool, value: Any) -> bool:
            """Take the one outcome of *task*; called once for each, by the pool's thread.

            Returns whether it is to be `told` when there are no more for now.
            """

        def told(self) -> None:
            """Learn that these were all outcomes for now."""


_MOST_REFERENCES = 64


class FunctionReference:
    """A function that tasks call, with a number of its own and, once it is needed, its pickle.

    Raises nothing itself: what cannot be pickled raises when the pickle is asked for.
    """

    __slots__ = ("_pickle", "dumps", "encoder", "function", "number")

    _numbers = itertools.count(1)

    def __init__(self, function: Callable[..., Any], encoder: Encoder | None = None) -> None:
        self.function = function
        #: What pickles it and what it is called with.
        self.encoder = encoder
        self.dumps = dumper(encoder)
        self.number = next(self._numbers)
        self._pickle: bytes | None = None

    @property
    def name(self) -> str:
        """Its name, for people."""
        return getattr(self.function, "__qualname__", None) or repr(self.function)

    def pickled(self) -> bytes:
        """Return the pickle. Raises what pickling raises."""
        if self._pickle is None:
            try:
                body, buffers = self.dumps(self.function)
            except Exception as error:
                explain(error, [("func", self.function)], self.encoder)
                raise
            self._pickle = join(body, buffers) if buffers else body
        return self._pickle


class FunctionReferences:
    """The functions of single calls, so that each is pickled once although it comes often.

    Only of those that are pickled by name: what a bound method or a partial stands for may
    have changed since. Threads: any; two may get two references, which costs a pickle.
    """

    def __init__(self, encoder: Encoder | None = None) -> None:
        self.encoder = encoder
        self._known: dict[int, FunctionReference] = {}

    def get(self, function: Callable[..., Any]) -> FunctionReference:
        """Return the reference to *function*."""
        found = self._known.get(id(function))
        if found is not None and found.function is function:
            return found
        made = FunctionReference(function, self.encoder)
        # Another serializer may pickle functions with what they refer to.
        if self.encoder is None and _is_named(function):
            if len(self._known) >= _MOST_REFERENCES:
                self._known.clear()
            self._known[id(function)] = made
        return made


def _is_named(function: Callable[..., Any]) -> bool:
    """Return whether *function* is pickled by name, whatever has happened to it meanwhile."""
    kind = type(function)
    if kind is BuiltinFunctionType:  # or a method of a built-in object, which is its self
        return type(function.__self__) is ModuleType  # type: ignore[attr-defined]
    return kind is FunctionType or kind is type


class Task:
    """One call, or one chunk of a map: what a worker is given at once.

    What most tasks have in common stands in the class: making one is a good part of what a
    short task costs.
    """

    #: The number of calls in it, that of its first among the job's, and its own among the job's
    #: tasks.
    size = 1
    position = 0
    number = 0
    #: How many seconds a worker may take.
    timeout: float | None = None
    #: How often it may be done again after its worker has died.
    retries = 0
    #: How many workers have died with it that had not begun it.
    failed_starts = 0
    cancelled = False
    done = False
    #: Its number in the events of its pool, once there is one.
    key: int | None = None
    packed: tuple[bytes, Sequence[Buffer]] | None = None

    def __init__(self, job: Job, mode: int, arguments: Any) -> None:
        self.job = job
        self.mode = mode
        self.arguments = arguments

    @classmethod
    def chunk(cls, job: Job, mode: int, items: tuple[Any, ...], position: int, number: int) -> Self:
        """Return the task of calling the job's function for *items*, which begin at *position*."""
        task = cls(job, mode, items)
        task.size = len(items)
        task.position = position
        task.number = number
        return task

    def pack(self) -> tuple[bytes, Sequence[Buffer]]:
        """Return the pickle of the arguments. Raises what pickling raises."""
        if self.packed is None:
            function = self.job.function
            try:
                self.packed = function.dumps(self.arguments)
            except Exception as error:
                explain(error, self._parts(), function.encoder)
                raise
        return self.packed

    def _parts(self) -> list[Part]:
        """Return the arguments, by the names that the user knows."""
        if self.mode == 0:
            return list(zip(("args", "kwds"), self.arguments, strict=True))
        return [(f"iterable[{self.position + i}]", each) for i, each in enumerate(self.arguments)]

    def describe(self) -> str:
        """Return which task it is, for people: the function, and where it is in a map."""
        name = self.job.function.name
        if self.mode == 0:
            return f"{name}()"
        if self.size == 1:
            return f"{name}(), item {self.position}"
        return f"{name}(), items {self.position} to {self.position + self.size - 1}"
