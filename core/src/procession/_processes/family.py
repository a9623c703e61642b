"""The family of a process: itself, its parent, and the children that it has started.

Imported in every child: nothing here loads more than it needs.
"""

from __future__ import annotations

import itertools

from procession._ground import standard
from procession._processes.authentication_string import AuthenticationString

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable

    from procession._processes.base_process import BaseProcess
    from procession.process import ParentProcess, Process


class Family:
    """Who is who in this process. There is one of it, `family`.

    `current` stands for this process itself, `parent` for who started it (None in the main
    process), `children` are those that were started here and, as far as anybody has looked,
    have not ended. `counter` counts all that were ever made here. `collectors` has one function
    for each start method in use that has helper processes; see `StartMethod.collect`.

    Threads: any. Fork: `procession._starting.launch` and `become` see to a child's.
    """

    __slots__ = ("children", "collectors", "counter", "current", "parent")

    current: BaseProcess

    def __init__(self) -> None:
        # `current` is set by `procession.process`, which has the class.
        self.parent: ParentProcess | None = None
        self.children: set[BaseProcess] = set()
        self.collectors: list[Callable[[], None]] = []
        self.counter = itertools.count(1)

    def reap(self) -> None:
        """Collect the children that have ended."""
        for process in list(self.children):
            if process._child is None or process._child.poll() is not None:
                process._leave()
        self.collect_helpers()

    def collect_helpers(self) -> None:
        """Collect what start methods had started for children that have ended."""
        for collect in self.collectors:
            collect()


#: This process's own.
family = Family()


def current_process() -> BaseProcess:
    """Return the object that stands for this process."""
    return family.current


def parent_process() -> BaseProcess | None:
    """Return an object that stands for the parent, or None in the main process.

    It has a `sentinel` that becomes readable when the parent has ended, however.
    """
    return family.parent


def active_children() -> list[BaseProcess]:
    """Return the children of this process that have not ended; reaps those that have."""
    family.reap()
    return list(family.children)


def become(process: Process, parent: ParentProcess, counter: itertools.count[int]) -> None:
    """Make *process* the current one, in the child that it stands for.

    *parent* stands for its parent there, and *counter* counts its children from 1.
    """
    family.counter = counter
    family.parent = parent
    family.current = process
    if process._own_options is not None:
        process._own_options = None  # they were the parent's to carry out
    if standard.followed:
        from procession._standard import state

        state.become()


def authenticate_as(authkey: bytes) -> None:
    """Use *authkey* in this process before it has become the one that it will be."""
    family.current._authkey = AuthenticationString(authkey)
